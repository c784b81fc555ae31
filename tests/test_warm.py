"""Jobs in forks of one process: the same records, the same errors, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import slay.pipeline.warm
from slay.pipeline.warm import VARIABLE

SLAY = [str(Path(sys.executable).parent / "slay"), "run", "quality"]
JOB = ["--attention", "linear", "--seq-len", "8", "--head-dim", "4", "--device", "cpu"]


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited for half a minute")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A server, and the environment of its clients."""
    path = tmp_path_factory.mktemp("warm") / "measure"
    server = subprocess.Popen(
        [sys.executable, slay.pipeline.warm.__file__, path], stdin=subprocess.PIPE
    )
    until(path.exists)
    yield server, {**os.environ, VARIABLE: str(path.parent)}
    server.stdin.close()
    assert server.wait(10) == 0
    assert not path.exists()


def run(arguments, **kwargs):
    return subprocess.run([*SLAY, *arguments], capture_output=True, text=True, **kwargs)


def test_a_forked_job_writes_the_record_of_any_other(warm, tmp_path):
    environments = {"forked": warm[1], "alone": os.environ}
    done = {
        name: run([*JOB, "--out", f"{name}.json"], cwd=tmp_path, env=env)
        for name, env in environments.items()
    }
    forked, alone = (json.loads((tmp_path / f"{name}.json").read_text()) for name in done)
    assert forked["metrics"] == alone["metrics"]
    assert forked["provenance"]["code"] == alone["provenance"]["code"]
    assert done["forked"].stderr == done["alone"].stderr
    assert done["forked"].stdout == done["alone"].stdout.replace("alone", "forked")


@pytest.mark.parametrize("wrong", [["--attention", "linaer"], ["--seq-len", "x"], ["--no-such"]])
def test_a_mistake_gives_the_same_line_and_status(warm, tmp_path, wrong):
    forked, alone = (
        run([*JOB, *wrong, "--out", "r.json"], cwd=tmp_path, env=env) for env in (warm[1], None)
    )
    assert forked.returncode == alone.returncode != 0
    assert forked.stderr == alone.stderr


def test_without_a_server_the_job_runs_by_itself(tmp_path):
    env = {**os.environ, VARIABLE: str(tmp_path / "nobody")}
    assert run([*JOB, "--out", tmp_path / "r.json"], env=env).returncode == 0


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def hears_interrupts():
    """Even where the tests run in the background, whose children ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_job_dies_with_its_client(warm, tmp_path, how):
    server, env = warm
    out = tmp_path / "r.json"
    client = subprocess.Popen(
        [*SLAY, "--attention", "linear", "--seq-len", "100000", "--device", "cpu", "--out", out],
        env=env, stderr=subprocess.DEVNULL, preexec_fn=hears_interrupts,
    )  # fmt: skip
    until(lambda: children(server.pid))
    (child,) = children(server.pid)
    client.send_signal(how)
    assert client.wait(10) != 0
    until(lambda: not alive(child))
    assert not out.exists()


def test_a_job_that_dies_is_an_error_of_its_client(warm, tmp_path):
    server, env = warm
    client = subprocess.Popen(
        [*SLAY, *JOB[:2], "--seq-len", "100000", "--device", "cpu", "--out", tmp_path / "r.json"],
        env=env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: children(server.pid))
    os.kill(children(server.pid)[0], signal.SIGKILL)
    assert "died" in client.communicate(timeout=10)[1]
    assert client.returncode == 1


def test_a_server_that_comes_too_late_says_nothing(tmp_path):
    late = [sys.executable, slay.pipeline.warm.__file__, tmp_path / "gone" / "measure"]
    done = subprocess.run(late, stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
