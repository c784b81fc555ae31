"""Worker process of `slay kernels verify`: `python -m slay.kernel_tools.worker`.

Reads one JSON task per line from its input and writes one JSON answer per line. It exits when its
input closes, so that it never outlives its parent. A task that kills it counts as wrong.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

from slay.errors import SlayError

Answer = dict[str, Any]
# Errors where nothing can be compiled: no package, disk space, permission or C compiler.
ELSEWHERE = (ImportError, OSError, subprocess.SubprocessError)


def main() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for bitwise reproducible results
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # compilers may print
    tasks: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        print(json.dumps(answer(json.loads(tasks.get()))), file=answers)


def _listen(tasks: queue.Queue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)  # even during a task


def answer(task: Answer) -> Answer:
    """Run a task and return its answer; "absent" if none can run here, "full" for no memory."""
    try:
        import torch
        import triton  # noqa: F401

        from slay.kernel_tools.cases import Case
    except ImportError as error:
        return {"absent": _line(error)}
    case = Case(**{**task["case"], "lengths": tuple(task["case"]["lengths"])})
    device = torch.device(task["device"])
    try:
        if device.index is not None:
            torch.cuda.set_device(device)  # where Triton launches
        return _do(task["do"], case, task.get("configs", {}), device)
    except torch.OutOfMemoryError as error:
        return {"full": _line(error)}
    except ELSEWHERE as error:
        return {"absent": _line(error)}
    except Exception as error:
        kind = "absent" if "Failed to find C compiler" in str(error) else "wrong"
        return {kind: f"{type(error).__name__}: {_line(error)}"}


def _do(task: str, case: Any, configs: Any, device: Any) -> Answer:
    """Find what a case launches, check it in some configurations, or time it in several."""
    from slay.kernel_tools import checks, timing

    if task == "time":
        return {"times": timing.times(case, configs, device)}
    if task == "check":
        wrong = checks.objection(case, configs, device)
        return {"right": True} if wrong is None else {"wrong": wrong}
    try:
        found = checks.launched(case, device)
    except SlayError as error:  # kernels do not take such a mechanism or size
        return {"plan": [], "why": _line(error)}
    return {"plan": [[key, kernel, configs] for (key, kernel), configs in found.items()]}


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


if __name__ == "__main__":
    main()
