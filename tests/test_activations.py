"""Yat neurons against their formula in float64, where it is benign and where it cancels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slay.activations import YatLinear, yat
from slay.errors import SlayError

ROUNDING = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def direct(x, weight, epsilon, bias=0.0):
    distance = (x.unsqueeze(-2) - weight).square().sum(-1)
    return ((x.unsqueeze(-2) * weight).sum(-1) + bias).square() / (distance + epsilon)


@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([1, 3, 64]),
    log_scale=st.floats(-4, 4),
    log_epsilon=st.floats(-8, 0),
    bias=st.booleans(),
)
def test_it_is_its_formula(seed, width, log_scale, log_epsilon, bias):
    x = 10**log_scale * randn(2, 5, width, seed=seed)
    weight = 10**log_scale * randn(7, width, seed=seed + 1)
    b = randn(7, seed=seed + 2) if bias else None
    found = yat(x, weight, 10**log_epsilon, bias=b)
    expected = direct(x, weight, 10**log_epsilon, 0.0 if b is None else b)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


@given(
    seed=st.integers(0, 2**31),
    log_nearness=st.floats(-9, 0),
    log_scale=st.floats(-3, 3),
    dtype=st.sampled_from(list(ROUNDING)),
)
def test_near_duplicates_are_right_to_the_rounding_of_the_norms(
    seed, log_nearness, log_scale, dtype
):
    epsilon = 1e-6
    weight = (10**log_scale * randn(6, 16, seed=seed)).to(dtype)
    x = (weight * (1 + 10**log_nearness * randn(6, 16, seed=seed + 1))).to(dtype)
    found = yat(x, weight, epsilon).diagonal().double()
    x, weight = x.double(), weight.double()
    dot, distance = (x * weight).sum(-1).abs(), (x - weight).square().sum(-1)
    norms = x.square().sum(-1) + weight.square().sum(-1)
    floor = ROUNDING[dtype] * norms
    slack = 8 * floor
    least = (dot - slack).clamp(min=0).square() / (distance + slack + epsilon)
    most = (dot + slack).square() / (torch.maximum(distance - slack, floor) + epsilon)
    assert (found >= 0.99 * least).all()
    assert (found <= 1.01 * most).all()


@pytest.mark.parametrize("dtype", [*ROUNDING, torch.bfloat16])
def test_zero_vectors_give_zero_and_finite_gradients(dtype):
    x, weight = torch.zeros(2, 3, dtype=dtype), torch.zeros(2, 3, dtype=dtype)
    x[1] = weight[1] = 2.0
    x.requires_grad_(), weight.requires_grad_()
    y = yat(x, weight)
    y.sum().backward()
    assert y.flatten()[:3].tolist() == [0.0, 0.0, 0.0]
    assert 0 < y[1, 1] < float("inf")
    assert x.grad.isfinite().all()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("epsilon", [1e-3, 1.0])
def test_gradients(epsilon):
    arguments = [t.requires_grad_() for t in (randn(2, 3, 4), randn(5, 4, seed=1), randn(5))]
    assert torch.autograd.gradcheck(
        lambda x, weight, bias: yat(x, weight, epsilon, bias=bias), arguments
    )


def test_half_precision_is_evaluated_in_float32():
    x, weight = randn(4, 9, 32).bfloat16(), randn(6, 32, seed=1).bfloat16()
    expected = yat(x.float(), weight.float())
    assert torch.equal(yat(x, weight), expected.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(yat(x.float(), weight.float()), expected)
        assert torch.equal(yat(x, weight.float()), expected.bfloat16())


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_scales_its_rows(scale, bias):
    layer = YatLinear(4, 5, bias=bias, scale=scale, epsilon=0.1).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(randn(*p.shape, seed=3))
    x = randn(2, 3, 4)
    expected = direct(x, layer.weight, 0.1, layer.bias if bias else 0.0)
    torch.testing.assert_close(layer(x), expected * (layer.scale if scale else 1.0))
    assert len(list(layer.parameters())) == 1 + bias + scale
    layer(x).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("width", [128, 1024])
def test_the_layer_starts_at_one_size_whatever_its_width(width):
    torch.manual_seed(0)
    y = YatLinear(width, 2000)(randn(8, width, seed=1, dtype=torch.float32))
    assert y.mean().item() == pytest.approx(0.5, abs=0.1)
    assert y.var().item() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: YatLinear(0, 3), "in_features = 0"),
        (lambda: YatLinear(3, 2.0), r"out_features = 2\.0"),
        (lambda: YatLinear(3, True), "out_features = True"),
        (lambda: YatLinear(3, 2, epsilon=0.0), r"epsilon = 0\.0: must be positive"),
        (lambda: yat(torch.zeros(3), torch.zeros(2, 3), float("nan")), "epsilon = nan"),
        (lambda: yat(torch.zeros(4), torch.zeros(2, 3)), r"\(4,\) and \(2, 3\)"),
        (lambda: yat(torch.zeros(3), torch.zeros(3)), r"\(3,\) and \(3,\)"),
        (lambda: yat(torch.zeros(3, dtype=torch.int64), torch.zeros(2, 3)), r"torch\.int64"),
    ],
)
def test_bad_arguments_are_one_line(call, words):
    with pytest.raises(SlayError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
