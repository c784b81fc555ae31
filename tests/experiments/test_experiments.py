"""Every experiment on every mechanism at toy size; what quality's numbers mean; run_job."""

from __future__ import annotations

import json
import math
import platform
import re
import subprocess
import sys
import time
from typing import get_args

import pytest
import torch

import slay
from slay.benchmarks.timing import SHORT, interleaved, peak_memory
from slay.errors import SlayError
from slay.experiments.quality import draw_inputs
from slay.experiments.result import stream
from slay.experiments.run import run_job
from slay.features.elementwise import unit
from slay.pipeline.fingerprint import closure, left_out
from slay.pipeline.jobs import code
from slay.pipeline.params import PARAMS, QualityParams, TaskParams
from slay.pipeline.record import read_record
from slay.registry import EXPERIMENTS

TOY = {
    "quality": {"head_dim": 4, "seq_len": 9, "n_heads": 2},
    "scaling": {"seq_len": 9, "embed_dim": 8, "n_heads": 2, "repeats": 10},
    "ablation": {"head_dim": 4, "seq_len": 9, "n_heads": 2, "repeats": 10},
    "analysis": {"head_dim": 4, "seq_len": 9, "n_heads": 2},
    "language": {
        "context_len": 16,
        "embed_dim": 8,
        "n_heads": 2,
        "n_layers": 1,
        "steps": 2,
        "batch_size": 2,
        "eval_sequences": 2,
    },
    "max_context": {"embed_dim": 8, "n_heads": 2, "max_len": 256},
    "tasks": {
        "task": "copy",
        "seq_len": 8,
        "steps": 3,
        "batch_size": 4,
        "embed_dim": 8,
        "n_heads": 2,
        "n_layers": 1,
    },
}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own for what a job leaves while it runs."""
    monkeypatch.chdir(tmp_path)


def params(experiment, **changes):
    values = {"attention": "linear", "device": "cpu", **TOY[experiment], **changes}
    return PARAMS[experiment](**values)


def field(experiment, name):
    """The type of a parameter."""
    return PARAMS[experiment].model_fields[name].annotation


def measure(asked):
    return EXPERIMENTS.load(asked.experiment)(asked, lambda line: None)


@pytest.mark.parametrize("experiment", TOY)
@pytest.mark.parametrize("attention", slay.list_attention_types())
def test_metrics_are_finite(experiment, attention):
    result = measure(params(experiment, attention=attention))
    assert result.status == "ok"
    missing = {name for name, value in result.metrics.items() if value is None}
    assert missing <= {"num_features"}
    assert all(math.isfinite(v) for n, v in result.metrics.items() if n not in missing)


@pytest.mark.parametrize("attention", ["standard", "yat-performer-anchor"])
@pytest.mark.parametrize("experiment", ["quality", "tasks"])
def test_the_parameters_decide_the_metrics(experiment, attention):
    first, again, other = (
        measure(params(experiment, attention=attention, seed=seed)) for seed in (0, 0, 1)
    )
    assert json.dumps([first.metrics, first.curve]) == json.dumps([again.metrics, again.curve])
    assert first.metrics != other.metrics


def test_divergence_is_a_result():
    result = measure(params("tasks", lr=1e30, warmup=1, steps=20))
    assert result.status == "diverged"
    assert result.message
    assert result.metrics["accuracy"] is None


@pytest.mark.parametrize("inputs", ["isotropic", "planted"])
def test_the_target_has_no_error_against_itself(inputs):
    metrics = measure(
        QualityParams(attention="yat-spherical", inputs=inputs, seq_len=256, device="cpu")
    ).metrics
    assert metrics["rel_l2"] < 1e-4
    assert metrics["kernel_error"] < 1e-4
    assert metrics["cosine"] == pytest.approx(1.0, abs=1e-6)


def test_quality_tells_a_good_approximation_from_none():
    quadratic, uniform = (
        measure(QualityParams(attention=name, head_dim=32, seq_len=1024, device="cpu")).metrics
        for name in ("yat-quadratic", "uniform")
    )
    assert quadratic["rel_l2"] <= 0.30
    assert 0.70 <= uniform["rel_l2"] <= 0.88
    assert quadratic["kernel_error"] < uniform["kernel_error"]
    assert quadratic["num_features"] == 33 * 34 // 2


def test_planted_queries_are_near_a_key_they_can_see():
    q, k, _ = draw_inputs(params("quality", inputs="planted", head_dim=16, seq_len=40), print)
    off = (unit(q) @ unit(k).mT - 0.8).abs()
    future = torch.ones(40, 40).triu(1).bool()
    assert off.masked_fill(future, math.inf).min(-1).values.max() < 1e-5


def test_streams_of_different_names_and_seeds_are_unrelated():
    draws = {
        tuple(torch.rand(4, generator=stream(seed, name)).tolist())
        for seed in (0, 1)
        for name in ("train", "test")
    }
    assert len(draws) == 4


def test_peak_memory_counts_temporaries_and_nothing_from_before():
    size = 1 << 20
    before = torch.ones(size)

    def call():
        a = before + 1.0
        b = a + 1.0  # the peak: a and b
        del a
        return b[:1].clone()

    assert peak_memory(call, CPU) == pytest.approx(2 * 4 * size, rel=0.03)
    assert peak_memory(lambda: before + 1.0, CPU) == pytest.approx(4 * size, rel=0.03)


def in_turns(pause):
    """Which of two calls were made, in their order; each takes so long."""
    made = []
    calls = {name: lambda name=name: (made.append(name), time.sleep(pause)) for name in "ab"}
    times = interleaved(calls, CPU, rounds=3, warmup=1, warmup_seconds=0.0)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    return "".join(made)


def test_calls_take_turns():
    assert in_turns(1.01 * SHORT) == "ab" + "ab" + "ba" + "ab"


def test_a_short_call_comes_after_itself():
    assert re.fullmatch("ab" + "a{2,}b{2,}" + "b{2,}a{2,}" + "a{2,}b{2,}", in_turns(0.0))


FAULTS = """
import resource, torch
from slay.benchmarks import timing

