"""Semantics of integer and predicate instructions, for all threads at once.

A rule with an unknown operand raises `Unknown`, and everything that it writes becomes unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from slay.kernel_tools.sass.code import Instruction, Operand
from slay.kernel_tools.sass.memory import WARP, matrix_wavefronts, sectors, wavefronts
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

if TYPE_CHECKING:
    from slay.kernel_tools.sass.execution import Simulation

Rule = Callable[["Simulation", Instruction], None]
RULES: dict[str, Rule] = {}
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
RELATIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    # with the relation by which upper halves decide; if they are equal, lower halves decide
    "LT": (np.less, np.less),
    "LE": (np.less_equal, np.less),
    "GT": (np.greater, np.greater),
    "GE": (np.greater_equal, np.greater),
    "EQ": (np.equal, lambda a, b: np.zeros_like(a, bool)),
    "NE": (np.not_equal, np.not_equal),
}
COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor,
}  # fmt: skip


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of instructions and of their variants on uniform registers."""

    def note(function: Rule) -> Rule:
        RULES.update(dict.fromkeys([*names, *(f"U{n}" for n in names)], function))
        return function

    return note


def of_words(*names: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Register a function of 32-bit words as a rule."""

    def note(function: Callable[..., Array]) -> Callable[..., Array]:
        def apply(s: Simulation, i: Instruction) -> None:
            operands = [o for o in i.operands[1:] if o.name or o.number is not None]
            bits, unknown = s.values(operands)
            result = function(i, *bits).astype(np.uint32, copy=False)
            s.write(i.operands[0].name, Value(result, unknown))

        rule(*names)(apply)
        return function

    return note


def outputs(i: Instruction) -> tuple[str, list[str], list[Operand]]:
    """Split operands into result, predicates written with it, and operands that are read."""
    first, *rest = i.operands
    carries = []
    while rest and rest[0].predicate:
        carries.append(rest.pop(0).name)
    return first.name, carries, rest


# Instructions on 32-bit words


@of_words("MOV", "R2UR")
def _mov(i: Instruction, a: Array, *rest: Array) -> Array:
    return a


@of_words("IABS")
def _iabs(i: Instruction, a: Array) -> Array:
    return np.abs(a.view(np.int32)).view(np.uint32)


@of_words("VIADD")
def _viadd(i: Instruction, a: Array, b: Array) -> Array:
    return a + b


@of_words("SEL")
def _sel(i: Instruction, a: Array, b: Array, p: Array) -> Array:
    return np.where(p, a, b)


@of_words("VIMNMX", "IMNMX")
def _vimnmx(i: Instruction, a: Array, b: Array, p: Array) -> Array:
    """Minimum where the predicate holds, else maximum."""
    if "U32" not in i.modifiers:
        a, b = a.view(np.int32), b.view(np.int32)
    return np.where(p, np.minimum(a, b), np.maximum(a, b)).view(np.uint32)


@of_words("VIADDMNMX")
def _viaddmnmx(i: Instruction, a: Array, b: Array, c: Array, p: Array) -> Array:
    return _vimnmx(i, a + b, c, p)


@of_words("SGXT")
def _sgxt(i: Instruction, a: Array, b: Array) -> Array:
    """The lowest b bits, sign-extended unless U32."""
    left = np.minimum(np.uint32(32) - np.minimum(b, 32), 31).astype(np.uint32)
    shifted = a << left
    if "U32" in i.modifiers:
        return np.where(b == 0, 0, shifted >> left)
    return (shifted.view(np.int32) >> left.view(np.int32)).view(np.uint32)


@of_words("POPC")
def _popc(i: Instruction, a: Array) -> Array:
    return np.bitwise_count(a)


@of_words("FLO")
def _flo(i: Instruction, a: Array) -> Array:
    """Position of the leading bit."""
    if "U32" not in i.modifiers:
        a = np.where(a.view(np.int32) < 0, ~a, a)
    place = np.floor(np.log2(np.maximum(a, 1).astype(np.float64))).astype(np.uint32)
    if "SH" in i.modifiers:
        place = np.uint32(31) - place
    return np.where(a == 0, np.uint32(0xFFFFFFFF), place)


@of_words("PRMT")
def _prmt(i: Instruction, a: Array, selector: Array, b: Array) -> Array:
    """Select four of the eight bytes of a and b."""
    both = a.astype(np.uint64) | b.astype(np.uint64) << HALF
    result = np.zeros_like(a)
    for n in range(4):
        nibble = (selector >> np.uint32(4 * n) & np.uint32(15)).astype(np.uint64)
        byte = (both >> np.uint64(8) * (nibble & np.uint64(7))).astype(np.uint32) & np.uint32(255)
        spread = np.where(byte > 127, np.uint32(255), np.uint32(0))
        result |= np.where(nibble > 7, spread, byte) << np.uint32(8 * n)
    return result


@of_words("SHF")
def _shf(i: Instruction, a: Array, shift: Array, c: Array) -> Array:
    """One half of the shifted 64-bit value (c, a)."""
    kind = next(m for m in i.modifiers if m in ("U32", "S32", "U64", "S64"))
    most = 63 if kind.endswith("64") else 32
    if "W" in i.modifiers:
        shift = shift & np.uint32(63 if most == 63 else 31)
    shift = np.minimum(shift, most).astype(np.uint64)
    both = a.astype(np.uint64) | c.astype(np.uint64) << HALF
    if i.modifiers[0] == "L":
        both = both << shift
    elif kind.startswith("S"):
        both = (both.view(np.int64) >> shift.view(np.int64)).view(np.uint64)
    else:
        both = both >> shift
    return both >> HALF if "HI" in i.modifiers else both & LOW


# Sums and products, with carries


@rule("IADD3")
def _iadd3(s: Simulation, i: Instruction) -> None:
    result, carries, rest = outputs(i)
    if "64" in i.modifiers:
        terms = [s.wide(o) for o in rest[:3]]
        total = terms[0].bits + terms[1].bits + terms[2].bits
        s.write_wide(result, total, either(*(t.unknown for t in terms)))
        return
    if "X" not in i.modifiers:
        rest = rest[:3]
    bits, unknown = s.values(rest)
    total = np.zeros(s.programs.lanes, np.uint64)
    for o, term in zip(rest, bits, strict=True):
        term = term.astype(np.uint64)
        if o.sign == "-" and o.name:  # the hardware adds ~a + 1, which carries if a = 0
            term = np.where(term == 0, np.uint64(1 << 32), term)
        total = total + term
    s.write(result, Value(total.astype(np.uint32), unknown))
    for n, name in enumerate(carries):
        s.write(name, Value(total >> HALF > n, unknown))


@rule("LEA")
def _lea(s: Simulation, i: Instruction) -> None:
    """(a << shift) + b, or the upper half of ((c, a) << shift), plus b."""
    result, carries, rest = outputs(i)
    high, extended = "HI" in i.modifiers, "SX32" in i.modifiers
    place = 3 if high and not extended else 2
    shift = rest[place].number
    if shift is None:
        raise Unknown
    read = rest[:place] + (rest[place + 1 : place + 2] if "X" in i.modifiers else [])
    bits, unknown = s.values(read)
    both = bits[0].astype(np.uint64)
    if extended:
        both = bits[0].view(np.int32).astype(np.int64).view(np.uint64)
    elif high:
        both = both | bits[2].astype(np.uint64) << HALF
    both = both << np.uint64(shift)
    total = (both >> HALF if high else both & LOW) + bits[1]
    if "X" in i.modifiers:
        total = total + bits[-1]
    s.write(result, Value(total.astype(np.uint32), unknown))
    for name in carries[:1]:
        s.write(name, Value(total >> HALF > 0, unknown))


@rule("IMAD")
def _imad(s: Simulation, i: Instruction) -> None:
    """a b + c: its lower 32 bits, its upper 32 bits (HI), or all 64 bits with a 64-bit c (WIDE)."""
    result, carries, rest = outputs(i)
    (a, b), unknown = s.values(rest[:2])
    carried = s.value(rest[3]) if "X" in i.modifiers else Value(np.zeros(s.programs.lanes, bool))
    if "WIDE" not in i.modifiers and "HI" not in i.modifiers:
        c = s.value(rest[2])
        total = a * b + c.bits + carried.bits.astype(np.uint32)
        s.write(result, Value(total, either(unknown, c.unknown, carried.unknown)))
        for name in carries:
            s.write(name, None)
        return
    c = s.wide(rest[2])
    unknown = either(unknown, c.unknown, carried.unknown)
    if "U32" in i.modifiers:
        product = a.astype(np.uint64) * b
    else:
        product = (a.view(np.int32).astype(np.int64) * b.view(np.int32)).view(np.uint64)
    total = product + c.bits + carried.bits
    if "HI" in i.modifiers:
        s.write(result, Value((total >> HALF).astype(np.uint32), unknown))
    else:
        s.write_wide(result, total, unknown)
    for name in carries:
        s.write(name, Value(total < product, unknown))


# Bits and predicates


@rule("LOP3")
def _lop3(s: Simulation, i: Instruction) -> None:
    """Any bitwise function of three words, by its truth table; a predicate tests for nonzero."""
    rest = list(i.operands)
    predicate = rest.pop(0).name if rest[0].predicate else ""
    result, *rest = rest
    table = rest[3].number
    if table is None:
        raise Unknown
    (a, b, c), unknown = s.values(rest[:3])
    bits = np.zeros_like(a)
    for n in range(8):
        if table >> n & 1:
            bits |= (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
    s.write(result.name, Value(bits, unknown))
    s.write(predicate, Value(bits != 0, unknown))


@rule("PLOP3")
def _plop3(s: Simulation, i: Instruction) -> None:
    first, second, *rest = i.operands
    (a, b, c), unknown = s.values(rest[:3])
    place = a * 4 + b * 2 + c * 1
    for o, table in zip((first, second), rest[3:], strict=False):
        s.write(o.name, Value((table.number or 0) >> place & 1 != 0, unknown))


@rule("ISETP")
def _isetp(s: Simulation, i: Instruction) -> None:
    first, second, *rest = i.operands
    bits, unknown = s.values(rest)
    a, b, other = bits[:3]
    if "U32" not in i.modifiers:
        a, b = a.view(np.int32), b.view(np.int32)
    relation, strict = RELATIONS[i.modifiers[0]]
    held = relation(a, b)
    if "EX" in i.modifiers:  # compares upper halves, given the result for lower ones
        held = strict(a, b) | ((a == b) & bits[3])
    combine = COMBINE[next(m for m in i.modifiers if m in COMBINE)]
    s.write(first.name, Value(combine(held, other), unknown))
    s.write(second.name, Value(combine(~held, other), unknown))


@rule("P2R")
def _p2r(s: Simulation, i: Instruction) -> None:
    """Pack predicates into bits of a word."""
    result, _, kept, mask = i.operands
    bits, unknown = s.value(kept)
    for n in range(7):
        if (mask.number or 0) >> n & 1:
            predicate, place = s.register(f"P{n}"), n + _byte(i.opcode)
            bit = predicate.bits.astype(np.uint32) << np.uint32(place)
            bits = bits & ~np.uint32(1 << place) | bit
            unknown = either(unknown, predicate.unknown)
    s.write(result.name, Value(bits, unknown))


@rule("R2P")
def _r2p(s: Simulation, i: Instruction) -> None:
    """Unpack bits of a word into predicates."""
    _, source, mask = i.operands
    bits, unknown = s.register(source.name)
    for n in range(7):
        if (mask.number or 0) >> n & 1:
            bit = bits >> np.uint32(n + _byte(source.text)) & np.uint32(1)
            s.write(f"P{n}", Value(bit != 0, unknown))


def _byte(text: str) -> int:
    """First bit of a byte that is selected as in R5.B1."""
    match = re.search(r"\.B([0-3])\b", text)
    return 8 * int(match[1]) if match else 0


# Sources of values


@rule("S2R", "S2UR", "CS2R", "CS2UR")
def _special(s: Simulation, i: Instruction) -> None:
    x, y, z = s.index.T
    zero = s.full(0)
    numbers: dict[str, Array] = {
        "SRZ": zero, "SR_TID.X": s.thread, "SR_TID.Y": zero, "SR_TID.Z": zero,
        "SR_CTAID.X": x, "SR_CTAID.Y": y, "SR_CTAID.Z": z,
        "SR_LANEID": s.thread % np.uint32(WARP), "SR_CgaCtaId": zero,
    }  # fmt: skip
    bits = numbers.get(i.operands[1].text)
    for name in written(i):
        s.write(name, None if bits is None else Value(bits))


@rule("LDC")
def _ldc(s: Simulation, i: Instruction) -> None:
    result, source = i.operands
    words = [s.register(source.name, n) for n in range(i.bytes // 4)]
    for n, word in enumerate(words):
        s.write(after(result.name, n), word)


@rule("HFMA2")
def _hfma2(s: Simulation, i: Instruction) -> None:
    """A constant word as two half floats, added to -0: one way to set a register."""
    result, a, b, *halves = i.operands
    if a.name != "RZ" or b.name != "RZ" or len(halves) != 2:
        raise Unknown
    try:
        high, low = (np.float16(float(o.text)).view(np.uint16) for o in halves)
    except ValueError as error:  # registers, or not numbers
        raise Unknown from error
    s.write(result.name, Value(s.full(int(high) << 16 | int(low))))


# Integer division: by a float reciprocal, then corrected


@rule("I2F")
def _i2f(s: Simulation, i: Instruction) -> None:
    result, source = i.operands
    bits, unknown = s.wide(source) if "U64" in i.modifiers else s.value(source)
    if not any(m in ("U32", "U64") for m in i.modifiers):
        bits = bits.view(np.int32)
    number = bits.astype(np.float64)
    near = number.astype(np.float32)
    if "RP" in i.modifiers:  # rounded up
        near = np.where(near < number, np.nextafter(near, np.float32(np.inf)), near)
    s.write(result.name, Value(near.view(np.uint32), unknown))


@rule("MUFU")
def _mufu(s: Simulation, i: Instruction) -> None:
    if i.modifiers[0] != "RCP":
        raise Unknown
    bits, unknown = s.value(i.operands[1])
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / bits.view(np.float32)
    s.write(i.operands[0].name, Value(inverse.view(np.uint32), unknown))


@rule("F2I")
def _f2i(s: Simulation, i: Instruction) -> None:
    result, source = i.operands
    wide = "U64" in i.modifiers
    if "TRUNC" not in i.modifiers or not ("U32" in i.modifiers or wide):
        raise Unknown
    bits, unknown = s.value(source)
    number = np.nan_to_num(bits.view(np.float32).astype(np.float64))
    whole = np.clip(np.trunc(number), 0, 2.0**63 if wide else 2.0**32 - 1).astype(np.uint64)
    if wide:
        s.write_wide(result.name, whole, unknown)
    else:
        s.write(result.name, Value(whole.astype(np.uint32), unknown))


# Between threads


@rule("SHFL")
def _shfl(s: Simulation, i: Instruction) -> None:
    there, result, source, lane, _ = i.operands
    if i.modifiers[0] not in ("IDX", "BFLY"):
        raise Unknown
    bits, unknown = s.value(source)
    other = s.value(lane)
    own = s.lane % WARP
    index = own ^ other.bits if i.modifiers[0] == "BFLY" else other.bits
    where = s.lane - own + index % WARP
    unknown = either(None if unknown is None else unknown[where], other.unknown)
    s.write(result.name, Value(bits[where], unknown))
    s.write(there.name, Value(np.ones(s.programs.lanes, bool)))


@rule("VOTE", "VOTEU")
def _vote(s: Simulation, i: Instruction) -> None:
    *results, source = i.operands
    bits, unknown = s.value(source)
    if unknown is not None:
        raise Unknown
    there = s.there.reshape(-1, WARP)
    yes = bits.reshape(-1, WARP) & there
    held = yes.any(1) if "ANY" in i.modifiers else (yes | ~there).all(1)
    ballot = (yes.astype(np.uint64) << np.arange(WARP, dtype=np.uint64)).sum(1).astype(np.uint32)
    for o in results:
        s.write(o.name, Value(np.repeat(held if o.predicate else ballot, WARP)))


@rule("ELECT")
def _elect(s: Simulation, i: Instruction) -> None:
    """Elect one thread of each warp."""
    rows = s.there.reshape(-1, WARP)
    s.forget(i)
    s.write(i.operands[0].name, Value((rows & (rows.cumsum(1) == 1)).reshape(-1)))


@rule("SYNCS")
def _syncs(s: Simulation, i: Instruction) -> None:
    """A barrier in shared memory, which is always passed here."""
    if i.operands and i.operands[0].predicate:
        s.write(i.operands[0].name, Value(np.ones(s.programs.lanes, bool)))


# Memory, whose contents are unknown except for spilled registers


@rule("STL")
def _stl(s: Simulation, i: Instruction) -> None:
    where, source = i.operands
    for n in range(i.bytes // 4):
        place = _offset(where) + 4 * n
        try:
            value: Value | None = s.register(source.name, n)
        except Unknown:
            value = None
        old = s.local.get(place, Value(s.full(0)))
        s.local[place] = value if s.active is None else merged(s.active, value, old)


@rule("LDL")
def _ldl(s: Simulation, i: Instruction) -> None:
    result, where = i.operands
    for n in range(i.bytes // 4):
        s.write(after(result.name, n), s.local.get(_offset(where) + 4 * n, Value(s.full(0))))


def _offset(where: Operand) -> int:
    """Stack offset of a spilled register, as in [R1+0x2c]."""
    match = re.fullmatch(r"\[R1(?:\+(0x[0-9a-f]+))?\]", where.text)
    if match is None:
        raise UnknownBranch(f"local memory that holds no spilled register: {where.text}")
    return int(match[1] or "0", 16)


@rule("LDS", "STS", "LDSM", "STSM")
def _shared(s: Simulation, i: Instruction) -> None:
    where = next(o for o in i.operands if o.text.startswith("["))
    s.access(i, where, matrix_wavefronts if i.name.endswith("SM") else wavefronts)
    s.forget(i)


@rule("LDG", "STG", "LDGSTS")
def _global(s: Simulation, i: Instruction) -> None:
    operands = i.operands[1:] if i.name == "LDGSTS" else i.operands
    s.access(i, next(o for o in operands if "[" in o.text), sectors)
    s.forget(i)
