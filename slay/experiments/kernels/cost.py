"""What kernels cost by their machine code: instructions a token by kind, and an estimated time.

A sample of a launch's programs is run with the integers alone (`slay.experiments.sass`), so that
every loop goes round as often as on a device; no table of trip counts is needed. The time is that
of programs sharing a multiprocessor, times how many of those follow one another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from slay.experiments.sass import timing
from slay.experiments.sass.code import Instruction, instructions
from slay.experiments.sass.execution import Execution, Programs, Simulation
from slay.experiments.sass.memory import WARP
from slay.experiments.sass.timing import Gpu, Multiprocessor, resident
from slay.experiments.sass.values import UnknownBranch

GPUS = {"sm_80": timing.A100, "sm_90": timing.H100}
SAMPLE = 32  # programs
GOLDEN = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)  # fills a cube evenly
KINDS = {
    "matrix": ("HGMMA", "HMMA", "IMMA", "QGMMA", "IGMMA"),
    "float": ("FFMA", "FMUL", "FADD", "FSEL", "FSETP", "FSET", "FMNMX", "FCHK", "HFMA2", "HADD2",
              "HMUL2", "HSETP2", "HMNMX2"),
    "convert": ("F2FP", "F2F", "F2I", "I2F", "I2FP", "F2IP", "PRMT"),
    "special": ("MUFU",),
    "shared": ("LDS", "LDSM", "STS", "STSM"),
    "shuffle": ("SHFL",),
    "sync": ("BAR", "WARPSYNC", "DEPBAR", "LDGDEPBAR", "WARPGROUP", "MEMBAR", "FENCE", "SYNCS",
             "BSSY", "BSYNC"),
    "global": ("LDG", "STG", "LDGSTS", "RED", "ATOMG", "LDL", "STL"),
    "branch": ("BRA", "EXIT", "BREAK", "CALL", "RET"),
}  # fmt: skip
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}  # else "integer"
COLUMNS = ("matrix", "float", "convert", "special", "integer", "shared", "shuffle", "sync",
           "global", "branch")  # fmt: skip


@dataclass
class Cost:
    """What a launch costs in a configuration; instructions are those that warps issue."""

    kernel: str
    config: str
    registers: int
    spilled: int
    shared: int
    resident: int  # programs of a multiprocessor at once
    programs: int
    slots: float = math.nan  # instructions a token
    kinds: dict[str, float] = field(default_factory=dict)  # of those
    products: dict[str, float] = field(default_factory=dict)  # matrix instructions by shape
    wavefronts: float = math.nan  # cycles of shared memory a token
    cache_bytes: float = math.nan  # that leave a multiprocessor, a token
    memory_bytes: float = math.nan  # of all tensors, a token
    milliseconds: float = math.nan  # estimated
    objection: str = ""  # why there is nothing to count


def cost_of(launch: Any, config: Any, target: str, capability: int, tokens: int) -> Cost:
    """The cost of a recorded launch by token of one head, of which the call has `tokens`."""
    from slay.ops.triton.compile import compile_launch

    made, gpu = compile_launch(launch, config, capability), GPUS[target]
    programs = math.prod(made.grid)
    at_once = resident(made.registers, made.warps, made.shared, gpu)
    sizes = made.registers, made.spilled, made.shared, at_once, programs
    cost = Cost(made.kernel, made.config, *sizes)
    some = Programs(list(sample(made.grid)), WARP * made.warps)
    try:
        found = Simulation(instructions(made.sass), made.constants, some).run()
        seconds = seconds_of(found, made.warps, programs, at_once, gpu)
    except UnknownBranch as error:
        cost.objection = str(error)
        return cost
    count(cost, found, programs / tokens)
    moved = sum(t.numel() * t.element_size() for t in tensors(launch.arguments))
    cost.memory_bytes = moved / tokens
    cost.milliseconds = 1e3 * max(seconds, moved / gpu.memory)
    return cost


def sample(grid: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """Programs spread evenly over a grid, or all of a small one."""
    x, y, z = grid
    if x * y * z <= SAMPLE:
        yield from ((i % x, i // x % y, i // x // y) for i in range(x * y * z))
        return
    for n in range(SAMPLE):
        i, j, k = (int((0.5 + n * g) % 1 * size) for g, size in zip(GOLDEN, grid, strict=True))
        yield i, j, k


def count(cost: Cost, found: Execution, share: float) -> None:
    """Instructions and bytes by token, of which a program has 1 / `share`."""
    kinds: dict[str, float] = defaultdict(float)
    products: dict[str, float] = defaultdict(float)
    cost.wavefronts = cost.cache_bytes = 0.0
    for i, times in executed(found):
        kind = KIND_OF.get(i.name, "integer")
        kinds[kind] += times * share
        if kind == "matrix":
            products[i.opcode] += times * share
        elif kind == "shared" and not (i.guard and i.guard.text == "!PT"):
            cost.wavefronts += times * share * found.measured.get(i.address, i.bytes / 4)
        elif kind == "global":
            sectors = found.measured.get(i.address, i.bytes) * found.distinct.get(i.address, 1.0)
            cost.cache_bytes += times * share * sectors * 32
    cost.slots, cost.kinds, cost.products = sum(kinds.values()), dict(kinds), dict(products)


def executed(found: Execution) -> Iterator[tuple[Instruction, float]]:
    """Each instruction, and how many warps of a program issue it."""
    for address, times in found.warps.items():
        if times:
            yield from ((i, times) for i in found.blocks[address])


def seconds_of(found: Execution, warps: int, programs: int, at_once: int, gpu: Gpu) -> float:
    """The time of a launch: of programs together on a multiprocessor, over and over."""
    together = min(at_once, -(-programs // gpu.multiprocessors))
    lengths = [found.slots(trace) for trace in found.traces]
    mean = sum(lengths) / len(lengths)
    usual = sorted(range(len(lengths)), key=lambda n: abs(lengths[n] - mean))
    chosen = [usual[n % len(usual)] for n in range(together)]
    cycles = Multiprocessor(found, warps, gpu).cycles([found.traces[n] for n in chosen])
    cycles *= mean * together / max(1, sum(lengths[n] for n in chosen))
    times = programs / (gpu.multiprocessors * together)
    if times < 4:  # whose last round may be nearly empty
        times = math.ceil(times)
    return cycles * times / gpu.clock


def tensors(arguments: Any) -> list[Tensor]:
    """The distinct tensors among a launch's arguments."""
    found: dict[tuple[int, int], Tensor] = {}

    def look(value: Any) -> None:
        if isinstance(value, Tensor):
            found[value.untyped_storage()._cdata, int(value.storage_offset())] = value
        elif isinstance(value, tuple):
            for part in value:
                look(part)

    for value in arguments.values():
        look(value)
    return list(found.values())
