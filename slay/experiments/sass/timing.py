"""Cycles that programs take on one multiprocessor, by its warps' instructions one after another.

A warp issues in order, as its machine code says: so many cycles after an instruction, and not
before the scoreboards that the next one waits for are free. A quarter of the multiprocessor issues
one instruction a cycle, and has pipes of its own; shared and global memory are all quarters'.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from slay.experiments.sass.code import Instruction
from slay.experiments.sass.execution import Execution
from slay.experiments.sass.memory import WARP
from slay.experiments.sass.values import UnknownBranch

STEPS = 150_000  # instructions after which the rest is taken to go on at the same speed


@dataclass(frozen=True)
class Gpu:
    """What estimates know of a GPU; the defaults are an H100's."""

    name: str = "H100"
    multiprocessors: int = 132
    clock: float = 1.755e9  # cycles a second
    memory: float = 3.0e12  # bytes a second, as a copy reaches
    cache: float = 23.7  # bytes a cycle and multiprocessor, of the second level (5.5 TB/s in all)
    shared: int = 228 * 1024  # bytes of a multiprocessor
    warps: int = 64  # of a multiprocessor
    matrix: float = 6.5  # cycles of a quarter that a 16 x 8 x 16 product by a warp takes


H100 = Gpu()
A100 = Gpu("A100", 108, 1.41e9, 1.4e12, 28.0, 164 * 1024, matrix=8.0)

# Cycles from an instruction to its result, for those that set a scoreboard.
LATENCY = {
    "LDS": 29, "LDSM": 33, "SHFL": 25, "MUFU": 20, "LDG": 300, "LDGSTS": 300, "STG": 300,
    "ATOMG": 600, "LDC": 40, "ULDC": 40, "S2R": 30, "S2UR": 30, "I2F": 20, "F2I": 20,
    "POPC": 20, "FLO": 20, "MEMBAR": 20, "FENCE": 30, "HMMA": 33,
}  # fmt: skip
BARRIER = 20  # cycles from the last warp's arrival
PRODUCT = 40  # from the end of a warp group's product to who waits for it
LEAST_PRODUCT = 24  # cycles of a warp group's product that is narrow
READ = 12  # until operands were read
FLOATS = ("FFMA", "FMUL", "FADD", "HFMA2", "HADD2", "HMUL2")
SPECIAL = ("MUFU", "I2F", "F2I", "POPC", "FLO", "BREV", "F2F", "I2FP")
SHARED = ("LDS", "LDSM", "STS", "STSM")
GLOBAL = ("LDG", "STG", "LDGSTS", "ATOMG", "RED", "LDL", "STL")
NO_PIPE = ("BAR", "BRA", "EXIT", "BSSY", "BSYNC", "DEPBAR", "LDGDEPBAR", "WARPGROUP", "NOP",
           "MEMBAR", "FENCE", "LDC", "ULDC", "S2R", "S2UR", "WARPSYNC", "BREAK")  # fmt: skip
QUARTERS = 4


class Step(NamedTuple):
    """What an instruction does to time."""

    stall: int
    waits: tuple[int, ...]  # scoreboards
    sets: int | None
    holds: int | None
    pipe: str
    busy: float  # cycles of that pipe
    latency: float
    kind: str  # "", or what warps and groups of copies wait by
    number: int


def step_of(i: Instruction, execution: Execution, gpu: Gpu) -> Step:
    pipe, busy = _pipe(i, execution, gpu)
    kind, number = "", 0
    if i.name == "BAR":
        kind = "barrier"
    elif i.name == "HGMMA":
        kind, number = "product", int(i.operands[-1].text.startswith("gsb"))
    elif i.name == "WARPGROUP" and "DEPBAR" in i.modifiers:
        kind, number = "products done", i.operands[-1].number or 0
    elif i.name == "LDGSTS":
        kind = "copy"
    elif i.name == "LDGDEPBAR":
        kind = "copies"
    elif i.name == "DEPBAR":
        kind, number = "copies done", i.operands[-1].number or 0
    waits = tuple(n for n in range(6) if i.waits >> n & 1)
    latency = LATENCY.get(i.name, 10)
    return Step(max(1, i.stall), waits, i.sets, i.holds, pipe, busy, latency, kind, number)


def _pipe(i: Instruction, execution: Execution, gpu: Gpu) -> tuple[str, float]:
    """Where an instruction is carried out, and how many cycles that is busy."""
    if i.name in SHARED:
        return "shared", execution.measured.get(i.address, i.bytes / 4)
    if i.name == "SHFL":
        return "shared", 1
    if i.name in GLOBAL:
        sectors = execution.measured.get(i.address, i.bytes)
        out = sectors * execution.distinct.get(i.address, 1.0)
        return "global", max(sectors * WARP / 64, out * WARP / gpu.cache)
    if i.name == "HGMMA":
        columns = int(i.modifiers[0].split("x")[1])
        return "matrix", max(columns / 2, LEAST_PRODUCT)
    if i.name.endswith("MMA"):
        return "matrix", gpu.matrix
    if i.name in FLOATS:
        return "float", 1
    if i.name == "IMAD":
        return "float", 2
    if i.name in SPECIAL:
        return "special", 8
    if i.name in NO_PIPE:
        return "", 0
    return ("uniform", 2) if i.name.startswith("U") or i.name == "R2UR" else ("integer", 2)


