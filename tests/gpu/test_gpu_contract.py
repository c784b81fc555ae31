"""What every mechanism owes on the device that it runs on, by whatever computes it there."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from contract import every_mechanism, heads, qkv, tolerance

import slay
from slay.ops.naive import naive_attention

LENGTH = {"cpu": 21, "cuda": 1101}
HEAD_DIM = {"cpu": 8, "cuda": 32}
EXACT = {torch.bfloat16: 2e-2, torch.float32: 2e-4}  # relative, of outputs
GRADIENT = {torch.bfloat16: 4e-2, torch.float32: 1e-3}
either_precision = pytest.mark.parametrize("dtype", EXACT, ids=str)


def drawn(device, dtype, **sizes):
    d = HEAD_DIM[device.type]
    made = qkv(LENGTH[device.type], head_dim=d, value_dim=d, **sizes)
    return [t.to(device, dtype) for t in made]


def mechanism_on(device, name, n_heads=2, **options):
    return heads(name, HEAD_DIM[device.type], n_heads, backend="auto", **options).to(device)


def oracle(name, inputs, **asked):
    """y in float64 from the naive form, of the same numbers; with its mechanism and inputs."""
    q, k, v = (t.detach().double().requires_grad_() for t in inputs)
    options = {"n_kv_heads": k.shape[1]} if k.shape[1] != q.shape[1] else {}
    exact = heads(name, q.shape[-1], q.shape[1], **options).to(q.device).double()
    y = naive_attention(exact.scores(q, k), v, causal=True, **asked)
    return y, exact, (q, k, v)


def assert_close(found, expected, bound):
    """‖found - expected‖ <= bound ‖expected‖, and all of it finite."""
    assert found.isfinite().all()
    assert (found.double() - expected).norm() <= bound * expected.norm()


@every_mechanism
@either_precision
def test_outputs_and_gradients_are_those_of_float64(name, dtype, device):
    inputs = [t.requires_grad_() for t in drawn(device, dtype)]
    y = mechanism_on(device, name).attend(*inputs)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    expected, exact, doubles = oracle(name, inputs)
    with torch.no_grad():
        bound = tolerance(exact, *doubles[:2], exact=EXACT[dtype])
    assert y.dtype == dtype
    assert_close(y, expected, bound)
    found = torch.autograd.grad(y, inputs, g, materialize_grads=True)
    assert all(t.isfinite().all() for t in found)
    if slay.get_attention_class(name).nonnegative and name not in {"yat", "yat-cubic"}:
        wanted = torch.autograd.grad(expected, doubles, g.double(), materialize_grads=True)
        for own, other in zip(found, wanted, strict=True):
            assert (own.double() - other).norm() <= GRADIENT[dtype] * max(1, other.norm())


@every_mechanism
def test_grouped_heads_and_padding(name, device):
    q, k, v = drawn(device, torch.float32, n_heads=4, kv=2)
    padding = torch.zeros(q.shape[0], q.shape[2], dtype=torch.bool, device=device)
    padding[0, -3:] = True
    y = mechanism_on(device, name, 4, n_kv_heads=2).attend(q, k, v, key_padding_mask=padding)
    expected, exact, doubles = oracle(name, (q, k, v), key_padding_mask=padding)
    bound = EXACT[torch.float32]
    with torch.no_grad():
        bound = bound if exact.nonnegative else tolerance(exact, *doubles[:2], exact=bound)
    assert_close(y, expected.detach(), bound)


@every_mechanism
def test_packed_sequences_do_not_see_each_other(name, device):
    inputs = drawn(device, torch.float32, batch=1)
    ends = [0, 1, LENGTH[device.type] // 3, LENGTH[device.type]]
    mechanism = mechanism_on(device, name)
    y = mechanism.attend(*inputs, cu_seqlens=torch.tensor(ends, device=device))
    for begin, end in pairwise(ends):
        part = [t[:, :, begin:end].contiguous() for t in inputs]
        expected, exact, doubles = oracle(name, part)
        with torch.no_grad():
            bound = tolerance(exact, *doubles[:2], exact=EXACT[torch.float32])
        assert_close(y[:, :, begin:end], expected.detach(), bound)


@every_mechanism
@either_precision
def test_token_by_token_after_a_prompt(name, dtype, device):
    inputs = drawn(device, dtype)
    mechanism, new = mechanism_on(device, name), 3
    with torch.no_grad():
        prompt = [t[:, :, :-new].contiguous() for t in inputs]
        y, state = mechanism.attend(*prompt, output_final_state=True)
        parts = [y]
        for i in range(LENGTH[device.type] - new, LENGTH[device.type]):
            token = [t[:, :, i : i + 1].contiguous() for t in inputs]
            spent = state._replace(expendable=True)
            y, state = mechanism.attend(*token, initial_state=spent, output_final_state=True)
            parts.append(y)
    expected, exact, doubles = oracle(name, inputs)
    with torch.no_grad():
        bound = tolerance(exact, *doubles[:2], exact=EXACT[dtype])
    assert_close(torch.cat(parts, dim=2), expected.detach(), bound)
    assert state.length.tolist() == [LENGTH[device.type]] * 2


@pytest.mark.parametrize("name", ["linear", "yat-quadratic"])
def test_more_batch_times_heads_than_a_grid_has_rows(name, device):
    q, k, v = (t.to(device) for t in qkv(3, batch=66_000, n_heads=1, head_dim=8, value_dim=8))
    mechanism = heads(name, 8, 1, backend="auto").to(device)
    with torch.no_grad():
        y = mechanism.attend(q, k, v)
        last = mechanism.attend(*(t[-1:] for t in (q, k, v)))
    torch.testing.assert_close(y[-1:], last, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["linear", "yat-quadratic", "yat-performer-anchor", "yat-performer", "yat-spherical"]
)
def test_kernels_compute_what_they_are_insisted_on_for(name, gpu):
    inputs = drawn(gpu, torch.bfloat16)
    mechanism = heads(name, HEAD_DIM["cuda"], 2, backend="triton").to(gpu)
    with torch.no_grad():
        y = mechanism.attend(*inputs)
        expected, _, _ = oracle(name, inputs)
    assert mechanism.backend_used == "triton"
    assert_close(y, expected, EXACT[torch.bfloat16])
