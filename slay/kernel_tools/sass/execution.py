"""Simulation of the integer instructions in a kernel's machine code.

Addresses, loop counters and branch predicates follow from a launch's arguments, and are computed
exactly, for all threads of a sample of programs at once. The values of tensors, and what is
computed from them, are unknown; a branch that depends on one is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from slay.kernel_tools.sass.code import Instruction, Operand, blocks
from slay.kernel_tools.sass.memory import WARP, sectors
from slay.kernel_tools.sass.rules import RULES
from slay.kernel_tools.sass.values import (
    Array,
    Unknown,
    UnknownBranch,
    Value,
    after,
    either,
    merged,
    written,
)

LONGEST = 2_000_000  # most blocks that a simulation executes
LOOKS = 8  # most measurements of each memory instruction
FEW = 4  # programs whose use of a multiprocessor's cache is simulated
CACHED = FEW * 1024  # sectors of 32 bytes that this cache holds
DONE = 1 << 40
CONTROL = ("BRA", "EXIT", "CALL", "RET", "BRX", "BRXU", "JMP", "JMX", "JMXU", "KILL", "RTT")


class Programs(NamedTuple):
    """The simulated programs: their grid indices, and the threads of each."""

    indices: list[tuple[int, int, int]]
    threads: int  # of each

    @property
    def lanes(self) -> int:
        return len(self.indices) * self.threads


@dataclass
class Execution:
    """Execution counts of the instructions, averaged over programs."""

    blocks: dict[int, list[Instruction]]  # basic blocks by their first address
    warps: dict[int, float]  # warps of a program that execute each block
    traces: list[list[int]]  # blocks that the first warp of each program executes
    measured: dict[int, float]  # wavefronts or sectors of a warp's access to memory, by address
    distinct: dict[int, float]  # share of those sectors that are not in the cache yet

    def slots(self, trace: list[int]) -> int:
        """Instructions that the first warp of a program issues."""
        return sum(len(self.blocks[address]) for address in trace)


class Simulation:
    """Simulation of the threads of several programs; those at the lowest address run next."""

    def __init__(
        self, code: Sequence[Instruction], constants: dict[int, int], programs: Programs
    ) -> None:
        self.blocks = blocks(code)
        starts = sorted(self.blocks)
        self.following = dict(zip(starts, [*starts[1:], DONE], strict=True))
        self.constants, self.programs = constants, programs
        self.lane = np.arange(programs.lanes)
        self.thread = (self.lane % programs.threads).astype(np.uint32)
        self.index = np.repeat(np.array(programs.indices, np.uint32), programs.threads, axis=0)
        self.registers: dict[str, Value | None] = {}  # None: unknown
        self.local: dict[int, Value | None] = {}  # by offset from the stack's end
        self.active: Array | None = None  # None: all
        self.here = np.ones(programs.lanes, bool)  # threads that execute the current block
        self.pc = np.full(programs.lanes, starts[0])
        self.measured: dict[int, list[float]] = {}
        self.distinct: dict[int, list[float]] = {}
        self.touched = np.empty(0, np.uint64)  # sectors that are in the cache
        self.visits: Counter[int] = Counter()  # executions of guarded instructions
        self.skips: Counter[int] = Counter()  # those of them with no active thread

    @property
    def there(self) -> Array:
        """Mask of the active threads."""
        return np.ones(self.programs.lanes, bool) if self.active is None else self.active

    def run(self) -> Execution:
        """Run all programs to completion. Raises `UnknownBranch`."""
        number = len(self.programs.indices)
        counts = {start: np.zeros(number) for start in self.blocks}
        traces: list[list[int]] = [[] for _ in range(number)]
        for _ in range(LONGEST):
            address = int(self.pc.min())
            if address == DONE:
                mean = {start: float(count.mean()) for start, count in counts.items()}
                return Execution(self.blocks, mean, traces, self._looks(), _means(self.distinct))
            here = self.pc == address
            warps = here.reshape(number, -1, WARP).any(2)
            counts[address] += warps.sum(1)
            for trace, first in zip(traces, warps[:, 0], strict=True):
                if first:
                    trace.append(address)
            self._go_through(address, here)
        raise UnknownBranch(f"goes on after {LONGEST} blocks")

    def _looks(self) -> dict[int, float]:
        """Mean cost of each memory access per warp."""
        done = {a: 1 - self.skips[a] / visits for a, visits in self.visits.items()}
        never = {address: 0.0 for address, share in done.items() if not share}
        looks = _means(self.measured)
        return never | {address: cost * done.get(address, 1.0) for address, cost in looks.items()}

    def _go_through(self, address: int, here: Array) -> None:
        self.active, self.here = None if here.all() else here, here
        self.pc[here] = self.following[address]
        for instruction in self.blocks[address]:
            if instruction.name in CONTROL:
                self.branch(instruction)
            else:
                self.step(instruction)

    def step(self, i: Instruction) -> None:
        """Execute an instruction that is not a branch."""
        outer = self.active
        try:
            if i.guard is not None:
                guard = self.value(i.guard)
                if guard.unknown is not None:
                    raise Unknown
                there = guard.bits & self.there
                self.visits[i.address] += 1
                if not there.any():
                    self.skips[i.address] += 1
                    return
                self.active = None if there.all() else there
            RULES.get(i.name, Simulation.forget)(self, i)
        except Unknown:
            self.forget(i)
        finally:
            self.active = outer

    def branch(self, i: Instruction) -> None:
        """Execute a branch: set the next address of its threads."""
        if "DIV" in i.modifiers:  # taken by divergent warps only
            return
        if i.name not in ("BRA", "JMP", "EXIT"):
            raise UnknownBranch(f"goes where a simulation does not follow: {i}")
        taken = self.there.copy()
        for condition in (i.guard, *i.operands):
            if condition is not None and condition.predicate:
                taken &= self._decided(condition, taken, i)
        self.pc[taken] = DONE if i.name == "EXIT" else i.target

    def _decided(self, condition: Operand, threads: Array, i: Instruction) -> Array:
        """Evaluate a branch's condition; if it is unknown, avoid the path that has a CALL.

        Such paths handle exceptional numbers. Raises `UnknownBranch` if no path has a CALL.
        """
        try:
            bits, unknown = self.value(condition)
            if unknown is None or not (unknown & threads).any():
                return bits
        except Unknown:
            pass
        if i.name == "BRA":
            ways = self.blocks[i.target], self.blocks.get(self.following[self._block(i)], [])
            calls = [any(step.name == "CALL" for step in way) for way in ways]
            if any(calls):
                return np.full(self.programs.lanes, not calls[0])
        raise UnknownBranch(f"a branch depends on data: {i}")

    def _block(self, i: Instruction) -> int:
        return max(start for start in self.blocks if start <= i.address)

    # Operands

    def full(self, number: int) -> Array:
        return np.full(self.programs.lanes, number & 0xFFFFFFFF, np.uint32)

    def value(self, o: Operand) -> Value:
        """Value of an operand, with its sign applied. Raises `Unknown`."""
        if o.number is not None:
            return Value(self.full(o.number))
        bits, unknown = self.register(o.name)
        if o.absolute:
            bits = np.abs(bits.view(np.int32)).view(np.uint32)
        if o.sign == "-":
            bits = -bits
        elif o.sign:  # "~" of a number, "!" of a predicate
            bits = ~bits
        return Value(bits, unknown)

    def values(self, operands: Sequence[Operand]) -> tuple[list[Array], Array | None]:
        """Bits of several operands, and the threads for which any of them is unknown."""
        found = [self.value(o) for o in operands]
        return [v.bits for v in found], either(*(v.unknown for v in found))

    def register(self, name: str, offset: int = 0) -> Value:
        """A register or constant, or the one `offset` after it. Raises `Unknown`."""
        if name in ("RZ", "URZ"):
            return Value(self.full(0))
        if name in ("PT", "UPT"):
            return Value(np.ones(self.programs.lanes, bool))
        if name.startswith("c["):
            match = re.fullmatch(r"c\[0x0\]\[(0x[0-9a-f]+)\]", name)
            number = self.constants.get(int(match[1], 16) + 4 * offset) if match else None
            value = None if number is None else Value(self.full(number))
        else:
            name = after(name, offset) if offset else name
            value = self.registers[name] if name in self.registers else self.blank(name)
        if value is None:
            raise Unknown
        return value

    def blank(self, name: str) -> Value:
        """Initial value of a register: zero, because code may set its bits one by one."""
        predicate = name.lstrip("U").startswith("P")
        return Value(np.zeros(self.programs.lanes, bool) if predicate else self.full(0))

    def wide(self, o: Operand) -> Value:
        """64-bit value of a register pair."""
        if o.number is not None:
            return Value(np.full(self.programs.lanes, o.number, np.int64).view(np.uint64))
        low, high = self.register(o.name), self.register(o.name, 1)
        bits = low.bits.astype(np.uint64) | high.bits.astype(np.uint64) << np.uint64(32)
        return Value(-bits if o.sign == "-" else bits, either(low.unknown, high.unknown))

    def write(self, name: str, value: Value | None) -> None:
        """Set a register in the active threads; None marks it as unknown."""
        if name in ("RZ", "URZ", "PT", "UPT", ""):
            return
        if self.active is not None:
            value = merged(self.active, value, self.registers.get(name, self.blank(name)))
        self.registers[name] = value

    def write_wide(self, name: str, bits: Array, unknown: Array | None) -> None:
        self.write(name, Value(bits.astype(np.uint32), unknown))
        self.write(after(name, 1), Value((bits >> np.uint64(32)).astype(np.uint32), unknown))

    def forget(self, i: Instruction) -> None:
        """Mark everything that an instruction writes as unknown."""
        for name in written(i):
            self.write(name, None)

    # Memory

    def address(self, o: Operand) -> Array:
        """Addresses of an operand such as [R2.64+UR4+0x10]. Raises `Unknown`."""
        inside = o.text[o.text.rindex("[") + 1 : -1]
        total = np.zeros(self.programs.lanes, np.uint64)
        for part in inside.split("+"):
            if re.fullmatch(r"-?0x[0-9a-f]+", part):
                total = total + np.uint64(int(part, 16) & 0xFFFFFFFFFFFFFFFF)
                continue
            name, *suffixes = part.split(".")
            wide = "64" in suffixes or (name.startswith("UR") and ".64" in inside)
            bits, unknown = self.wide(Operand(part, name)) if wide else self.register(name)
            if unknown is not None and (unknown & self.there).any():
                raise Unknown
            scale = next((int(s[1:]) for s in suffixes if re.fullmatch(r"X\d+", s)), 1)
            total = total + bits.astype(np.uint64) * np.uint64(scale)
        return total

    def access(self, i: Instruction, where: Operand, measure: Callable[..., Array]) -> None:
        """Record the cost of a memory access per warp; a loop's first iterations stand for all."""
        if len(self.measured.get(i.address, ())) >= LOOKS:
            return
        address = self.address(where)
        rows = self.there.reshape(-1, WARP)
        some = rows.any(1)
        costs = measure(address.reshape(-1, WARP)[some], rows[some], i.bytes)
        passing = self.here.reshape(-1, WARP).any(1).sum()
        self.measured.setdefault(i.address, []).append(float(costs.sum() / passing))
        if measure is sectors:
            self._fetch(i, address)

    def _fetch(self, i: Instruction, address: Array) -> None:
        """Record the share of the requested sectors that are not in the cache."""
        lanes = FEW * self.programs.threads
        address, there = address[:lanes], self.there[:lanes]
        asked = sectors(address.reshape(-1, WARP), there.reshape(-1, WARP), i.bytes).sum()
        if not asked:
            return
        program = (self.lane[:lanes] // self.programs.threads).astype(np.uint64)[there]
        pieces = np.unique(address[there] // 32 | program << np.uint64(48))
        new = np.setdiff1d(pieces, self.touched, assume_unique=True)
        self.distinct.setdefault(i.address, []).append(len(new) / float(asked))
        if "BYPASS" not in i.modifiers:
            self.touched = np.concatenate((self.touched, new))[-CACHED:]


def _means(noted: dict[int, list[float]]) -> dict[int, float]:
    return {address: sum(n) / len(n) for address, n in noted.items() if n}
