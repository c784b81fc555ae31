"""Cost of kernels from their machine code: instructions per token by kind, and estimated time.

The integer instructions of a sample of a launch's programs are simulated
(`slay.kernel_tools.sass`), so that every loop has its real trip count and no table of these is
needed. The time is that of the programs resident on a multiprocessor, times the number of waves.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from slay.kernel_tools.sass import timing
from slay.kernel_tools.sass.code import Instruction, instructions
from slay.kernel_tools.sass.execution import Execution, Programs, Simulation
from slay.kernel_tools.sass.memory import WARP
from slay.kernel_tools.sass.timing import Gpu, Multiprocessor, resident
from slay.kernel_tools.sass.values import UnknownBranch
from slay.kernel_tools.survey import HEADS, Subject, capability, processes, record

GPUS = {"sm_80": timing.A100, "sm_90": timing.H100}
SAMPLE = 32  # programs
STEPS = (0.6180339887498949, 0.4142135623730951, 0.7320508075688772)  # irrational
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
    """Cost of a launch in one configuration; instructions are those that warps issue."""

    kernel: str
    config: str
    registers: int
    spilled: int
    shared: int
    resident: int  # programs per multiprocessor at once
    programs: int
    slots: float | None = None  # instructions per token; None if they cannot be counted
    kinds: dict[str, float] = field(default_factory=dict)  # the same by kind
    products: dict[str, float] = field(default_factory=dict)  # matrix instructions by shape
    wavefronts: float | None = None  # cycles of shared memory per token
    cache_bytes: float | None = None  # to and from the L2 cache, per token
    memory_bytes: float | None = None  # of all tensors, per token
    milliseconds: float | None = None  # estimated
    busy: dict[str, float] = field(default_factory=dict)  # share of the time that each pipe is busy
    objection: str = ""  # why instructions cannot be counted


def costs(
    subjects: Iterable[Subject], target: str, length: int
) -> Iterator[tuple[Subject, str, list[Cost]]]:
    """Yield subject, pass and the cost of each configuration, launch by launch."""
    with processes() as pool:
        tasks = []
        for subject in subjects:
            for way in ("forward", "backward"):
                for index, launch in enumerate(getattr(record(subject, length), way)):
                    place = subject, target, length, way, index
                    numbers = range(len(launch.kernel.candidates(launch.key)))
                    tasks.append((subject, way, [pool.submit(_cost, *place, n) for n in numbers]))
        try:
            for subject, way, launches in tasks:
                yield subject, way, [task.result() for task in launches]
        finally:
            pool.shutdown(cancel_futures=True)


def _cost(subject: Subject, target: str, length: int, way: str, index: int, number: int) -> Cost:
    launch = getattr(record(subject, length), way)[index]
    config = launch.kernel.candidates(launch.key)[number]
    return cost_of(launch, config, target, length * HEADS)


def cost_of(launch: Any, config: Any, target: str, tokens: int) -> Cost:
    """Cost of a recorded launch per token of one head, of which the call has `tokens`."""
    from slay.ops.triton.compile import compile_launch

    made, gpu = compile_launch(launch, config, capability(target)), GPUS[target]
    programs = math.prod(made.grid)
    at_once = resident(made.registers, made.warps, made.shared, gpu)
    sizes = made.registers, made.spilled, made.shared, at_once, programs
    cost = Cost(made.kernel, made.config, *sizes)
    some = Programs(list(sample(made.grid)), WARP * made.warps)
    try:
        found = Simulation(instructions(made.sass), made.constants, some).run()
        seconds, busy = seconds_of(found, made.warps, programs, at_once, gpu)
    except UnknownBranch as error:
        cost.objection = str(error)
        return cost
    count(cost, found, programs / tokens)
    moved = sum(t.numel() * t.element_size() for t in tensors(launch.arguments))
    cost.memory_bytes = moved / tokens
    cost.milliseconds = 1e3 * max(seconds, moved / gpu.memory)
    cost.busy = {**busy, "memory": moved / gpu.memory / seconds}
    return cost


def sample(grid: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """Programs spread evenly over a grid, or all of a small one."""
    x, y, z = grid
    if x * y * z <= SAMPLE:
        yield from ((i % x, i // x % y, i // x // y) for i in range(x * y * z))
        return
    for n in range(SAMPLE):
        i, j, k = (int((0.5 + n * g) % 1 * size) for g, size in zip(STEPS, grid, strict=True))
        yield i, j, k


def count(cost: Cost, found: Execution, share: float) -> None:
    """Set instructions and bytes per token; a program computes 1 / `share` tokens."""
    kinds: dict[str, float] = defaultdict(float)
    products: dict[str, float] = defaultdict(float)
    wavefronts = cache_bytes = 0.0
    for i, times in executed(found):
        kind = KIND_OF.get(i.name, "integer")
        kinds[kind] += times * share
        if kind == "matrix":
            products[i.opcode] += times * share
        elif kind == "shared":
            wavefronts += times * share * found.measured.get(i.address, i.bytes / 4)
        elif kind == "global":
            sectors = found.measured.get(i.address, i.bytes) * found.distinct.get(i.address, 1.0)
            cache_bytes += times * share * sectors * 32
    cost.slots, cost.kinds, cost.products = sum(kinds.values()), dict(kinds), dict(products)
    cost.wavefronts, cost.cache_bytes = wavefronts, cache_bytes


def executed(found: Execution) -> Iterator[tuple[Instruction, float]]:
    """Yield each instruction with the number of a program's warps that issue it."""
    for address, times in found.warps.items():
        if times:
            yield from ((i, times) for i in found.blocks[address])


