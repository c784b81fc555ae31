"""The scripts of examples/ run, and show what they are there to show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clone import ROOT
from documents import run
from matplotlib import image

SETTINGS = {
    "train_on_a_task.py": "--task copy --seq-len 8 --steps 150 --attention uniform standard",
    "swap_attention.py": "--steps 1",
    "plot_kernel.py": "uniform yat-quadratic --out kernel.png",
}


@pytest.fixture(scope="module", params=SETTINGS)
def example(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    command = f"python {ROOT}/examples/{request.param} {SETTINGS[request.param]}"
    return request.param, run(["bash", "-c", command], folder, ROOT), folder


def test_every_example_is_run_here():
    assert {path.name for path in Path(ROOT, "examples").glob("*.py")} == set(SETTINGS)


def test_it_shows_what_it_says(example):
    name, said, folder = example
    numbers = {line.split()[0]: re.findall(r"\d+\.\d+", line) for line in said.splitlines()}
    if name == "plot_kernel.py":
        assert image.imread(folder / "kernel.png").std() > 0.05
    elif name == "swap_attention.py":
        assert numbers["sdpa"] == numbers["slay:standard"] != numbers["slay:yat-quadratic"]
    else:
        assert float(numbers["standard"][0]) > 0.5 > float(numbers["uniform"][0])
