"""A machine with GPUs: all are used, one job each. Here their number is pretended."""

from __future__ import annotations

from collections import defaultdict

import pytest
from clone import clone
from conftest import Checkout

pytestmark = pytest.mark.workflow

SPY = """
import os, time

import torch

from slay.attention.linear import LinearAttention
from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense


class SpyMap(FeatureMap):
    def forward(self, u, position):
        time.sleep(0.02)
        with open(os.environ["SEEN"], "a") as file:
            said = os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("LOCAL_RANK", "-")
            print(os.getpid(), *said, torch.get_num_threads(), time.time(), file=file)
        return Dense(u.relu())


class Spy(LinearAttention):
    kernel, nonnegative, paper = "", True, ""

    def features(self):
        return SpyMap()
"""
CONFIG = """
run: gpus
title: jobs that say which device they have
device: cuda
plugins: {spy: mine:Spy}
attention: [spy]
experiments:
  quality:
    - {head_dim: 4, seq_len: 16, seed: [0, 1, 2, 3]}
  scaling:
    - {seq_len: [8, 16, 24, 32], embed_dim: 8, n_heads: 1}
"""
LANGUAGE = """
  language:
    - {processes: 2, n_layers: 1, n_heads: 1, embed_dim: 16, context_len: 32, batch_size: 4,
       steps: 2, eval_every: 2, eval_sequences: 4}
"""
RESULTS = ("results", "--configfile", "gpus.yaml")


@pytest.fixture
def checkout(tmp_path):
    clone(tmp_path)
    (tmp_path / "mine.py").write_text(SPY)
    (tmp_path / "gpus.yaml").write_text(CONFIG)
    return Checkout(tmp_path, {"SEEN": str(tmp_path / "seen")})


def pretend(checkout, devices):
    """Let jobs find so many GPUs, and compute on the CPU all the same."""
    result = "slay/experiments/result.py"
    checkout.edit(result, 'if name == "cuda" and not torch.cuda.is_available()', "if False")
    checkout.edit(result, "return torch.device(name)", 'return torch.device("cpu")')
    checkout.edit("slay/experiments/run.py", "codes[device.type]", 'codes["cuda"]')
    checkout.env.update(CUDA_VISIBLE_DEVICES=devices)


def test_every_gpu_is_used_by_one_job_at_a_time(checkout):
    pretend(checkout, "0,1,2")
    done = checkout.run("--cores", "6", *RESULTS)
    assert done.returncode == 0, done.stdout[-3000:]
    verified = checkout.path / "results/gpus/kernels.txt"  # first, here in vain
    assert "kernels were not all verified" in verified.read_text()
    assert all(verified.stat().st_mtime <= path.stat().st_mtime for path in checkout.records())
    jobs = defaultdict(list)
    for line in (checkout.path / "seen").read_text().splitlines():
        process, device, _, threads, now = line.split()
        jobs[process, device, threads].append(float(now))
    assert len(jobs) == 8
    assert {device for _, device, _ in jobs} == {"0", "1", "2"}
    assert sorted(int(threads) for _, _, threads in jobs) == [1] * 4 + [2] * 4  # timing: its share
    spans = [(device, min(times), max(times)) for (_, device, _), times in jobs.items()]
    together = [
        (one, other)
        for i, (one, begin, end) in enumerate(spans)
        for other, start, stop in spans[:i]
        if begin < stop and start < end
    ]
    assert together
    assert all(one != other for one, other in together)


@pytest.mark.deepspeed
def test_processes_of_deepspeed_share_the_gpus_of_their_job(checkout):
    head, _ = CONFIG.split("  quality:")
    text = head.replace("device: cuda", "device: auto") + LANGUAGE.lstrip("\n")
    (checkout.path / "gpus.yaml").write_text(text)
    pretend(checkout, "5,1,2")
    # A job claims devices, and the launcher finds them, as where torch sees GPUs.
    checkout.edit("slay/experiments/run.py", "not torch.cuda.device_count()", "False")
    checkout.edit("slay/experiments/language.py", 'if "DS_ACCELERATOR" in environment or ', "if ")
    checkout.env.update(LOCAL_SIZE="6", OMP_NUM_THREADS="1")
    done = checkout.run("--cores", "2", *RESULTS)
    assert done.returncode == 0, done.stdout[-3000:]
    seen = {tuple(line.split()[:3]) for line in (checkout.path / "seen").read_text().splitlines()}
    assert {rank for _, _, rank in seen} == {"0", "1"}
    assert {frozenset(devices.split(",")) for _, devices, _ in seen} == {frozenset("51")}


def test_no_gpu_is_said_once_before_anything_is_measured(checkout):
    checkout.env.update(CUDA_VISIBLE_DEVICES="")
    done = checkout.run("--cores", "2", *RESULTS)
    assert done.returncode != 0
    assert done.stdout.count("torch sees no GPU here") == 1
    assert "Traceback" not in done.stdout
    assert not checkout.records()
    assert not list(checkout.path.glob("results/gpus/logs/**/*.log"))