def resident(registers: int, warps: int, shared: int, gpu: Gpu = H100) -> int:
    """Programs that a multiprocessor holds at once."""
    of_warp = -(-registers // 8) * 8 * WARP
    by_registers = 65536 // (of_warp * warps)
    return max(1, min(by_registers, gpu.warps // warps, gpu.shared // (shared + 1024), 32))


class Warp:
    """A warp on its way through its program."""

    def __init__(self, number: int, program: int, trace: list[int]) -> None:
        self.quarter, self.program, self.trace = number % QUARTERS, program, trace
        self.number, self.block, self.place = number, 0, 0
        self.scoreboards = [0.0] * 6
        self.product, self.products = 0.0, [0.0]  # when the last one ends, and groups of them
        self.copy, self.copies = 0.0, [0.0]

    def next(self, blocks: dict[int, list[Step]]) -> Step | None:
        """The step to issue; None at the end."""
        while self.block < len(self.trace):
            block = blocks[self.trace[self.block]]
            if self.place < len(block):
                return block[self.place]
            self.block, self.place = self.block + 1, 0
        return None

    def ready(self, time: float, step: Step) -> float:
        return max([time, *(self.scoreboards[n] for n in step.waits)])


class Multiprocessor:
    """Programs that run together on a multiprocessor, from their beginning to their end."""

    def __init__(self, execution: Execution, warps: int, gpu: Gpu = H100) -> None:
        self.steps = {
            address: [step_of(i, execution, gpu) for i in block]
            for address, block in execution.blocks.items()
        }
        self.warps = warps
        self.free: dict[tuple[str, int], float] = {}  # when a pipe is, by its quarter
        self.arrived: dict[int, list[Warp]] = {}
        self.busy: dict[str, float] = defaultdict(float)  # share of the cycles, by pipe

    def cycles(self, traces: list[list[int]]) -> float:
        """Cycles that programs with these traces of their warps take."""
        programs = range(len(traces))
        warps = [
            Warp(p * self.warps + n, p, traces[p]) for p in programs for n in range(self.warps)
        ]
        whole = sum(len(self.steps[address]) for t in traces for address in t) * self.warps
        queue = [(0.0, warp.number) for warp in warps]
        heapify(queue)
        issued, end = 0, 0.0
        while queue and issued < STEPS:
            time, number = heappop(queue)
            warp = warps[number]
            step = warp.next(self.steps)
            if step is None:
                continue
            later = self._later(time, warp, step)
            if later > time:
                heappush(queue, (later, number))
                continue
            issued += 1
            following = self._issue(time, warp, step)
            end = max(end, following)
            for other in self._released(warp, step):
                after = other.next(self.steps)
                if after is not None:
                    heappush(queue, (other.ready(following, after), other.number))
        if self.arrived and not queue:
            raise UnknownBranch("warps wait at a barrier that others do not come to")
        self.busy["issue"] = float(issued)
        for pipe in self.busy:
            self.busy[pipe] /= end * (1 if pipe in ("shared", "global") else QUARTERS)
        return end * whole / max(1, issued)

    def _later(self, time: float, warp: Warp, step: Step) -> float:
        """When a warp may issue, at the earliest."""
        free = self.free.get(("issue", warp.quarter), 0.0)
        if step.pipe and step.pipe not in ("shared", "global") and step.kind != "product":
            free = max(free, self.free.get((step.pipe, warp.quarter), 0.0))
        return max(time, free)

    def _issue(self, time: float, warp: Warp, step: Step) -> float:
        """Issue a step; when its warp may issue the next one."""
        self.free["issue", warp.quarter] = time + 1
        start, done = time, time + step.latency
        if step.pipe:
            key = step.pipe, 0 if step.pipe in ("shared", "global") else warp.quarter
            start = max(time, self.free.get(key, 0.0))
            self.free[key] = start + step.busy
            self.busy[step.pipe] += step.busy
            done = start + step.busy + step.latency
        if step.sets is not None:
            warp.scoreboards[step.sets] = max(warp.scoreboards[step.sets], done)
        if step.holds is not None:
            read = start + READ if step.pipe else done
            warp.scoreboards[step.holds] = max(warp.scoreboards[step.holds], read)
        warp.place += 1
        return max(time + step.stall, self._awaited(warp, step, start, done))

    def _awaited(self, warp: Warp, step: Step, start: float, done: float) -> float:
        """Note products and copies under way; until when the warp waits for such."""
        if step.kind == "product":
            warp.product = max(warp.product, start + step.busy + PRODUCT)
            if step.number:
                warp.products.append(warp.product)
        elif step.kind == "copy":
            warp.copy = max(warp.copy, done)
        elif step.kind == "copies":
            warp.copies.append(warp.copy)
        elif step.kind == "products done" and len(warp.products) > step.number:
            return warp.products[-1 - step.number]
        elif step.kind == "copies done" and len(warp.copies) > step.number:
            return warp.copies[-1 - step.number]
        elif step.kind == "barrier":
            return start + BARRIER
        return 0.0

    def _released(self, warp: Warp, step: Step) -> list[Warp]:
        """The warps that go on after a step: from a barrier, all once the last is there."""
        if step.kind != "barrier":
            return [warp]
        arrived = self.arrived.setdefault(warp.program, [])
        arrived.append(warp)
        if len(arrived) < self.warps:
            return []
        del self.arrived[warp.program]
        return arrived
