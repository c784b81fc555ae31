"""GPUs are taken by one process each, whatever becomes of it. The devices here are names only."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from slay.errors import SlayError
from slay.pipeline.devices import VARIABLE, claimed, visible

CLAIM = """
import os, sys, time
from slay.pipeline.devices import claimed
with claimed(int(sys.argv[1])) as names:
    print(*names, time.time(), flush=True)
    time.sleep(float(sys.argv[2]))
    print(os.environ["CUDA_VISIBLE_DEVICES"], time.time(), flush=True)
"""


@pytest.fixture
def environment(tmp_path):
    """Three devices, and a place of their own for locks."""
    return {**os.environ, VARIABLE: "0,1,2", "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7"}


def start(environment, number=1, seconds=0.3):
    command = [sys.executable, "-c", CLAIM, str(number), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_processes_use_every_device_and_share_none(environment):
    processes = [start(environment, number) for number in (1, 2, 1, 1, 2, 3, 1, 1, 1)]
    held = []
    for process in processes:
        first, last = process.communicate(timeout=60)[0].splitlines()
        *names, begin = first.split()
        assert last.split()[0] == ",".join(names)  # only these can be seen
        held += [(name, float(begin), float(last.split()[1])) for name in names]
    assert {name for name, _, _ in held} == {"0", "1", "2"}
    for i, (name, begin, end) in enumerate(held):
        assert all(name != n or begin >= e or end <= b for n, b, e in held[:i])


def test_a_killed_process_gives_its_device_back(environment):
    environment[VARIABLE] = "5"
    first = start(environment, seconds=600)
    assert first.stdout.readline().split()[0] == "5"
    second = start(environment, seconds=0)
    time.sleep(1)
    assert second.poll() is None
    first.kill()
    assert second.communicate(timeout=60)[0].split()[0] == "5"
    first.wait()


@pytest.mark.parametrize(
    ("named", "names"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("2,-1,3", ["2"]), ("GPU-a1 , 7", ["GPU-a1", "7"])],
)
def test_the_environment_says_what_is_visible(monkeypatch, named, names):
    monkeypatch.setenv(VARIABLE, named)
    assert visible() == names


def test_the_driver_is_asked_where_the_environment_says_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    tool.chmod(0o755)
    assert visible() == ["0", "1"]


def test_more_devices_than_there_are_are_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0,1")
    with pytest.raises(SlayError, match="3 GPUs are asked for, 2 can be seen"), claimed(3):
        pass
    with claimed(0) as names:
        assert names == []
    assert os.environ[VARIABLE] == "0,1"
