"""Kernels compiled for GPUs that need not be there: what is spilled, and what multiplies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels need Triton")

import compiled

from slay.ops.triton import assembler
from slay.ops.triton.verified import config


def slay(*arguments):
    """A command, in a process that does not interpret kernels."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "slay.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def rows():
    """The kept table, if it is of these kernels and compilers."""
    made_of, rows = compiled.read()
    now = compiled.made_of()
    assert made_of["kernels"] == now["kernels"], "the kernels changed; run: make compiled"
    if made_of != now:
        pytest.skip(
            f"the table was made with {made_of}, here is {now}; make compiled makes it anew"
        )
    return rows


def test_every_configuration_for_hopper(rows):
    """Nothing spills, shared memory suffices, and matrix units multiply bf16.

    Each kernel has a configuration without WGMMA, which every assembler gets right.
    """
    rows = [row for row in rows if row["target"] == "sm_90"]
    assert not [row for row in rows if row["wrong"]]
    half = [row for row in rows if row["dtype"] == "bfloat16" and row["multiplies"]]
    assert {row["kernel"] for row in half} >= {
        "chunk_state", "chunk_output", "query_bwd", "key_bwd", "yat_fwd",
    }  # fmt: skip
    assert all(row["warpgroup"] + row["matrix"] > 0 for row in half)
    old = [row for row in rows if assembler.safe(config(row["config"]), (9, 0), (12, 8))]
    assert not any(row["warpgroup"] for row in old)
    kernels, safe = ({(r["attention"], r["dtype"], r["kernel"]) for r in x} for x in (rows, old))
    assert kernels == safe
    assert all(row["spilled"] == 0 and row["shared"] < 228 * 1024 for row in rows)


def test_ampere(rows):
    """The same kernels, with the matrix instructions that there are."""
    rows = [row for row in rows if row["target"] == "sm_80"]
    assert {row["attention"] for row in rows} == set(compiled.AMPERE)
    assert all(row["matrix"] > 0 for row in rows if row["multiplies"])
    assert all(row["shared"] < 164 * 1024 for row in rows)


def test_the_table_is_what_compilers_make(rows):
    """The kernels of one mechanism, compiled here by `slay kernels`."""
    own = {"target": "sm_90", "attention": "yat-spherical", "head_dim": 64, "dtype": "bfloat16"}
    done = slay("kernels", "yat-spherical", "--head-dim", "64", "--json")
    assert done.returncode == 0, done.stderr
    found = [{"target": "sm_90", **json.loads(line)} for line in done.stdout.splitlines()]
    kept = [row for row in rows if row.items() >= own.items()]
    assert {row["call"] for row in kept} == {"plain", "general"}
    assert sorted(found, key=str) == sorted(kept, key=str)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["standard"], "standard: has no Triton kernels"),
        (["linear", "--target", "sm_70"], "must be one of sm_80, sm_90"),
    ],
)
def test_what_has_no_kernels(arguments, says):
    done = slay("kernels", *arguments)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
