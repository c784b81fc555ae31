"""Configurations of the kernels that Triton chooses among, once a device and shape class.

Its choice is kept on disk beside the compiled kernels. Each sums in a fixed order, so that results
do not vary from run to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton

INTERPRETED = bool(triton.knobs.runtime.interpret)


def config(warps: int, stages: int, **tiles: int) -> triton.Config:
    return triton.Config(tiles, num_warps=warps, num_stages=stages)


CONFIGS: dict[str, list[triton.Config]] = {
    "states": [config(4, 2, T=64), config(8, 2, T=128), config(4, 3, T=64)],
    "outputs": [config(4, 2, T=128, TK=64), config(4, 2, T=64, TK=64), config(8, 2, T=128, TK=64)],
    "query gradients": [config(4, 2, T=64, TK=64), config(8, 2, T=128, TK=64)],
    "key gradients": [config(4, 2, T=64, TQ=64), config(8, 2, T=128, TQ=64)],
}


def tuned(kernel: Any, name: str) -> Callable[..., None]:
    """Launch a kernel on a grid with the best of its configurations; `M` tells the shape class."""
    configs = CONFIGS[name][: 1 if INTERPRETED else None]
    best = triton.autotune(configs, key=["M"], cache_results=not INTERPRETED)(kernel)
    return lambda grid, *args, **more: best[grid](*args, **more)
