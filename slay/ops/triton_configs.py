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
Launch = tuple["Tuned", tuple[Any, ...]]


def config(warps: int, stages: int, **tiles: int) -> triton.Config:
    return triton.Config(tiles, num_warps=warps, num_stages=stages)


class Tuned:
    """A kernel that is launched with the best of its configurations for a shape class.

    `key` names the arguments that tell classes apart; without configurations there is no choice.
    """

    def __init__(self, kernel: Any, key: list[str], *configs: triton.Config):
        self.kernel, self.configs, self.launch = kernel, list(configs), kernel
        self.interpreted = dict.fromkeys(configs[0].kwargs, 64) if configs else {}
        if configs and not INTERPRETED:
            self.launch = triton.autotune(self.configs, key=key, cache_results=True)(kernel)

    def __call__(self, grid: Any, *args: Any) -> None:
        if _recorded is not None:
            _recorded.append((self, args))
        elif INTERPRETED:  # with blocks that are not too many
            self.kernel[grid](*args, **self.interpreted)
        else:
            self.launch[grid](*args)


Tiles = tuple[int, int, int, int]  # warps, stages, T tokens of a block, tokens of the other side


def tuned(
    kernel: Any, key: list[str], other: str | None, choices: dict[str, list[Tiles]]
) -> dict[str, Tuned]:
    """A kernel by shape class, with configurations for each; `other` names the other side's T."""
    return {
        name: Tuned(
            kernel,
            key,
            *(
                config(warps, stages, T=t, **({other: to} if other else {}))
                for warps, stages, t, to in tiles
            ),
        )
        for name, tiles in choices.items()
    }


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Note launches with their arguments instead of making them."""
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None
