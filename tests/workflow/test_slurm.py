"""The workflow on a real Slurm: from `snakemake --profile slurm paper` to the PDF."""

from __future__ import annotations

import subprocess
import time
from collections import Counter

import cluster
import pytest
from clone import clone
from conftest import BIN, SMOKE, Checkout

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.tex,
    pytest.mark.slurm,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "there is all"),
]

DEVICES = """
rule all:
    input: expand("device{i}", i=range(4))

rule device:
    output: "device{i}"
    resources: gpu=1, mem_mb=100, runtime=1
    shell: "echo $CUDA_VISIBLE_DEVICES $(date +%s.%N) > {output}; sleep 5; date +%s.%N >> {output}"
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A cluster that runs, and a fresh clone on it."""
    folder = tmp_path_factory.mktemp("slurm")
    checkout = Checkout(folder / "project")
    checkout.path.mkdir()
    clone(checkout.path)
    with cluster.cluster(folder / "cluster"):
        yield checkout


def test_a_cancelled_job_is_submitted_again_and_the_paper_is_built(slurm):
    command = [BIN / "snakemake", "--profile", "slurm", "paper", "--configfile", SMOKE]
    log = slurm.path / "snakemake.out"
    with log.open("w") as out, subprocess.Popen(
        command, cwd=slurm.path, stdout=out, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        running: dict[str, str] = {}
        while process.poll() is None and not running:
            running = cluster.jobs("RUNNING")
            time.sleep(0.05)
        number, cancelled = next(iter(running.items()))
        subprocess.run(["scancel", number], check=True)
        assert process.wait(timeout=600) == 0, log.read_text()[-5000:]
    assert (slurm.path / "results/smoke/paper/slay.pdf").read_bytes().startswith(b"%PDF")
    assert number in cluster.jobs("CANCELLED")
    done = Counter(cluster.jobs("COMPLETED").values())
    assert done[cancelled] == 1
    assert slurm.planned() == set()
    assert sum(done.values()) <= len(slurm.records()) / 2  # many small jobs went in one submission


def test_jobs_at_the_same_time_get_different_gpus(slurm):
    (slurm.path / "devices.smk").write_text(DEVICES)
    done = slurm.run("--profile", "slurm", "--snakefile", "devices.smk")
    assert done.returncode == 0, done.stdout[-3000:]
    seen = []
    for i in range(4):
        device, begin, end = (slurm.path / f"device{i}").read_text().split()
        seen.append((device, float(begin), float(end)))
    assert {device for device, _, _ in seen} == {"0", "1"}
    for i, (device, begin, end) in enumerate(seen):
        for other, start, stop in seen[:i]:
            assert device != other or begin >= stop or start >= end
