"""Kernels compiled for GPUs that need not be there: what is spilled, and what multiplies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.ops.triton import assembler
from slay.ops.triton.verified import config


def compiled(*arguments):
    """The lines of `slay kernels`, in a process that does not interpret."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "slay.cli", "kernels", "--json", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    return rows, done


def test_every_configuration_for_hopper():
    """Nothing spills, shared memory suffices, and matrix units multiply bf16.

    Each kernel has a configuration without WGMMA, which every assembler gets right.
    """
    rows, done = compiled("--target", "sm_90")
    wrong = [row for row in rows if row["wrong"]]
    assert not wrong
    assert done.returncode == 0, done.stderr
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


def test_ampere():
    """The same kernels, with the matrix instructions that there are."""
    rows, _ = compiled(
        "yat-performer-anchor", "yat-quadratic", "yat-spherical", "--target", "sm_80"
    )
    assert all(row["matrix"] > 0 for row in rows if row["multiplies"])
    assert all(row["shared"] < 164 * 1024 for row in rows)


def test_what_has_no_kernels():
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    for arguments, says in (
        (["standard"], "standard: has no Triton kernels"),
        (["linear", "--target", "sm_70"], "must be one of sm_80, sm_90"),
    ):
        command = [sys.executable, "-m", "slay.cli", "kernels", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode != 0
        assert says in done.stderr
        assert "Traceback" not in done.stderr
