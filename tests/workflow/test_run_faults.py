"""Killed, full, interfered with, edited in the middle: nothing is lost and nothing is mixed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import BIN, SMOKE

pytestmark = [pytest.mark.workflow, pytest.mark.tex]

PAPER = ("--cores", "2", "paper", "--configfile", SMOKE)
MEASURED = r"(?:quality|analysis|tasks) .*"


def finished(log: str) -> list[str]:
    """Measurements that a run's log says it has finished."""
    names = dict(re.findall(rf"^Job (\d+): ({MEASURED})$", log, flags=re.MULTILINE))
    numbers = re.findall(r"^Finished jobid: (\d+) ", log, flags=re.MULTILINE)
    return [names[number] for number in numbers if number in names]


def until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for a minute")


def shown(results):
    """Tables, figures and the paper: its PDF, and its text without the minutes of measuring."""
    files = [*results.glob("tables/*.tex"), *results.glob("figures/*.p*")]
    found = {path.relative_to(results): path.read_bytes() for path in files}
    text = (results / "paper/main.tex").read_text()
    pdf = (results / "paper/slay.pdf").read_bytes()
    return found, re.sub(r"\(24, [^)]* of measuring\)", "", text), text, pdf


def test_twenty_kills_and_one_resume(checkout, tmp_path):
    results = checkout.path / "results/smoke"
    before = shown(results)
    for name in ("quality", "analysis", "tasks"):  # other records hold times
        shutil.rmtree(results / "records" / name)
    for name in ("data", "figures", "manifests", "paper", "tables"):
        shutil.rmtree(results / name)
    chance = random.Random(0)
    log, done = tmp_path / "log", []
    for _ in range(20):
        process = checkout.start(log, *PAPER)
        time.sleep(chance.uniform(0.2, 4))
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        done += finished(log.read_text())
    resumed = checkout.run(*PAPER)
    assert resumed.returncode == 0, resumed.stdout[-3000:]
    done += finished(resumed.stdout)
    assert set(Counter(done).values()) == {1}
    assert len(done) == 16
    after = shown(results)
    assert after[:2] == before[:2]
    if after[2] == before[2]:  # measuring took as many minutes again
        assert after[3] == before[3]
    assert checkout.planned() == set()


RESULTS = ("results", "--configfile", SMOKE)


def test_two_runs_at_once(checkout, tmp_path):
    for record in (checkout.path / "results/smoke/records/tasks/linear").rglob("*.json"):
        record.unlink()
    first = checkout.start(tmp_path / "log", "--cores", "1", *RESULTS)
    until(lambda: list((checkout.path / ".snakemake/locks").glob("*.lock")))
    second = checkout.run("--cores", "1", *RESULTS)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "Traceback" not in second.stdout
    first.join(300)
    assert first.exitcode == 0, (tmp_path / "log").read_text()[-3000:]
    assert "Nothing to be done" in checkout.run("-n", *RESULTS).stdout


def test_an_edit_during_a_run_mixes_nothing(checkout, tmp_path):
    records = [path for path in checkout.records() if "majority" in str(path)]
    code = {path: json.loads(path.read_text())["provenance"]["code"] for path in records}
    for path in records:
        path.unlink()
    shutil.rmtree(checkout.path / "results/smoke/logs/tasks")
    process = checkout.start(tmp_path / "log", "--cores", "1", *RESULTS)
    until(lambda: [p for p in checkout.path.rglob("logs/tasks/**/*.log") if p.stat().st_size])
    checkout.edit("slay/tasks/pattern.py", "CLASSES = 8", "CLASSES = 7")
    process.join(300)
    assert process.exitcode not in (0, None)
    assert "the code changed since this job was planned" in (tmp_path / "log").read_text()
    made = [path for path in records if path.exists()]
    assert made
    assert all(json.loads(p.read_text())["provenance"]["code"] == code[p] for p in made)
    assert checkout.measured() == {
        f"tasks {name}/majority-L8/seed{seed}" for name in ("standard", "linear") for seed in (0, 1)
    }


PART = "only={experiment: [quality, analysis, tasks, language]}"
FULL_DISK = """
mount -t tmpfs -o size=64k none results || exit 99
"$0" --cores 2 results --configfile "$1" --config "$3" && exit 98
find results -name '*.json' -exec "$2" -m json.tool {} /dev/null \\; >> broken 2>&1
find results -name '*.json' > kept
mount -o remount,size=64m results
"$0" --cores 2 results --configfile "$1" --config "$3"
"""


def test_a_full_disk_and_then_room(checkout, tmp_path):
    """In a mount namespace, whose disk for results has no room, and then has."""
    shutil.rmtree(checkout.path / "results")
    (checkout.path / "results").mkdir()
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        FULL_DISK,
        BIN / "snakemake",
        SMOKE,
        sys.executable,
        PART,
    ]
    done = subprocess.run(command, cwd=checkout.path, capture_output=True, text=True)
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"this machine does not let us mount a small disk: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "No space left on the disk of results\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout.path / "broken").read_text()
    assert 0 < len((checkout.path / "kept").read_text().split()) < 18
    names = finished(done.stderr)
    assert len(names) == len(set(names)) == 16  # none was measured again
