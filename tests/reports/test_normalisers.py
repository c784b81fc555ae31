"""Weights sum to one, whatever the size of queries and keys."""

from __future__ import annotations

import pytest
import torch
from contract import heads
from hypothesis import example, given, settings
from hypothesis import strategies as st

import slay
from slay.ops.naive import naive_attention

POSITIVE = [n for n in slay.list_attention_types() if slay.get_attention_class(n).nonnegative]
CASES = [(name, {}) for name in POSITIVE] + [("performer", {"kernel": "softmax"})]
NEED_DIRECTION = {"yat", "yat-spherical", "yat-cubic", "yat-performer", "yat-performer-anchor"}
HALVES = [torch.bfloat16, torch.float16]
every_positive = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
sizes = st.floats(-8, 4)


def tokens(seed, dtype, q_size, k_size, head_dim=4, shift=0.0):
    draw = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, 2, 9, head_dim, generator=draw) + shift
    return (q * q_size).to(dtype), (k * k_size).to(dtype)


def has_weight(name, q, k):
    """Which queries have a positive normaliser in exact arithmetic: (B, H, L)."""
    if name == "cosformer":  # rectified tokens may share no coordinate
        return ((q > 0).double() @ (k > 0).double().mT).tril().sum(-1) > 0
    if name in NEED_DIRECTION:  # a vector that float16 rounds to zero has none
        own, other = (t.ne(0.0).any(-1) for t in (q, k))
        return own & (other.cumsum(-1) > 0)
    return torch.ones(q.shape[:3], dtype=torch.bool)


@every_positive
@settings(max_examples=12)
@given(
    dtype=st.sampled_from([torch.float32, *HALVES]),
    q_size=sizes,
    k_size=sizes,
    shift=st.sampled_from([0, -5, 5]),
    seed=st.integers(0, 999),
)
@example(dtype=torch.float32, q_size=4, k_size=4, shift=-5, seed=0)
@example(dtype=torch.float32, q_size=0.5, k_size=0.5, shift=-5, seed=0)
@example(dtype=torch.float32, q_size=-8, k_size=-8, shift=0, seed=0)
@example(dtype=torch.float16, q_size=-8, k_size=0, shift=0, seed=0)
def test_weights_sum_to_one_at_any_size(name, options, dtype, q_size, k_size, shift, seed):
    """Weights do not sum to 1 where queries and keys are very small or large and negative."""
    q, k = tokens(seed, dtype, 10**q_size, 10**k_size, shift=shift)
    q, k = (t.clamp(-6e4, 6e4) for t in (q, k))
    y = heads(name, 4, **options).attend(q, k, torch.ones_like(k))
    expected = has_weight(name, q, k).unsqueeze(-1).expand_as(y)
    torch.testing.assert_close(y.float(), expected.float(), rtol=0, atol=1e-4)


def test_weights_at_minus_sixteen():
    """`linear` returns 0.013 for a value of 1."""
    u = torch.full((1, 1, 1, 1), -16.0)
    assert slay.attend(u, u, torch.ones(1, 1, 1, 1), "linear").item() == 1.0


@pytest.mark.parametrize("shift", [-16.0, -40.0, -55.0])
def test_linear_weights_of_very_negative_tokens_are_exact(shift):
    """`linear` gives wrong weights where queries and keys are very negative."""
    q, k = tokens(0, torch.float32, 1.0, 1.0)
    v = torch.randn(1, 2, 9, 3, generator=torch.Generator().manual_seed(1))
    q, k = q + 3 * shift, (k + shift).clamp(min=-59.0)
    phi_q, phi_k = (q.double() - q.amax()).exp(), k.double().exp()
    exact = phi_q @ phi_k.mT
    found = heads("linear", 4).attend(q, k, v)
    torch.testing.assert_close(found.double(), naive_attention(exact, v.double(), causal=True))


@pytest.mark.parametrize(("name", "options"), [CASES[-1], ("linear", {})], ids=str)
def test_keys_without_measurable_weight_give_the_running_mean(name, options):
    """Outputs vanish where the features of all keys underflow."""
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(1, 1, 9, 4, generator=draw)
    k = -1e4 - torch.rand(1, 1, 9, 4, generator=draw)
    v = torch.randn(1, 1, 9, 4, generator=draw)
    mechanism = heads(name, 4, 1, **options)
    mean = v.cumsum(2) / torch.arange(1, 10).view(-1, 1)
    torch.testing.assert_close(mechanism.attend(q, k, v), mean)
    first, state = mechanism.attend(*(t[:, :, :4] for t in (q, k, v)), output_final_state=True)
    rest = mechanism.attend(*(t[:, :, 4:] for t in (q, k, v)), initial_state=state)
    torch.testing.assert_close(torch.cat((first, rest), dim=2), mean)


@every_positive
@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e2, 1e4])
def test_gradients_are_finite_at_any_size(name, options, size):
    """Gradients are NaN or infinite where a normaliser is very small."""
    q, k = tokens(3, torch.float32, size, size)
    inputs = [t.requires_grad_() for t in (q, k, torch.ones_like(k))]
    y = heads(name, 4, **options).attend(*inputs)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(y, inputs, g, materialize_grads=True)
    assert all(t.isfinite().all() for t in found)


KERNELS = [
    ("linear", {}),
    ("performer", {"kernel": "softmax", "num_features": 8}),
    ("cosformer", {}),
    ("yat-quadratic", {}),
    ("yat-spherical", {"epsilon": 1.0}),
]


@pytest.mark.parametrize(("name", "options"), KERNELS, ids=str)
@pytest.mark.parametrize("sizes", [(-16, -16), (-1e4, -1e4), (1e4, -70), (1e-8, 1e-8)], ids=str)
def test_kernels_weigh_as_pytorch_does_at_any_size(name, options, sizes):
    """Kernels and PyTorch differ where queries and keys are very small or large."""
    pytest.importorskip("triton", reason="the kernels need Triton")
    draw = torch.Generator().manual_seed(0)
    q, k = (s * (1 + 0.1 * torch.rand(1, 1, 5, 4, generator=draw)) for s in sizes)
    inputs = [t.requires_grad_() for t in (k, torch.randn(1, 1, 5, 3, generator=draw))]
    found = []
    for backend in ("torch", "triton"):
        y = heads(name, 4, 1, backend=backend, **options).attend(q, *inputs)
        dk, dv = torch.autograd.grad(y.square().sum(), inputs)
        found.append((y, dk * k.detach().norm(), dv))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_state_read_by_the_decoding_kernel():
    """Decoding by kernels weighs very negative tokens otherwise than a whole call."""
    pytest.importorskip("triton", reason="the kernels need Triton")
    u = torch.full((1, 1, 3, 2), -300.0)
    v = torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1)
    mechanism = heads("linear", 2, 1, backend="triton")
    with torch.no_grad():
        _, state = mechanism.attend(u[:, :, :2], u[:, :, :2], v[:, :, :2], output_final_state=True)
        y = mechanism.attend(u[:, :, 2:], u[:, :, 2:], v[:, :, 2:], initial_state=state)
    assert y.item() == pytest.approx(3.0)


def test_no_weight_gives_zeros():
    """Outputs are NaN where no token has any weight."""
    z = torch.zeros(1, 1, 4, 4)
    assert not slay.attend(z, z, torch.ones_like(z), "yat-spherical").any()
