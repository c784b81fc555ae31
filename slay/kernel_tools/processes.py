"""A worker process that is restarted after a task has killed it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any


class Process:
    """A process of `command` that exchanges lines of JSON; started by the first task."""

    def __init__(self, command: Sequence[str]):
        self.command = list(command)
        self._running: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def ask(self, task: str, seconds: float) -> dict[str, Any]:
        """Return the answer to a task, or {"wrong": reason} if there is none within `seconds`."""
        running = self._running or self._start()
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(task + "\n")
            running.stdin.flush()
            return json.loads(running.stdout.readline())
        except (OSError, ValueError):  # the process ended instead
            code = running.wait()
            ended = f"no answer within {seconds:.0f} s" if late.is_set() else self._ending(code)
            self.end()
            return {"wrong": ended}
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self.kill()
        if self._running is not None:
            self._running.wait()
            pipes = (self._running.stdin, self._running.stdout, self._log)
            for pipe in pipes:
                with suppress(OSError):  # a task was never read
                    if pipe is not None:
                        pipe.close()
        self._running = self._log = None

    def _start(self) -> subprocess.Popen[str]:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._running = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # its own process group, to be killed as one
        )
        return self._running

    def _ending(self, code: int) -> str:
        """Describe how the process ended, with the last line that it printed."""
        ended = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        assert self._log is not None
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return f"{ended}: {lines[-1][:200]}" if lines else ended