def seconds_of(
    found: Execution, warps: int, programs: int, at_once: int, gpu: Gpu
) -> tuple[float, dict[str, float]]:
    """Return the time of a launch in seconds, and the share of it for which each pipe is busy.

    The time is that of the programs resident on a multiprocessor, times the number of waves.
    """
    together = min(at_once, -(-programs // gpu.multiprocessors))
    lengths = [found.slots(trace) for trace in found.traces]
    mean = sum(lengths) / len(lengths)
    usual = sorted(range(len(lengths)), key=lambda n: abs(lengths[n] - mean))
    chosen = [usual[n % len(usual)] for n in range(together)]
    one = Multiprocessor(found, warps, gpu)
    cycles = one.cycles([found.traces[n] for n in chosen])
    cycles *= mean * together / max(1, sum(lengths[n] for n in chosen))
    times = programs / (gpu.multiprocessors * together)
    if times < 4:  # the last wave may be nearly empty
        times = math.ceil(times)
    return cycles * times / gpu.clock, dict(one.busy)


def tensors(arguments: Any) -> list[Tensor]:
    """Distinct tensors among a launch's arguments."""
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


# As a table

FORM = (
    "{:22} {:8} {:14} {:32} {:>4} {:>5} {:>6} {:>3} {:>8}"
    + " {:>8}" * 10
    + " {:>7} {:>6} {:>8}  {}"
)
HEAD = FORM.format("mechanism", "pass", "kernel", "configuration", "regs", "spill", "shared", "at",
                   "slots", *COLUMNS, "waves", "L2 B", "ms", "busiest")  # fmt: skip


def line(subject: Subject, way: str, cost: Cost) -> str:
    """Table row: instructions per token of one head, and the time of the launch."""
    kinds = (_number(cost.kinds.get(kind, 0.0), 2) for kind in COLUMNS)
    text = FORM.format(
        f"{subject.attention} {subject.head_dim}", way, cost.kernel, cost.config, cost.registers,
        cost.spilled, cost.shared, cost.resident, _number(cost.slots, 1), *kinds,
        _number(cost.wavefronts, 1), _number(cost.cache_bytes, 0), _number(cost.milliseconds, 4),
        cost.objection or ", ".join(f"{pipe} {share:.0%}" for pipe, share in _busiest(cost)),
    )  # fmt: skip
    return text.rstrip()


def _busiest(cost: Cost) -> list[tuple[str, float]]:
    """The three busiest pipes. If none is busy nearly all of the time, warps stall."""
    return sorted(cost.busy.items(), key=lambda item: -item[1])[:3]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def report(
    subjects: Iterable[Subject], target: str, length: int, *, as_json: bool
) -> Iterator[str]:
    """Yield the table row by row, then a summary per pass; or JSON, one line per configuration."""
    capability(target)
    passes: dict[tuple[Subject, str], list[list[Cost]]] = {}
    if not as_json:
        yield HEAD
    for subject, way, found in costs(subjects, target, length):
        passes.setdefault((subject, way), []).append(found)
        for cost in found:
            facts = {**asdict(subject), "pass": way, "length": length, **asdict(cost)}
            yield json.dumps(facts) if as_json else line(subject, way, cost)
    if not as_json:
        for (subject, way), launches in passes.items():
            yield f"{subject.attention} {subject.head_dim} {way}: {_whole(launches)}"


def _whole(launches: list[list[Cost]]) -> str:
    """Summarise a pass, with each launch's first and with its estimated fastest configuration."""
    first = [found[0] for found in launches]
    fastest = [min(found, key=lambda cost: cost.milliseconds or math.inf) for found in launches]
    return "; ".join(
        f"{name} configurations {_sum(c.slots for c in chosen):.0f} instructions per token, "
        f"{_sum(c.milliseconds for c in chosen):.3f} ms"
        for name, chosen in (("first", first), ("fastest", fastest))
    )


def _sum(numbers: Iterable[float | None]) -> float:
    return sum(math.nan if n is None else n for n in numbers)
