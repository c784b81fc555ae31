"""Cycles of programs on one multiprocessor, simulated instruction by instruction of its warps.

A warp issues in order: after the stall cycles of its last instruction, and once the scoreboards
that the next one waits for are free. Each quarter of the multiprocessor issues one instruction
per cycle and has its own pipes; shared and global memory are common to all quarters.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from slay.kernel_tools.sass.code import Instruction
from slay.kernel_tools.sass.execution import Execution
from slay.kernel_tools.sass.memory import WARP
from slay.kernel_tools.sass.values import UnknownBranch

STEPS = 150_000  # instructions simulated; the rest is extrapolated at the same speed


@dataclass(frozen=True)
class Gpu:
    """Parameters of a GPU for the estimates; the defaults are an H100's."""

    name: str = "H100"
    multiprocessors: int = 132
    clock: float = 1.755e9  # cycles per second
    memory: float = 3.0e12  # bytes per second, as achieved by a copy
    cache: float = 23.7  # L2 bytes per cycle and multiprocessor (5.5 TB/s in all)
    shared: int = 228 * 1024  # bytes per multiprocessor
    warps: int = 64  # per multiprocessor
    matrix: float = 6.5  # cycles of a quarter for a warp's 16 x 8 x 16 product


H100 = Gpu()
A100 = Gpu("A100", 108, 1.41e9, 1.4e12, 28.0, 164 * 1024, matrix=8.0)

# Cycles from an instruction to its result, for those that set a scoreboard.
LATENCY = {
    "LDS": 29, "LDSM": 33, "SHFL": 25, "MUFU": 20, "LDG": 300, "LDGSTS": 300, "STG": 300,
    "ATOMG": 600, "LDC": 40, "ULDC": 40, "S2R": 30, "S2UR": 30, "I2F": 20, "F2I": 20,
    "POPC": 20, "FLO": 20, "MEMBAR": 20, "FENCE": 30, "HMMA": 33,
}  # fmt: skip
BARRIER = 20  # cycles from the last warp's arrival
PRODUCT = 40  # cycles from the end of a warp group's product to the warps that wait for it
LEAST_PRODUCT = 24  # least cycles of a warp group's product
READ = 12  # cycles until operands are read
FLOATS = ("FFMA", "FMUL", "FADD", "HFMA2", "HADD2", "HMUL2")
SPECIAL = ("MUFU", "I2F", "F2I", "POPC", "FLO", "BREV", "F2F", "I2FP")
SHARED = ("LDS", "LDSM", "STS", "STSM")
GLOBAL = ("LDG", "STG", "LDGSTS", "ATOMG", "RED", "LDL", "STL")
NO_PIPE = ("BAR", "BRA", "EXIT", "BSSY", "BSYNC", "DEPBAR", "LDGDEPBAR", "WARPGROUP", "NOP",
           "MEMBAR", "FENCE", "LDC", "ULDC", "S2R", "S2UR", "WARPSYNC", "BREAK")  # fmt: skip
QUARTERS = 4


class Step(NamedTuple):
    """Timing of an instruction."""

    stall: int
    waits: tuple[int, ...]  # scoreboards
    sets: int | None
    holds: int | None
    pipe: str
    busy: float  # cycles of that pipe
    latency: float
    kind: str  # "", or the kind of a barrier, a product, a copy or a wait for these
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
    """Pipe of an instruction, and the cycles for which it is busy."""
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
    """Number of programs that a multiprocessor holds at once."""
    of_warp = -(-registers // 8) * 8 * WARP
    by_registers = 65536 // (of_warp * warps)
    return max(1, min(by_registers, gpu.warps // warps, gpu.shared // (shared + 1024), 32))


class Warp:
    """State of a warp: its position, its scoreboards, its pending products and copies."""

    def __init__(self, number: int, program: int, trace: list[int]) -> None:
        self.quarter, self.program, self.trace = number % QUARTERS, program, trace
        self.number, self.block, self.place = number, 0, 0
        self.scoreboards = [0.0] * 6
        self.product, self.products = 0.0, [0.0]  # end of the last one, and of each group
        self.copy, self.copies = 0.0, [0.0]

    def next(self, blocks: dict[int, list[Step]]) -> Step | None:
        """The next step to issue; None at the end."""
        while self.block < len(self.trace):
            block = blocks[self.trace[self.block]]
            if self.place < len(block):
                return block[self.place]
            self.block, self.place = self.block + 1, 0
        return None

    def ready(self, time: float, step: Step) -> float:
        return max([time, *(self.scoreboards[n] for n in step.waits)])


class Multiprocessor:
    """The programs resident on a multiprocessor, from start to end."""

    def __init__(self, execution: Execution, warps: int, gpu: Gpu = H100) -> None:
        self.steps = {
            address: [step_of(i, execution, gpu) for i in block]
            for address, block in execution.blocks.items()
        }
        self.warps = warps
        self.free: dict[tuple[str, int], float] = {}  # when a pipe is, by pipe and quarter
        self.arrived: dict[int, list[Warp]] = {}
        self.busy: dict[str, float] = defaultdict(float)  # share of the cycles, by pipe

    def cycles(self, traces: list[list[int]]) -> float:
        """Cycles of programs whose warps follow these traces."""
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
        """Earliest time at which a warp may issue a step."""
        free = self.free.get(("issue", warp.quarter), 0.0)
        if step.pipe and step.pipe not in ("shared", "global") and step.kind != "product":
            free = max(free, self.free.get((step.pipe, warp.quarter), 0.0))
        return max(time, free)

    def _issue(self, time: float, warp: Warp, step: Step) -> float:
        """Issue a step; return when its warp may issue the next one."""
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
        """Record pending products and copies; return until when the warp waits for them."""
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
        """Warps that continue after a step; at a barrier, all of them once the last has arrived."""
        if step.kind != "barrier":
            return [warp]
        arrived = self.arrived.setdefault(warp.program, [])
        arrived.append(warp)
        if len(arrived) < self.warps:
            return []
        del self.arrived[warp.program]
        return arrived
