"""Which assembler our kernels are made with, and what an old one is not given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slay.errors import SlayError

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.ops.triton import assembler
from slay.ops.triton.configs import Config

SCRIPT = Path(__file__).with_name("small_kernels.py")


def compiled(folder, *who):
    """What `small_kernels.py` prints, in a process that does not interpret."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(folder)
    command = [sys.executable, str(SCRIPT), *who]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def tool(path, says):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package with a newer assembler, which may not be run where it lies."""
    path = tool(tmp_path / "nvidia/cu13/bin/ptxas", "Cuda compilation tools, V13.9.1")
    path.chmod(0o644)
    monkeypatch.setattr(assembler, "_in_packages", lambda: path)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(assembler, "driver_cuda", lambda: None)
    assembler._find.cache_clear()
    yield path
    assembler._find.cache_clear()


def test_registers_of_a_running_product(tmp_path):
    """Of real kernels: a product of a product by warp groups, by warps, and one of loaded tiles."""
    chained, by_warps, single = compiled(tmp_path)
    assert chained["registers"]
    assert not by_warps["wgmma"]
    assert single["wgmma"]
    assert not single["registers"]
    assert "fewer than 4 warps" in chained["objection"]
    assert "\n" not in chained["objection"]
    assert single["objection"] is by_warps["objection"] is None


@pytest.mark.skipif(assembler.packaged() is None, reason="needs nvidia-cuda-nvcc")
def test_code_is_kept_for_the_assembler_that_made_it(tmp_path):
    """Whoever compiles first, and in whichever process: our kernels by ours, others by theirs."""
    first = compiled(tmp_path, "ours", "theirs", "launched")
    second = compiled(tmp_path, "theirs", "launched", "ours", "theirs")
    ours, theirs, launched = first
    assert second == [theirs, launched, ours, theirs]
    assert ours["ptx"] == launched["ptx"] != theirs["ptx"]
    assert ours["hash"] != theirs["hash"]


def test_a_newer_one_of_the_package_comes_first(packaged, tmp_path):
    found = assembler.find()
    assert found.version == (13, 9, 1)
    assert Path(found.path).parent == tmp_path / "cache"  # a copy that may be run
    assert str(found) == "ptxas 13.9.1 (nvidia-cuda-nvcc)"


def test_an_older_one_of_the_package_does_not(packaged):
    tool(packaged, "Cuda compilation tools, V11.0.1")
    assert assembler.find().origin == "Triton's"


def test_what_a_user_has_set_wins(packaged, tmp_path, monkeypatch):
    monkeypatch.setenv(assembler.VARIABLE, str(tool(tmp_path / "mine", "tools, V12.9.7")))
    assert assembler.find() == ((12, 9, 7), str(tmp_path / "mine"), assembler.VARIABLE)


def test_a_driver_of_an_older_generation(packaged, monkeypatch):
    """It loads no code of CUDA 13."""
    monkeypatch.setattr(assembler, "driver_cuda", lambda: (12, 8))
    assert assembler.find().origin == "Triton's"


def test_a_folder_that_takes_no_copy(packaged, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file/cache"))
    assert assembler.find().origin == "Triton's"


@pytest.mark.parametrize("says", [None, "something else"])
def test_what_is_no_assembler(packaged, tmp_path, monkeypatch, says):
    path = tmp_path / "other"
    if says:
        tool(path, says)
    monkeypatch.setenv(assembler.VARIABLE, str(path))
    with pytest.raises(SlayError, match=rf"^{assembler.VARIABLE}={path}: .*pip install.*$"):
        assembler.find()


def test_safe_configurations():
    wide, narrow = Config(4, 2), Config(2, 2)
    assert not assembler.safe(wide, (9, 0), (12, 8, 93))
    assert not assembler.safe(wide, (9, 0), (13, 2))
    assert assembler.safe(narrow, (9, 0), (12, 8, 93))
    assert assembler.safe(wide, (9, 0), (13, 3))
    assert assembler.safe(wide, (8, 0), (12, 8, 93))
    assert "fewer than 4 warps" in assembler.remark((9, 0), (12, 8, 93))
    assert assembler.remark((9, 0), (13, 5)) is assembler.remark((8, 6), (12, 8)) is None
