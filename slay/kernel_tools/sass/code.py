"""Machine code as `cuobjdump -sass` prints it: instructions, and the basic blocks they form.

An instruction is two words of 64 bits; the second holds the assembler's scheduling: how many
cycles to stall after it, and which of six scoreboards it sets or waits for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

LINE = re.compile(
    r"^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<text>[^;]*?)\s*;?\s*/\* 0x[0-9a-f]{16} \*/\n"
    r"\s+/\* 0x(?P<control>[0-9a-f]{16}) \*/",
    re.MULTILINE,
)
OPERAND = re.compile(
    r"(?P<sign>[-~!]?)(?P<bar>\|?)(?P<name>c\[0x[0-9a-f]+\]\[[^\]]+\]|U?R\d+|U?RZ|U?P\d+|U?PT)"
    r"\|?(?P<suffix>(?:\.\w+)*)"
)
BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "32": 4, "64": 8, "128": 16}


@dataclass(frozen=True)
class Operand:
    """A register, predicate, constant or number; `name` is empty for a number."""

    text: str
    name: str = ""
    sign: str = ""  # "-", "~" or "!"
    absolute: bool = False
    number: int | None = None

    @property
    def predicate(self) -> bool:
        return self.name.lstrip("U").startswith("P")

    @property
    def register(self) -> bool:
        return self.name.lstrip("U").startswith("R")


@dataclass(frozen=True)
class Instruction:
    address: int
    guard: Operand | None  # the predicate it is executed under
    opcode: str  # with its modifiers, as in LDG.E.128
    operands: tuple[Operand, ...]
    stall: int  # cycles until the next may issue
    sets: int | None  # the scoreboard it holds until its result is there
    holds: int | None  # the scoreboard it holds until its operands were read
    waits: int  # bits of the scoreboards it waits for

    @cached_property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @cached_property
    def modifiers(self) -> tuple[str, ...]:
        return tuple(self.opcode.split(".")[1:])

    @cached_property
    def bytes(self) -> int:
        """Bytes per thread that a load or store moves."""
        if self.name in ("LDSM", "STSM"):
            return 4 * max((int(m) for m in self.modifiers if m in ("2", "4")), default=1)
        return next((BYTES[m] for m in self.modifiers if m in BYTES), 4)

    @cached_property
    def target(self) -> int:
        """Target address of a branch."""
        last = self.operands[-1].number
        if last is None:
            raise ValueError(f"no address of a branch in {self}")
        return last

    def __str__(self) -> str:
        guard = f"@{self.guard.text} " if self.guard else ""
        operands = ", ".join(o.text for o in self.operands)
        return f"{self.address:#06x} {guard}{self.opcode} {operands}".rstrip()


def instructions(text: str) -> list[Instruction]:
    """The instructions of the one function in `text`."""
    found = [_instruction(match) for match in LINE.finditer(text)]
    while found and (found[-1].name == "NOP" or _is_endless(found[-1])):  # after the last EXIT
        found.pop()
    return found


def blocks(code: Sequence[Instruction]) -> dict[int, list[Instruction]]:
    """Basic blocks by their first address."""
    starts = {code[0].address} if code else set()
    for instruction, after in zip(code, [*code[1:], None], strict=True):
        if instruction.name not in ("BRA", "CALL", "RET", "EXIT", "BRX", "JMP"):
            continue
        if instruction.name in ("BRA", "CALL", "JMP"):
            starts.add(instruction.target)
        if after is not None:
            starts.add(after.address)
    made: dict[int, list[Instruction]] = {}
    for instruction in code:
        if instruction.address in starts:
            block = made.setdefault(instruction.address, [])
        block.append(instruction)
    return made


def _is_endless(instruction: Instruction) -> bool:
    return instruction.name == "BRA" and instruction.target == instruction.address


def _instruction(match: re.Match[str]) -> Instruction:
    control = int(match["control"], 16) >> 41
    guard, opcode, rest = _split(match["text"])
    sets, holds = control >> 5 & 7, control >> 8 & 7
    return Instruction(
        int(match["address"], 16),
        guard,
        opcode,
        tuple(map(_operand, _parts(rest))),
        control & 15,
        None if sets == 7 else sets,
        None if holds == 7 else holds,
        control >> 11 & 63,
    )


def _split(text: str) -> tuple[Operand | None, str, str]:
    guard = None
    if text.startswith("@"):
        first, text = text[1:].split(None, 1)
        guard = _operand(first)
    opcode, _, rest = text.partition(" ")
    return guard, opcode, rest


def _parts(rest: str) -> Iterator[str]:
    return (part.strip() for part in rest.split(",") if part.strip())


def _operand(text: str) -> Operand:
    match = OPERAND.fullmatch(text)
    if match:
        return Operand(text, match["name"], match["sign"], bool(match["bar"]))
    try:
        return Operand(text, number=int(text, 16 if "0x" in text else 10))
    except ValueError:
        return Operand(text)
