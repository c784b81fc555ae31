"""Killed, full, interfered with, edited in the middle: nothing is lost and nothing is mixed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest
from conftest import BIN, SMOKE

pytestmark = [pytest.mark.workflow, pytest.mark.tex, pytest.mark.xdist_group("faults")]

PAPER = ("--cores", "2", "paper", "--configfile", SMOKE)
MEASURED = r"(?:quality|analysis|tasks) .*"


def finished(log: str) -> list[str]:
    """Measurements that a run's log says it has finished."""
    names = dict(re.findall(rf"^Job (\d+): ({MEASURED})$", log, flags=re.MULTILINE))
    numbers = re.findall(r"^Finished jobid: (\d+) ", log, flags=re.MULTILINE)
    return [names[number] for number in numbers if number in names]


def start(checkout, log, *args):
    """Begin a run in a process group of its own."""
    return subprocess.Popen(
        [BIN / "snakemake", *args], cwd=checkout.path, env={**os.environ, **checkout.env},
        stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def test_twenty_kills_and_one_resume(checkout, tmp_path):
    results = checkout.path / "results/smoke"
    before = (results / "paper/slay.pdf").read_bytes()
    for name in ("quality", "analysis", "tasks"):  # other records hold times
        shutil.rmtree(results / "records" / name)
    for name in ("data", "figures", "manifests", "paper", "tables"):
        shutil.rmtree(results / name)
    chance = random.Random(0)
    log, done = tmp_path / "log", []
    for _ in range(20):
        process = start(checkout, log, *PAPER)
        time.sleep(chance.uniform(0.5, 6))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done += finished(log.read_text())
    resumed = checkout.run(*PAPER)
    assert resumed.returncode == 0, resumed.stdout[-3000:]
    done += finished(resumed.stdout)
    assert set(Counter(done).values()) == {1}
    assert len(done) == 16
    assert (results / "paper/slay.pdf").read_bytes() == before
    assert checkout.planned() == set()
