"""The kernels as compiled for GPUs that need not be there: what the table in compiled.json holds.

Compiling them all takes a quarter of an hour of processor time, so that the result is kept:
`make compiled` writes it after an edit of the kernels, and tests read it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import triton

from slay.kernel_tools.survey import CALLS, SUBJECTS, TARGETS, Subject, objections, survey
from slay.ops.triton import assembler
from slay.ops.triton.verified import fingerprint

TABLE = Path(__file__).with_name("compiled.json")
AMPERE = ("yat-performer-anchor", "yat-quadratic", "yat-spherical")
WANTED = {
    "sm_90": SUBJECTS,
    "sm_80": [Subject(name, 32, "bfloat16", call) for name in AMPERE for call in CALLS],
}


def made_of() -> dict[str, str]:
    """The kernels' code and the compilers, by version."""
    found = assembler.find(divmod(TARGETS["sm_90"], 10))
    return {
        "kernels": fingerprint(),
        "triton": triton.__version__,
        "assembler": ".".join(map(str, found.version)),
    }


def compiled(target: str, subjects: Iterable[Subject]) -> list[dict[str, Any]]:
    """One row per kernel and configuration."""
    rows = []
    for subject, made in survey(subjects, target):
        wrong = objections(made, subject, target)
        rows.append({"target": target, **asdict(subject), **made.facts, "wrong": wrong})
        print(len(rows), target, subject, made.kernel, made.config, file=sys.stderr)
    return rows


def read() -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What the table was made of, and its rows."""
    table = json.loads(TABLE.read_text())
    return table["made of"], [
        dict(zip(table["columns"], row, strict=True)) for row in table["rows"]
    ]


def write() -> None:
    rows = [row for target, subjects in WANTED.items() for row in compiled(target, subjects)]
    lines = ",\n".join(json.dumps(list(row.values())) for row in rows)
    head = f'"made of": {json.dumps(made_of())},\n"columns": {json.dumps(list(rows[0]))}'
    TABLE.write_text(f'{{{head},\n"rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    write()
