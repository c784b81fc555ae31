"""A built smoke run to copy and edit, and the commands that the tests give."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from clone import clone
from filelock import FileLock
from forked import snakemake, start

from slay.pipeline.params import PARAMS

BIN = Path(sys.executable).parent
SMOKE = "config/smoke.yaml"


def measuring(jobs: set[str]) -> set[str]:
    """Those of some jobs that measure."""
    return {job for job in jobs if job.startswith(tuple(f"{name} " for name in PARAMS))}


@dataclass
class Checkout:
    """A copy of the project, with its own results and its own Snakemake memory."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; standard error is part of the output."""
        return snakemake(args, self.path, self.environment)

    def start(self, log: Path, *args: str) -> BaseProcess:
        """Start Snakemake in a session of its own; what it prints goes to a file."""
        return start(args, self.path, self.environment, log)

    @property
    def environment(self) -> dict[str, str]:
        """That of this process, and `env`. Jobs keep the modules that they compile."""
        return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **self.env}

    def planned(self, *args: str) -> set[str]:
        """What would run: the message of each job, such as "tasks linear/copy-L8/seed0"."""
        done = self.run("-n", "paper", "--configfile", SMOKE, *args)
        assert done.returncode == 0, done.stdout
        return set(re.findall(r"^Job \d+: (.*)$", done.stdout, flags=re.MULTILINE))

    def measured(self, *args: str) -> set[str]:
        """Those of the planned jobs that measure."""
        return measuring(self.planned(*args))

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.path / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def records(self) -> list[Path]:
        return sorted(self.path.glob("results/smoke/records/**/*.json"))


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Checkout:
    """The smoke run, from nothing to the PDF, once for all workers. Tests must not change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    checkout = Checkout(folder / "built")
    with FileLock(folder / "built.lock"):
        if not (checkout.path / "results/smoke/report.html").exists():
            clone(checkout.path)
            done = checkout.run("--cores", "2", "all", "--configfile", SMOKE)
            assert done.returncode == 0, done.stdout[-5000:]
    return checkout


@pytest.fixture
def checkout(built, tmp_path) -> Checkout:
    """A copy of the built run, times of files included, to edit."""
    shutil.copytree(built.path, tmp_path / "project", symlinks=True)
    return Checkout(tmp_path / "project")
