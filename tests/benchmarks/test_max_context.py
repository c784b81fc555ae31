"""The search for the longest context, and what is held at a length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slay.benchmarks import max_context
from slay.benchmarks.max_context import RESOLUTION, STEP, held, search
from slay.experiments.result import heads_only
from slay.pipeline.params import MaxContextParams

SMALL = {"embed_dim": 8, "n_heads": 2, "max_len": 1024, "device": "cpu"}


@given(
    longest=st.integers(0, 3000),
    max_len=st.integers(1, 2000).map(lambda n: n * STEP),
)
def test_search_finds_what_fits_and_tries_nothing_twice(longest, max_len):
    tried = []

    def fits(length):
        tried.append(length)
        return length <= longest * STEP

    found, capped = search(fits, max_len, lambda: False)
    assert len(tried) == len(set(tried))
    assert max(tried) <= max_len
    assert all(length % STEP == 0 for length in tried)
    assert found <= longest * STEP
    assert capped == (longest * STEP >= max_len)
    if not capped:
        assert longest * STEP - found <= max(STEP, found // RESOLUTION)


def test_a_search_out_of_time_says_so():
    assert search(lambda length: True, 1 << 20, lambda: True) == (256, True)


def test_what_is_held_are_inputs_temporaries_and_result():
    params = MaxContextParams(attention="uniform", **SMALL)
    mechanism = heads_only("uniform", 4, 2, {}, {})
    own = 3 * 4 * 4096 * 8  # q, k, v of 4096 tokens, 8 floats each
    found = held(mechanism, params, 4096, torch.device("cpu"))
    assert own + own // 3 <= found <= 3 * own  # the result too
    assert 1.5 * found < held(mechanism, params, 8192, torch.device("cpu")) < 2.1 * found


def test_more_memory_than_there_is_does_not_fit(monkeypatch):
    def peak(call, device):
        raise MemoryError

    monkeypatch.setattr(max_context, "peak_memory", peak)
    result = max_context.run(MaxContextParams(attention="linear", **SMALL), lambda line: None)
    assert result.status == "ok"
    assert result.metrics["longest"] == 0


@pytest.mark.parametrize("attention", ["standard", "linear", "yat-quadratic"])
def test_a_real_search_ends_below_its_budget(attention):
    asked = MaxContextParams(attention=attention, memory_mb=1, **{**SMALL, "max_len": 65536})
    result = max_context.run(asked, lambda line: None)
    assert 0 < result.metrics["longest"] < 65536
    assert result.metrics["peak_memory_bytes"] <= 2**20
    assert result.metrics["capped"] == 0
