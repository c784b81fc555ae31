"""One clear line, an exit code that is not zero, nothing lost."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("yat-quadratic]", "yat-quadratc]", ["'yat-quadratc'", "did you mean 'yat-quadratic'"]),
        ("[copy, majority]", "[copi, majority]", ["'copi'", "did you mean 'copy'", "kv_recall"]),
        ("steps: 20", "stepz: 20", ["'stepz'", "did you mean 'steps'", "experiments.tasks[0]"]),
        ("steps: 20", "steps: many", ["steps", "'many'", "integer"]),
        ("device: cpu", "devise: cpu", ["'devise'", "did you mean 'device'"]),
        ("device: cpu", "device: tpu", ["device", "'tpu'", "'cuda'"]),
        ("  quality:", "  qualty:", ["'qualty'", "did you mean 'quality'"]),
        ("epsilon: 1.0e-3", "epsilon: -1", ["epsilon", "-1", "greater than 0"]),
        ("run: smoke", "run: ../smoke", ["run", "'../smoke'"]),
    ],
)
def test_configuration(checkout, old, new, says):
    checkout.edit("config/smoke.yaml", old, new)
    done = checkout.run("-n", "paper", "--configfile", "config/smoke.yaml")
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("config: ")]
    assert len(lines) == 1, done.stdout
    assert all(word in lines[0] for word in says), lines[0]
    assert "Traceback" not in done.stdout


def test_record_with_a_number_that_is_none(checkout):
    record = next(path for path in checkout.records() if "quality" in str(path))
    record.write_text(record.read_text().replace('"seed": ', '"seed": 1.5e999, "x": ', 1))
    others = {path: path.read_bytes() for path in checkout.records()}
    done = checkout.run("--cores", "2", "paper", "--configfile", "config/smoke.yaml")
    assert done.returncode != 0
    name = str(record.relative_to(checkout.path))
    assert any(line.startswith(f"Error: {name}") for line in done.stdout.splitlines())
    assert "Traceback" not in done.stdout
    assert {path: path.read_bytes() for path in checkout.records()} == others


@pytest.mark.tex
def test_no_latex(checkout, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for tool in folder.glob("*") if folder.is_dir() else []:
            if "latex" not in tool.name and not os.path.lexists(tools / tool.name):
                (tools / tool.name).symlink_to(tool)
    checkout.env["PATH"] = str(tools)
    (checkout.path / "results/smoke/paper/slay.pdf").unlink()
    done = checkout.run("--cores", "2", "paper", "--configfile", "config/smoke.yaml")
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if "LaTeX is not installed" in line]
    assert lines
    assert "make tex" in lines[0]
    assert "Traceback" not in done.stdout
    assert len(checkout.records()) == 24


def test_failing_jobs_are_told_last_and_the_others_finish(checkout):
    options = "seed: [0, 1]\n      options: {bias: 1, bas: 2}"
    checkout.edit("config/smoke.yaml", "seed: [0, 1]", options)
    shutil.rmtree(checkout.path / "results/smoke/records/quality")
    others = [path for path in checkout.records() if "scaling" in path.parts]
    others[0].unlink()
    done = checkout.run("--cores", "2", "results", "--configfile", "config/smoke.yaml")
    assert done.returncode != 0
    assert others[0].exists()
    assert re.search(r"^1 of \d+ steps .* left", done.stdout, flags=re.MULTILINE)
    last = done.stdout.partition("6 steps failed:")[2]
    assert "run_quality: quality linear/bas=2+bias=1/isotropic-d16-L128/seed" in last
    assert "slay run quality --attention linear --option bas=2 --option bias=1" in last
    assert last.count("did you mean 'bias'") == 3  # once a mechanism
    assert "1 more ended alike" in last
    assert "Traceback" not in done.stdout


def test_a_mistake_in_the_code_is_shown_with_its_place(checkout):
    checkout.edit(
        "slay/features/elu.py",
        "def forward(",
        "def forward(*_):\n        1 / 0\n    def old(",
    )
    done = checkout.run("--cores", "2", "results", "--configfile", "config/smoke.yaml")
    assert done.returncode != 0
    last = done.stdout.partition("steps failed:")[2]
    assert re.findall(r"^(run_\w+): \w+ (\S+?)/", last, flags=re.MULTILINE) == [
        ("run_language", "linear")
    ]
    assert "slay/features/elu.py" in last
    assert "ZeroDivisionError: division by zero" in last
    assert "quality linear/isotropic-d16-L128/seed" in last.partition("more ended alike")[2]
