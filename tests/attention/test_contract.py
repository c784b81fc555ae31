"""What every registered mechanism owes: its kernel, its guarantees, its facts."""

from __future__ import annotations

import copy

import pytest
import torch
from contract import (
    NAMES,
    TOLERANCE,
    assert_near,
    either_order,
    every_mechanism,
    heads,
    qkv,
    tolerance,
)
from hypothesis import given
from hypothesis import strategies as st

import slay
from slay.attention.facts import facts
from slay.benchmarks.timing import peak_memory
from slay.ops.exact import exact_attention
from slay.ops.naive import naive_attention


def drawn(name, **options):
    """What a mechanism draws and keeps."""
    mechanism = heads(name, **options)
    buffers = dict(mechanism.named_buffers())
    return {key: buffers[key] for key in mechanism.state_dict() if key in buffers}


DRAWN = [name for name in NAMES if drawn(name)]


@every_mechanism
@either_order
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_attend_is_the_naive_form_of_its_scores(name, causal, dtype):
    mechanism = heads(name, causal=causal).to(dtype)
    for length, chunk in ((1, 4), (7, 1), (10, 4), (12, 4), (13, 64)):
        q, k, v = qkv(length, value_dim=5, dtype=dtype)
        mechanism.chunk_size = chunk  # exact mechanisms have none
        expected = naive_attention(mechanism.scores(q, k), v, causal=causal)
        for grad in (False, True):  # two ways to compute it
            with torch.set_grad_enabled(grad):
                assert_near(mechanism.attend(q, k, v), expected, tolerance(mechanism, q, k))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "cosformer"])  # it counts from a block
@either_order
def test_blocks_of_rows_do_not_change_exact_attention(name, causal):
    q, k, v = qkv(11, value_dim=5, dtype=torch.float64)
    scores = heads(name).double().scores
    expected = naive_attention(scores(q, k), v, causal=causal)
    for block in (1, 4, 10, 11, 64):
        found = exact_attention(q, k, v, lambda u: u, scores, causal=causal, block_size=block)
        assert_near(found, expected, 1e-10)


@every_mechanism
def test_the_future_does_not_matter(name):
    mechanism = heads(name, chunk_size=4).double()
    q, k, v = qkv(11, dtype=torch.float64)
    whole = mechanism.attend(q, k, v)
    for stop in (1, 4, 6):
        changed = [t.index_fill(2, torch.arange(stop, 11), 3.0) for t in (q, k, v)]
        prefix = [t[:, :, :stop] for t in (q, k, v)]
        for other in (changed, prefix):
            torch.testing.assert_close(mechanism.attend(*other)[:, :, :stop], whole[:, :, :stop])


@every_mechanism
def test_weights_sum_to_one(name):
    q, k, _ = qkv(9, dtype=torch.float64)
    v = torch.tensor([2.0, -3.0], dtype=torch.float64).expand(2, 2, 9, 2)
    for causal in (True, False):
        mechanism = heads(name, causal=causal).double()
        scores = mechanism.scores(q, k)
        z = (scores.tril() if causal else scores).sum(-1, keepdim=True)
        expected = v.masked_fill(z == 0, 0.0)  # rectified tokens may share no coordinate
        torch.testing.assert_close(mechanism.attend(q, k, v), expected)


@pytest.mark.parametrize("name", [n for n in NAMES if slay.get_attention_class(n).nonnegative])
@given(
    seed=st.integers(0, 2**31),
    scales=st.tuples(*[st.floats(-6, 6)] * 2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    head_dim=st.sampled_from([2, 8, 64]),
    cosine=st.sampled_from(["any", "near 1", "near -1"]),
)
def test_scores_are_not_negative(name, seed, scales, dtype, head_dim, cosine):
    q, k, _ = qkv(8, head_dim=head_dim, batch=1, seed=seed)
    if cosine != "any":
        k = q * (1 if cosine == "near 1" else -1)
    q, k = ((t * 10.0**s).to(dtype).float() for t, s in zip((q, k), scales, strict=True))
    assert (heads(name, head_dim).scores(q, k) >= 0).all()


@every_mechanism
@either_order
def test_gradcheck(name, causal):
    mechanism = heads(name, 3, 1, causal=causal, chunk_size=2).double()
    q, k, v = qkv(5, head_dim=3, value_dim=2, batch=1, n_heads=1, dtype=torch.float64)
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    # fast_mode: along random directions instead of every entry
    assert torch.autograd.gradcheck(mechanism.attend, (q, k, v), fast_mode=True, atol=1e-4)


@every_mechanism
@either_order
def test_gradients_are_those_of_the_oracle(name, causal):
    """The normaliser's gradient included, over many chunks, with grouped queries and padding."""
    mechanism = heads(name, 4, 4, n_kv_heads=2, causal=causal, chunk_size=2).double()
    q, k, v = qkv(23, head_dim=4, value_dim=3, n_heads=4, kv=2, dtype=torch.float64)
    padding = torch.zeros(2, 23, dtype=torch.bool)
    padding[0, 20:], padding[1, :3] = True, True
    inputs = [t.requires_grad_() for t in (q, k, v)]
    y = mechanism.attend(q, k, v, key_padding_mask=padding)
    oracle = naive_attention(mechanism.scores(q, k), v, causal=causal, key_padding_mask=padding)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    found = torch.autograd.grad(y, inputs, g, materialize_grads=True)
    expected = torch.autograd.grad(oracle, inputs, g, materialize_grads=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * (1 + b.abs().max().item()))


@every_mechanism
def test_memory_in_training_grows_with_the_length_alone(name):
    mechanism = heads(name, 8, 2)
    peaks = []
    for length in (1024, 2048):
        q, k, v = (t.requires_grad_() for t in qkv(length, head_dim=8, value_dim=8, batch=1))
        peaks.append(
            peak_memory(lambda q=q, k=k, v=v: mechanism.attend(q, k, v).sum().backward(), q.device)
        )
    assert peaks[1] <= 2.2 * peaks[0]


@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_alone_decides_what_is_drawn_head_by_head(name):
    first, again, other = (drawn(name, seed=s) for s in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    for buffer in first.values():
        if buffer.ndim > 1:  # the axis of heads is the first of the last three, or of two
            per_head = buffer.unbind(max(0, buffer.ndim - 3))
            assert not torch.equal(per_head[0], per_head[1])


@every_mechanism
def test_the_state_dict_holds_all_that_is_drawn(name):
    cls = slay.get_attention_class(name)
    torch.manual_seed(0)
    first, second = cls(12, 2, seed=1, bias=True), cls(12, 2, seed=2, bias=True)
    x = torch.randn(2, 5, 12)
    assert first(x).shape == x.shape
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    assert torch.equal(first(x), copy.deepcopy(first)(x))


@every_mechanism
def test_facts_are_stated(name):
    row = facts(name, 8)
    assert row["kernel"]
    assert row["complexity"] in {"L", "L^2"}
    assert (row["state_size"] is None) == (row["complexity"] == "L^2")