calls = {"a": lambda: torch.ones(2**24)}  # 64 MiB
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
duration, timed = timing.seconds, []

def seconds(call, device):
    before = faults()
    found = duration(call, device)
    timed.append((found, faults() - before))
    return found

timing.seconds = seconds
times = timing.interleaved(calls, torch.device("cpu"), rounds=5)["a"]
print(max(dict(timed)[t] for t in times))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_timed_calls_find_the_memory_that_they_had_before():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert int(done.stdout) < 16, done.stderr  # pages; all of it are 16,384


def test_run_job_writes_the_record_it_returns(tmp_path):
    asked = params("quality")
    out = tmp_path / "record.json"
    fingerprint = code(asked, "cpu")
    record = run_job(asked, out, threads=1, planned=[fingerprint], progress=lambda line: None)
    assert read_record(out) == record
    assert record.params == asked.model_dump()
    assert record.provenance.code == fingerprint


def test_run_job_refuses_other_code_than_planned(tmp_path):
    asked = params("quality")
    with pytest.raises(SlayError, match=r"the code changed .* 0 or 1, now"):
        run_job(asked, tmp_path / "r.json", threads=1, planned=["0", "1"], progress=print)
    assert not list(tmp_path.iterdir())


def test_the_parts_of_a_task_that_do_not_fit_are_refused():
    with pytest.raises(SlayError, match="seq_len = 9"):
        measure(params("tasks", seq_len=9))


LOADED = """
import importlib, inspect, json, os, sys
from pathlib import Path
import pydantic, torch, torch._dynamo, torch.profiler  # once; each job is a fork of this
import slay.pipeline.fingerprint
from slay.errors import SlayError
from slay.experiments.run import run_job
from slay.pipeline.params import PARAMS
slay.pipeline.provenance.commit()
torch.set_num_threads(1)
KERNELS = slay.pipeline.fingerprint.KERNELS

def stop(*args, **kwargs):
    raise AssertionError("a job on a CPU uses the code of kernels")

def forbid_kernels():
    # A mechanism may import the name of a class from there. A job on a CPU may not use it.
    there = [name for name in sys.modules if name.startswith(KERNELS)]
    for name in there:
        for thing in vars(sys.modules[name]).values():
            if getattr(thing, "__module__", "") == name:
                if inspect.isclass(thing):
                    thing.__new__ = stop
                elif inspect.isfunction(thing):
                    thing.__code__ = stop.__code__
    return there

everything = json.load(sys.stdin)
for asked in everything:  # read the files once
    slay.pipeline.fingerprint.closure(asked.pop("modules"), kernels=False)
for asked in everything:
    child = os.fork()
    if not child:
        params = PARAMS[asked.pop("experiment")](**asked)
        for name in params.modules():
            importlib.import_module(name.partition(":")[0])
        forbidden = forbid_kernels()
        try:
            run_job(params, Path("r"), threads=1, planned=(), progress=lambda line: None)
        except SlayError as error:
            assert "accuracy" in str(error)  # of a model too small to be trained
        loaded = [m for m in sys.modules if m.split(".")[0] == "slay" and m not in forbidden]
        print(json.dumps(loaded), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
# What starts jobs, beside what fingerprints leave out: that names, plans and records them.
CARRIERS = {
    "slay.epsilon",  # its default is among the parameters, which the record holds
    "slay.experiments.guard",
    "slay.experiments.run",
    "slay.task_groups",
}
KINDS = get_args(field("analysis", "kind"))
VARIANTS = [
    *(
        params("analysis", attention="yat-performer-laplace", kind=kind)
        for kind in get_args(field("analysis", "kind"))
    ),
    *(params("quality", inputs=inputs, seq_len=8) for inputs in ("planted", "trained")),
    *(params("scaling", mode=mode) for mode in ("forward_backward", "decode")),
    params("max_context", mode="forward_backward"),
    params("language", short_conv=4, gradient_checkpointing=True, precision="bf16", dropout=0.1),
    params("tasks", sweep=3),
]


def test_a_job_uses_nothing_outside_its_fingerprint():
    jobs = [
        params(experiment, attention=name)
        for experiment in TOY
        for name in slay.list_attention_types()
    ]
    jobs += [
        TaskParams(**params("tasks").model_dump() | {"task": task, "seq_len": 16})
        for task in slay.list_tasks()
    ]
    jobs += VARIANTS
    asked = json.dumps(
        [
            {"experiment": job.experiment, "modules": job.modules(), **job.model_dump()}
            for job in jobs
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=asked, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    for job, line in zip(jobs, done.stdout.splitlines(), strict=True):
        reached = {*closure(job.modules(), kernels=False), *CARRIERS}
        assert {name for name in json.loads(line) if not left_out(name)} <= reached, job


def test_a_sweep_keeps_the_rate_that_validation_prefers():
    asked = {"steps": 30, "warmup": 5, "batch_size": 32}
    alone = measure(params("tasks", **asked))
    swept = measure(params("tasks", sweep=3, **asked))
    assert any(swept.metrics["lr"] == pytest.approx(lr) for lr in (1e-3, 3e-3, 9e-3))
    assert swept.curve[-1]["accuracy"] >= alone.curve[-1]["accuracy"]


def test_a_sweep_survives_the_rates_that_diverge():
    swept = measure(params("tasks", lr=1e14, sweep=61, steps=20, warmup=1))
    assert swept.status == "ok"
    assert swept.metrics["lr"] < 1e14
