"""Padding has no effect, whatever it holds."""

from __future__ import annotations

import pytest
import torch
from contract import either_order, every_mechanism, heads, qkv

import slay

JUNK = [float("nan"), float("inf"), 1e38]
MASK = torch.tensor([[True, True, False, False, False, False], [False] * 4 + [True] * 2])
KERNELS = ["linear", "yat-performer-anchor", "yat-quadratic", "yat-spherical"]
any_junk = pytest.mark.parametrize("junk", JUNK, ids=str)


def spoiled(t, mask, junk):
    return t.detach().masked_fill(mask.view(2, *[1] * (t.ndim - 3), -1, 1), junk).requires_grad_()


def attended(mechanism, inputs, real):
    """Outputs of real queries, and gradients of a loss of those."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    with torch.no_grad():
        fast = mechanism.attend(*inputs, key_padding_mask=MASK)
    y = mechanism.attend(*inputs, key_padding_mask=MASK)
    loss = y.masked_fill(~real, 0.0).square().sum()
    grads = torch.autograd.grad(loss, inputs, materialize_grads=True)
    return [t.masked_fill(~real, 0.0) for t in (y, fast)] + list(grads)


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def check(mechanism, q, k, v, junk):
    own = q.shape[2] == k.shape[2]
    real = ~MASK[:, None, :, None] if own else torch.ones(2, 1, q.shape[2], 1, dtype=torch.bool)
    expected = attended(mechanism, (q, k, v), real)
    # queries of padding are computed too: what is finite in them overflows in their own rows
    query = spoiled(q, MASK, junk) if own and junk != 1e38 else q
    inputs = query, spoiled(k, MASK, junk), spoiled(v, MASK, junk)
    assert_same(attended(mechanism, inputs, real), expected)


@every_mechanism
@either_order
@any_junk
def test_keys_values_and_queries_of_padding(name, causal, junk):
    """NaN in padding makes outputs and gradients NaN."""
    check(heads(name, causal=causal, chunk_size=2), *qkv(6), junk)


@every_mechanism
@any_junk
def test_cross_attention(name, junk):
    """NaN in the padding of a context makes outputs NaN."""
    check(heads(name, causal=False, chunk_size=2), *qkv(4, keys=6), junk)


@pytest.mark.parametrize("name", KERNELS)
@either_order
def test_kernels(name, causal):
    """NaN in padding makes outputs and gradients of kernels NaN."""
    pytest.importorskip("triton", reason="the kernels need Triton")
    options = {"poly_dim": 3, "num_prf_features": 3} if "anchor" in name else {}
    mechanism = heads(name, 4, backend="triton", causal=causal, **options)
    check(mechanism, *qkv(6, head_dim=4), float("nan"))


@every_mechanism
def test_states_and_tokens_after_padding(name):
    """NaN in the padding of a prompt spoils every token that is generated after it."""
    mechanism = heads(name, chunk_size=2)
    q, k, v = qkv(6)
    more = qkv(2, seed=1)
    outputs = []
    for junk in (0.5, float("nan")):
        inputs = [spoiled(t, MASK, junk).detach() for t in (q, k, v)]
        _, state = mechanism.attend(*inputs, key_padding_mask=MASK, output_final_state=True)
        last = torch.tensor([[False, True], [False, False]])
        inputs = [spoiled(t, last, junk).detach() for t in more]
        y, state = mechanism.attend(
            *inputs, key_padding_mask=last, initial_state=state, output_final_state=True
        )
        after = mechanism.attend(*qkv(1, seed=2), initial_state=state)
        outputs.append((y.masked_fill(last[:, None, :, None], 0.0), after))
    assert_same(*outputs)


@every_mechanism
@either_order
def test_layers(name, causal):
    """NaN in the padding of a batch makes the gradients of a layer's weights NaN."""
    torch.manual_seed(0)
    convolved = {"short_conv": 2} if causal else {}
    layer = slay.get_attention_class(name)(12, 2, causal=causal, bias=True, **convolved)
    x, results = torch.randn(2, 6, 12), []
    for junk in (0.5, float("nan")):
        inputs = spoiled(x, MASK, junk)
        y = layer(inputs, key_padding_mask=MASK).masked_fill(MASK.unsqueeze(-1), 0.0)
        wanted = [inputs, *layer.parameters()]
        grads = torch.autograd.grad(y.square().sum(), wanted, materialize_grads=True)
        results.append((y, *grads))
    assert_same(*results)
    if not causal:
        context = [spoiled(x, MASK, junk) for junk in (0.5, float("nan"))]
        assert_same(*[[layer(x[:, :3], c, key_padding_mask=MASK)] for c in context])
