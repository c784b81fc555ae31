"""Kernels compiled for GPUs that need not be there: what is spilled, and what multiplies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels need Triton")


def compiled(*arguments):
    """The lines of `slay kernels`, in a process that does not interpret."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "slay.cli", "kernels", "--json", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    return rows, done


def test_every_configuration_for_hopper():
    """Shared memory suffices, and bf16 is multiplied by the matrix units; nothing else is wrong."""
    rows, done = compiled("linear", "--target", "sm_90")
    wrong = {w for row in rows for w in row["wrong"] if "spills" not in w}
    assert not wrong, done.stderr
    assert {row["kernel"] for row in rows if row["multiplies"]} >= {
        "chunk_state", "chunk_output", "query_bwd", "key_bwd",
    }  # fmt: skip
    assert all(row["shared"] < 228 * 1024 for row in rows)
    assert (done.returncode == 0) == (not any(row["wrong"] for row in rows))


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
