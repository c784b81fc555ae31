"""Configurations of the kernels that Triton chooses among, once a device and shape class.

Its choice is kept on disk beside the compiled kernels. Each sums in a fixed order, so that results
do not vary from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton

INTERPRETED = bool(triton.knobs.runtime.interpret)
Recorded = list[tuple["Tuned", tuple[Any, ...]]]


def config(warps: int, stages: int, **tiles: int) -> triton.Config:
    return triton.Config(tiles, num_warps=warps, num_stages=stages)


class Tuned:
    """A kernel that is launched with the best of its configurations for a shape class.

    `key` names the arguments that tell classes apart; without configurations there is no choice.
    """

    def __init__(self, kernel: Any, key: list[str], *configs: triton.Config):
        self.kernel, self.configs = kernel, list(configs)
        kept = self.configs[: 1 if INTERPRETED else None]
        cached = {"cache_results": not INTERPRETED}
        self.launch = triton.autotune(kept, key=key, **cached)(kernel) if kept else kernel

    def __call__(self, grid: Any, *args: Any) -> None:
        if _recorded is None:
            self.launch[grid](*args)
        else:
            _recorded.append((self, args))


_recorded: Recorded | None = None


@contextmanager
def recording() -> Iterator[Recorded]:
    """Note launches with their arguments instead of making them."""
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None
