"""What float16 cannot hold: scores, sums, and outputs of scores of both signs."""

from __future__ import annotations

import pytest
import torch
from contract import either_order, every_mechanism, heads
from hypothesis import given, settings
from hypothesis import strategies as st

import slay
from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense
from slay.ops.linear import linear_attention
from slay.ops.sequences import Sequences


class Identity(FeatureMap):
    def forward(self, u, position):
        return Dense(u)


SIGNED = [n for n in slay.list_attention_types() if not slay.get_attention_class(n).nonnegative]


@every_mechanism
@either_order
@settings(max_examples=10)
@given(seed=st.integers(0, 999), size=st.sampled_from([1e-4, 1.0, 300.0, 6e4]))
def test_outputs_are_finite(name, causal, seed, size):
    """Attention in float16 is infinite or NaN where tokens are large."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (t.half() for t in (torch.rand(3, 1, 2, 40, 6, generator=draw) * 2 - 1) * size)
    mechanism = heads(name, causal=causal, chunk_size=16)
    y = mechanism.attend(q, k, v)
    assert y.dtype == torch.float16
    assert y.isfinite().all()


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_normaliser_near_zero(backend, sign):
    """Scores of both signs whose sum is near zero make outputs in float16 infinite."""
    q = torch.ones(1, 1, 2, 1).half()
    k = torch.tensor([1.0, -0.9995]).half().view(1, 1, 2, 1)
    v = torch.tensor([6e4, -6e4]).half().view(1, 1, 2, 1) * sign
    if backend == "torch":
        y, _ = linear_attention(q, k, v, Identity(), Sequences(), causal=True)
    else:
        pytest.importorskip("triton", reason="the kernels need Triton")
        from slay.features.spec import FeatureSpec
        from slay.ops.triton.launch import kernel_attention

        k = torch.tensor([1.0, -0.9922]).half().view(1, 1, 2, 1)  # of the digits of bfloat16
        y, _ = kernel_attention(q, k, v, FeatureSpec(given_f=(q, k)), causal=True)
    assert y[0, 0, 1, 0] == sign * torch.finfo(torch.float16).max


@every_mechanism
def test_scores_of_half_precision_are_those_of_single(name):
    """`scores` in float16 is infinite where q·k is above 65,504."""
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 1, 2, 5, 6, generator=draw) * 3).half()
    found, expected = (heads(name).scores(*p) for p in ((q, k), (q.float(), k.float())))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [1e-6, 6e4])
def test_a_projected_head(size):
    """`yat-cubic` with `project_dim` overflows in float16."""
    draw = torch.Generator().manual_seed(0)
    u = torch.rand(1, 2, 8, 16, generator=draw).half() * size
    v = torch.ones(1, 2, 8, 16).half()
    mechanism = heads("yat-cubic", 16, project_dim=3)
    torch.testing.assert_close(mechanism.attend(u, u, v), v, rtol=0, atol=1e-3)
