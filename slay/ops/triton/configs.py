"""Kernel configurations: the tiles, warps and stages with which each may be launched.

A call's configuration is fixed in advance: the fastest one verified on this device
(`slay.ops.triton.verified`), else the first that its assembler compiles correctly. There is no
autotuning at run time, and each configuration has a fixed summation order, so that results do not
vary from run to run.
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
    """Compile-time options of a kernel."""

    warps: int
    stages: int
    tiles: tuple[tuple[str, int], ...] = ()  # names and sizes, as in (("T", 64), ("TK", 32))

    def __str__(self) -> str:
        tiles = [f"{name}={size}" for name, size in self.tiles]
        return " ".join([*tiles, f"warps={self.warps}", f"stages={self.stages}"])

    @property
    def options(self) -> dict[str, int]:
        """Keyword arguments of a launch."""
        return {**dict(self.tiles), "num_warps": self.warps, "num_stages": self.stages}


def widths(key: str) -> tuple[int, int]:
    """Padded columns of F and of the values in a call class: 64 and 32 for "64 values 32"."""
    found = re.search(r"(\d+) values (\d+)", key)
    if found is None:
        raise ValueError(f"{key!r} is no class of calls of attention")
    return int(found[1]), int(found[2])


class Launch(NamedTuple):
    """A recorded kernel launch."""

    kernel: Kernel
    key: str  # call class, for which configurations are chosen
    length: int  # tokens of the call
    arguments: dict[str, Any]  # by name, without those of the configuration
    grid: Any  # programs per axis, or a function of the tiles


class Kernel:
    """A Triton kernel and its candidate configurations.

    `candidates(key)` lists those for a call class, the default first. `KERNELS` has all kernels by
    name. Numbers of tokens and heads are not specialised, so that every call runs the code that was
    verified.
    """

    def __init__(self, function: Any, candidates: Callable[[str], list[Config]]):
        self.name: str = function.fn.__name__ if hasattr(function, "fn") else function.__name__
        self.function, self.candidates = assembler.adopt(function), candidates
        KERNELS[self.name] = self

    def __call__(self, grid: Any, key: str, length: int, /, **arguments: Any) -> None:
        """Launch the kernel on `grid(tiles)` programs, with the tile sizes of its configuration."""
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
        """Return the configuration of a call class on a device."""
        return _chosen(self, key, length, device)

    def _interpreted(self, key: str) -> dict[str, int]:
        """Large tiles: the interpreter's run time grows with their number."""
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
    """Yield the devices of the tensors among the arguments."""
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
    """Context manager that records launches instead of running them."""
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None


@contextmanager
def forced(configs: dict[str, Config]) -> Iterator[None]:
    """Context manager that fixes the configurations of the named kernels."""
    global _forced
    before, _forced = _forced, configs
    try:
        yield
    finally:
        _forced = before
