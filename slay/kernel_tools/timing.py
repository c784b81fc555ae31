"""Times of single kernels in several configurations, on an otherwise idle GPU.

A call's launches are recorded, not executed; each is then launched on its own, several times in
one CUDA graph, which excludes Python overhead. The contents of the tensors do not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from slay.benchmarks.calls import Inputs
from slay.benchmarks.timing import Call, Graph, seconds
from slay.kernel_tools.calls import calls_of
from slay.kernel_tools.cases import Case
from slay.registry import get_attention_class

LENGTHS = (1024, 8192, 65_536)
HEADS, ROUNDS = 8, 5
TOKENS, MOST = 32_768, 8  # tokens per graph, and most launches in it
Times = dict[str, dict[str, dict[str, dict[int, float]]]]  # by key, kernel, configuration, length


def times(case: Case, configs: Mapping[str, Sequence[str]], device: torch.device) -> Times:
    """Milliseconds of a case's kernels per configuration, for all lengths that fit into memory."""
    from slay.ops.triton.configs import forced
    from slay.ops.triton.verified import config

    found: Times = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for length in LENGTHS:
        try:
            for launch in _launches(case, length, device):
                name = launch.kernel.name
                for text in configs.get(name, ()):
                    with forced({name: config(text)}):
                        spent = milliseconds(partial(_launch, launch), length, device)
                    known = found[launch.key][name][text]
                    known[length] = known.get(length, 0.0) + spent  # sum over repeated launches
        except torch.OutOfMemoryError:
            break
    return found


def _launches(case: Case, length: int, device: torch.device) -> list[Any]:
    """Launches of a forward and a backward pass, and of decoding tokens after them."""
    from slay.ops.triton.configs import recording

    cls = get_attention_class(case.mechanism)
    mechanism = cls.heads_only(case.head_dim, HEADS, backend="triton", **case.options).to(device)
    widths = case.head_dim, case.head_dim, case.value_dim, case.value_dim
    dtype = getattr(torch, case.dtype)
    tokens = Inputs(*(torch.zeros(1, HEADS, length, n, dtype=dtype, device=device) for n in widths))
    with recording() as launches:
        for call in calls_of(case):
            if call.timed:
                call.make(mechanism, tokens)
    return launches


def _launch(launch: Any) -> None:
    launch.kernel(launch.grid, launch.key, launch.length, **launch.arguments)


def milliseconds(call: Call, length: int, device: torch.device) -> float:
    """GPU time of one call in milliseconds, the median of `ROUNDS` rounds."""
    call()  # compiles
    number = max(1, min(MOST, TOKENS // length))
    graph = Graph(lambda: [call() for _ in range(number)], device)
    graph()
    return 1e3 * median(seconds(graph, device) for _ in range(ROUNDS)) / number
