"""The command for a borrowed GPU, tried on a CPU: its steps, their ends, what a bare image has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from click.testing import CliRunner

from slay.cli import main
from slay.gpu import driver
from slay.gpu.steps import ROOT, STEPS, Plan, Step
from slay.pipeline.config import read
from slay.pipeline.record import read_record, read_records

CONFIG = """
run: tiny
title: a tiny run
device: cpu
attention: [linear]
experiments:
  scaling:
    - {seq_len: [8, 16], embed_dim: 8, n_heads: 2}
"""
BARE = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = PathFinder.find_spec(name, path, target)
        place = f"{found and (found.origin, found.submodule_search_locations)}"
        absent = path is None and name not in ALLOWED and "site-packages" in place
        return None if absent else found

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
# What an image with PyTorch has.
WITH_TORCH = {
    "torch",
    "torchgen",
    "functorch",
    "triton",
    "numpy",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
}
WITH_TORCH |= {"markupsafe", "fsspec", "setuptools"}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path


def call(*args):
    return CliRunner().invoke(main, ["gpu", *map(str, args)])


def wheels():
    """Names in envs/gpu-wheels.txt."""
    lines = (ROOT / "envs/gpu-wheels.txt").read_text().splitlines()
    return {re.split("[><=]", line)[0] for line in lines if line and not line.startswith("#")}


def bare(folder):
    """An environment in which Python finds PyTorch's image, the wheels and this checkout alone."""
    brought = {
        module
        for module, owners in packages_distributions().items()
        if wheels() & {owner.lower().replace("_", "-") for owner in owners}
    }
    allowed = brought | WITH_TORCH
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(f"ALLOWED = {allowed}\n{BARE}")
    path = os.pathsep.join([str(folder / "site"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def test_all_steps_in_a_bare_image(tiny):
    command = [sys.executable, "-m", "slay.cli", "gpu", "--device", "cpu"]
    command += ["--configfile", "tiny.yaml", "--seconds", "300"]
    env = bare(tiny)
    missing = [sys.executable, "-c", "import snakemake"]
    assert b"No module" in subprocess.run(missing, env=env, capture_output=True).stderr
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tiny / "results/tiny"
    assert {p.stem for p in folder.glob("logs/*.log")} == {"tests", "bench", "measure"}
    assert "passed" in (folder / "logs/tests.log").read_text()
    assert any(r.params["mode"] == "training_step" for r in read_records(folder / "kernels.jsonl"))
    records = sorted(folder.glob("records/scaling/linear/*/L*.json"))
    assert [read_record(p).status for p in records] == ["ok", "ok"]
    again = subprocess.run(command, env=env, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stdout.count("was done before") == 3


def step(name, code, share=1.0):
    return Step(name, f"{name} it", share, lambda plan, seconds: [sys.executable, "-c", code])


def test_a_step_that_fails_or_hangs_stops_no_other(tiny, monkeypatch):
    monkeypatch.setattr(driver, "LATE", 0.5)
    monkeypatch.setattr(driver, "LEAST", 0.1)
    hang = "import os, time; print('here'); os.fork(); time.sleep(60)"
    steps = [
        step("bad", "raise SystemExit('broken')", 8.0),
        step("slow", hang, 0.1),
        step("good", "print('fine')"),
    ]
    plan, said = Plan(tiny, tiny / "tiny.yaml", "cpu", 12.0), []
    trouble = driver.Driver(plan, steps, said.append).run()
    assert set(trouble) == {"bad", "slow"}
    assert trouble["bad"].startswith("exit code 1, see ")
    assert trouble["slow"].startswith("ended after")
    assert {"broken", "here", "fine"} <= set(said)
    assert "here" in (tiny / "logs/slow.log").read_text()
    notes = json.loads((tiny / "steps.json").read_text())
    assert {name: note["status"] == 0 for name, note in notes.items()} == {
        "bad": False, "slow": False, "good": True,
    }  # fmt: skip
    said.clear()
    mended = [step("bad", "print('mended')"), step("slow", "pass"), steps[2]]
    assert driver.Driver(plan, mended, said.append).run() == {}
    assert "mended" in said
    assert "good: was done before" in said
    (tiny / "tiny.yaml").write_text(CONFIG + "epsilon: 0.01\n")
    said.clear()
    driver.Driver(plan, mended, said.append).run()
    assert "fine" in said  # of another configuration nothing was done


def test_what_there_is_no_time_for_is_named(tiny):
    plan = Plan(tiny, tiny / "tiny.yaml", "cpu", 1.0)
    found = driver.Driver(plan, [step("one", "pass"), step("two", "pass")], print).run()
    assert found == dict.fromkeys(("one", "two"), "not begun, the time is over")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--device", "cpu", "--steps", "verify"], "--steps verify: takes a GPU"),
        (["--steps", "bensh"], "did you mean 'bench'"),
        (["--steps", ","], "--steps: unknown step"),
        ([], "this machine has no CUDA GPU that PyTorch sees"),
        (["--device", "cpu", "--configfile", "broken.yaml"], "broken.yaml: is no YAML"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_writes_nothing(args, says, tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tiny / "broken.yaml").write_text("run: [")
    done = call(*args)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tiny / "results").exists()


def test_the_run_is_one_that_the_time_allows():
    _, config = read(ROOT / "config/borrowed.yaml")
    (jobs,) = config.grids().values()
    assert len(jobs) <= 45  # of about two seconds
    assert {params.dtype for params, _ in jobs} == {"bfloat16"}
    assert sum(step.share for step in STEPS) == pytest.approx(1)
