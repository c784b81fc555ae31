"""The steps of `slay gpu`: each is a command that resumes where it was stopped."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]  # of the checkout
TESTS = ROOT / "tests" / "gpu"
SLAY = [sys.executable, "-m", "slay.cli"]
WORKERS = 8  # parallel test processes on a GPU
TOY = "--dtype float32 --n-heads 1 --head-dim 4 --rounds 10 --attention linear --lengths 8 "
TOY += "--backward-lengths= --contexts= --batches 1x8 --n-layers 1 --vocab-size 32"

SHORT = "--rounds 12 --lengths 1024,2048,4096,8192,16384,32768,131072"  # of the benchmark


@dataclass(frozen=True)
class Plan:
    """Settings of one run of `slay gpu`."""

    folder: Path  # results/<run>
    configfile: Path
    device: str  # cuda, or cpu to try the command itself
    seconds: float


class Step(NamedTuple):
    """A step; `share` is its weight in the division of the time."""

    name: str
    about: str
    share: float
    argv: Callable[[Plan, float], list[str]]  # given a time limit in seconds
    toy: bool = True  # True if a CPU can run it too, at toy sizes


def _verify(plan: Plan, seconds: float) -> list[str]:
    return [*SLAY, "kernels", "verify", "--seconds", f"{seconds:.0f}"]


def _tests(plan: Plan, seconds: float) -> list[str]:
    command = [sys.executable, "-m", "pytest", str(TESTS), "-v", "-p", "no:cacheprovider"]
    command += [f"--rootdir={ROOT}", f"--junitxml={plan.folder / 'tests.xml'}"]
    if plan.device == "cpu":
        return [*command, "-m", "not gpu", "-k", "uniform"]
    side_by_side = importlib.util.find_spec("xdist") is not None
    return [*command, "-m", "gpu", *(["-n", str(WORKERS)] if side_by_side else [])]


def _bench(plan: Plan, seconds: float) -> list[str]:
    out = str(plan.folder / "kernels.jsonl")
    command = [*SLAY, "bench", "kernels", "--device", plan.device, "--out", out, "--resume"]
    command += ["--seconds", f"{seconds:.0f}"]
    return [*command, *(TOY if plan.device == "cpu" else SHORT).split()]


def _measure(plan: Plan, seconds: float) -> list[str]:
    command = [*SLAY, "measure", "--configfile", str(plan.configfile)]
    command += ["--seconds", f"{seconds:.0f}"]
    return [*command, *(["--threads", "1"] if plan.device == "cpu" else [])]


STEPS = (
    Step("verify", "which configurations of the kernels are right and fast", 0.22, _verify, False),
    Step("tests", "the tests that are marked gpu", 0.12, _tests),
    Step("bench", "the kernels, their competitors and training steps", 0.44, _bench),
    Step("measure", "the paper's timings", 0.22, _measure),
)


def environment(plan: Plan) -> dict[str, str]:
    """Environment of the steps: this checkout, compiled kernels, the device's file in `folder`."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    interpret = "0" if plan.device == "cuda" else "1"  # Triton's, for the tests
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "TRITON_INTERPRET": interpret,
        "SLAY_CACHE": os.environ.get("SLAY_CACHE", str(plan.folder.absolute())),
    }
