"""Timing: what a call starts from, and what happens where memory or time runs out."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

import slay
from slay.benchmarks import scaling
from slay.benchmarks.calls import Inputs, decoding
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.result import heads_only
from slay.pipeline.params import ScalingParams

SMALL = {"seq_len": 12, "embed_dim": 8, "n_heads": 2, "repeats": 10, "device": "cpu"}


def measured(attention="linear", **asked):
    return scaling.run(ScalingParams(attention=attention, **SMALL, **asked), lambda line: None)


@pytest.mark.parametrize("attention", slay.list_attention_types())
def test_decoding_gives_the_token_after_the_context_every_time(attention):
    mechanism = heads_only(attention, 4, 2, {}, {})
    q, k, v = torch.randn(3, 1, 2, 12, 4, generator=torch.Generator().manual_seed(0))
    call = decoding(mechanism, Inputs(q, k, v, v))
    again = [torch.cat((t, t[:, :, -1:]), dim=2) for t in (q, k, v)]
    expected = mechanism.attend(*again)[:, :, -1:]
    for _ in range(3):
        y, state = call()
        assert state.length.tolist() == [13]
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["forward", "forward_backward", "decode"])
def test_every_mode_measures_mechanism_and_baseline(mode):
    result = measured(mode=mode)
    assert result.status == "ok"
    assert result.metrics["latency_ms_q1"] <= result.metrics["latency_ms"]
    assert result.metrics["ratio"] > 0
    assert ("floor_ms" in result.metrics) == (mode != "decode")


OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"),
]


def failing(monkeypatch, name, error):
    """Every call of a mechanism raises."""
    cls = slay.get_attention_class(name)

    def attend(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(cls, "attend", attend)


@pytest.mark.parametrize("error", OUT)
def test_a_mechanism_out_of_memory_is_a_result(monkeypatch, error):
    failing(monkeypatch, "linear", error)
    result = measured()
    assert result.status == "oom"
    assert result.message.startswith("linear: ")
    assert "\n" not in result.message


@pytest.mark.parametrize("error", OUT)
def test_a_baseline_out_of_memory_leaves_the_mechanism_its_numbers(monkeypatch, error):
    failing(monkeypatch, "standard", error)
    result = measured()
    assert result.status == "ok"
    assert result.metrics["latency_ms"] > 0
    assert "ratio" not in result.metrics


def test_other_errors_are_errors():
    with pytest.raises(RuntimeError, match="shape"), memory_guard():
        raise RuntimeError("shape mismatch")
    with pytest.raises(OutOfMemory), memory_guard():
        raise OUT[2]


def test_too_slow_is_a_result():
    result = measured(max_seconds=1e-9)
    assert result.status == "timeout"
    assert "max_seconds = 1e-09" in result.message


def test_heads_that_do_not_divide_are_refused_before_the_job():
    with pytest.raises(ValidationError, match="does not divide"):
        ScalingParams(attention="linear", **{**SMALL, "n_heads": 3})
