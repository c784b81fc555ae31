"""Configurations of the kernels: the tiles, warps and stages that each may be launched with.

Which of them a call gets is decided before it is made: the fastest that was verified on this very
device (`slay.ops.triton.verified`), else the first that its assembler gets right. Nothing is tuned
while a program runs, and each configuration sums in a fixed order, so that results do not vary from
run to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton

from slay.ops.triton import assembler, verified

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


def widths(key: str) -> tuple[int, int]:
    """Columns of F and of the values, padded, of a class of calls: 64 and 32 for "64 values 32"."""
    found = re.search(r"(\d+) values (\d+)", key)
    if found is None:
        raise ValueError(f"{key!r} is no class of calls of attention")
    return int(found[1]), int(found[2])


class Launch(NamedTuple):
    """One launch that was recorded instead of made."""

    kernel: Kernel
    key: str  # the class of calls that configurations are chosen for
    length: int  # tokens of the call
    arguments: dict[str, Any]  # by name, without what the configuration says
    grid: Any  # programs on each axis, or a function of the tiles that gives them


class Kernel:
    """A Triton kernel and the configurations that it may be launched with.

    `candidates(key)` lists those for a class of calls, the default first. `KERNELS` has all
    kernels by name. Numbers of tokens and heads are not specialised on, so that the code that was
    verified is that of every call.
    """

    def __init__(self, function: Any, candidates: Callable[[str], list[Config]]):
        self.name: str = function.fn.__name__ if hasattr(function, "fn") else function.__name__
        self.function, self.candidates = assembler.adopt(function), candidates
        KERNELS[self.name] = self

    def __call__(self, grid: Any, key: str, length: int, /, **arguments: Any) -> None:
        """Launch it on `grid(tiles)` programs, `tiles` being the sizes that were chosen."""
        if _recorded is not None:
            _recorded.append(Launch(self, key, length, arguments, grid))
            return
        if INTERPRETED:
            tiles = self._interpreted(key)
            self.function[_size(grid, tiles)](**arguments, **tiles)
            return
        device = next(_devices(tuple(arguments.values())))
        config = _forced.get(self.name) or self.config(key, length, device)
        with torch.cuda.device(device):
            self.function[_size(grid, dict(config.tiles))](**arguments, **config.options)

    def config(self, key: str, length: int, device: torch.device) -> Config:
        """The configuration that a call of that class gets on a device."""
        return _chosen(self, key, length, device)

    def _interpreted(self, key: str) -> dict[str, int]:
        """Tiles that are large: the interpreter's time goes into their number."""
        if self.name in _forced:
            return dict(_forced[self.name].tiles)
        tiles = dict(self.candidates(key)[0].tiles)
        return {name: 128 if name.startswith("T") else n for name, n in tiles.items()}


@lru_cache(maxsize=1024)
def _chosen(kernel: Kernel, key: str, length: int, device: torch.device) -> Config:
    found = verified.choice(device, kernel.name, key, length)
    if found is not None:
        return found
    capability = torch.cuda.get_device_capability(device)
    version = assembler.find(capability).version
    some = kernel.candidates(key)
    return next((c for c in some if assembler.safe(c, capability, version)), some[0])


def _size(grid: Any, tiles: dict[str, int]) -> tuple[int, ...]:
    return grid(tiles) if callable(grid) else grid


def _devices(values: tuple[Any, ...]) -> Iterator[torch.device]:
    """The devices of tensors among some arguments."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value.device
        elif isinstance(value, tuple):
            yield from _devices(value)


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
