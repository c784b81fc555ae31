"""Configurations of the kernels: the tiles, warps and stages that each may be launched with.

Which of them a call gets is decided before it is made: the fastest that was verified on this very
device (`slay.ops.triton.verified`), else the first in the list. Nothing is tuned while a program
runs, and each configuration sums in a fixed order, so that results do not vary from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import triton

INTERPRETED = bool(triton.knobs.runtime.interpret)


class Config(NamedTuple):
    """What a kernel is compiled with beside its arguments."""

    warps: int
    stages: int
    tiles: tuple[tuple[str, int], ...] = ()  # names and sizes, as in (("T", 64), ("TK", 32))

    def __str__(self) -> str:
        tiles = [f"{name}={size}" for name, size in self.tiles]
        return " ".join([*tiles, f"warps={self.warps}", f"stages={self.stages}"])

    @property
    def options(self) -> dict[str, int]:
        """The same as keyword arguments of a launch."""
        return {**dict(self.tiles), "num_warps": self.warps, "num_stages": self.stages}


class Launch(NamedTuple):
    """One launch that was recorded instead of made."""

    kernel: Kernel
    key: str  # the class of calls that configurations are chosen for
    length: int  # tokens of the call
    arguments: dict[str, Any]  # by name, without what the configuration says
    grid: Any  # programs, or a function of the tiles


class Kernel:
    """A Triton kernel and the configurations that it may be launched with.

    `candidates(key)` lists those for a class of calls, the default first. `KERNELS` has all
    kernels by name.
    """

    def __init__(self, function: Any, candidates: Callable[[str], list[Config]]):
        self.function, self.candidates = function, candidates
        self.name: str = function.fn.__name__ if hasattr(function, "fn") else function.__name__
        KERNELS[self.name] = self

    def __call__(self, grid: Any, key: str, length: int, /, **arguments: Any) -> None:
        """Launch it on `grid(tiles)` programs, `tiles` being the sizes that were chosen."""
        if _recorded is not None:
            _recorded.append(Launch(self, key, length, arguments, grid))
            return
        config = self.config(key, length)
        tiles = dict(config.tiles)
        if INTERPRETED and self.name not in _forced:  # whose time goes into the number of tiles
            tiles = {name: 64 if name.startswith("T") else n for name, n in tiles.items()}
        size = grid(tiles) if callable(grid) else grid
        if INTERPRETED:
            self.function[size](**arguments, **tiles)
        else:
            self.function[size](**arguments, **config.options)

    def config(self, key: str, length: int) -> Config:
        """The configuration that a call of that class gets."""
        if self.name in _forced:
            return _forced[self.name]
        return self.candidates(key)[0]


KERNELS: dict[str, Kernel] = {}
_recorded: list[Launch] | None = None
_forced: dict[str, Config] = {}


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Note launches with their arguments instead of making them."""
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None


@contextmanager
def forced(configs: dict[str, Config]) -> Iterator[None]:
    """Launch the kernels of these names with these configurations."""
    global _forced
    before, _forced = _forced, configs
    try:
        yield
    finally:
        _forced = before
