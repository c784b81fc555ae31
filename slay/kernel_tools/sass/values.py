"""Values of a simulation's registers in every thread, some of which are unknown."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slay.kernel_tools.sass.code import Instruction

Array = NDArray[Any]
SILENT = ("STG", "STS", "STSM", "STL", "LDGSTS", "RED", "BAR", "MEMBAR", "FENCE", "DEPBAR")
CARRYING = ("IADD3", "LEA", "IMAD")


class Unknown(Exception):
    """A value that depends on data."""


class UnknownBranch(Exception):
    """A branch whose direction depends on data, or code that the simulation does not follow."""


class Value(NamedTuple):
    """A register in every thread: 32 or 64 bits, or one bit for a predicate."""

    bits: Array
    unknown: Array | None = None  # threads whose value is unknown; None: no thread


def either(*unknown: Array | None) -> Array | None:
    """Mask of the threads for which any of these is unknown; None: no thread."""
    found = [mask for mask in unknown if mask is not None]
    return np.logical_or.reduce(found) if found else None


def merged(active: Array, new: Value | None, old: Value | None) -> Value | None:
    """The new value in active threads, the old one in others; None: unknown."""
    known = new or old
    if known is None:
        return None
    nothing = Value(known.bits, np.ones(len(active), bool))
    new, old = new or nothing, old or nothing
    bits = np.where(active, new.bits, old.bits)
    if new.unknown is None and old.unknown is None:
        return Value(bits)
    none = np.zeros(len(active), bool)
    masks = (none if v.unknown is None else v.unknown for v in (new, old))
    unknown = np.where(active, *masks)
    return Value(bits, unknown if unknown.any() else None)


def after(name: str, offset: int) -> str:
    """Name of the register `offset` after another."""
    if name in ("RZ", "URZ", "PT", "UPT"):
        return name
    match = re.fullmatch(r"(\D+)(\d+)", name)
    assert match is not None, name
    return f"{match[1]}{int(match[2]) + offset}"


def written(i: Instruction) -> list[str]:
    """The registers and predicates that an instruction writes."""
    rest = list(i.operands)
    if not rest or i.name in SILENT:
        return []
    names = []
    while rest and rest[0].predicate:
        names.append(rest.pop(0).name)
    if i.name.endswith(("SETP", "PLOP3")) or not rest or not rest[0].register:
        return names
    names += [after(rest[0].name, n) for n in range(width(i))]
    if i.name.removeprefix("U") in CARRYING:
        for o in rest[1:]:
            if not o.predicate:
                break
            names.append(o.name)
    return names


def width(i: Instruction) -> int:
    """Number of registers of a result."""
    if i.name.endswith("GMMA"):
        columns = int(i.modifiers[0].split("x")[1])
        return columns // (2 if i.modifiers[1] == "F32" else 4)
    if i.name.endswith("MMA"):
        return 4
    if i.name in ("LDG", "LDS", "LDSM", "LDL", "LDC", "ULDC", "LD", "ATOMG", "ATOMS"):
        return max(1, i.bytes // 4)
    wide = i.name[0] == "D" or "64" in i.modifiers or "WIDE" in i.modifiers
    wide |= i.name == "F2I" and any(m in ("U64", "S64") for m in i.modifiers)
    return 2 if wide or (i.name == "CS2R" and "32" not in i.modifiers) else 1
