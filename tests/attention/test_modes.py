"""Every mode of every registered mechanism, against the oracle."""

from __future__ import annotations

import shutil

import pytest
import torch
from contract import (
    FEATURES,
    TOLERANCE,
    assert_near,
    either_order,
    every_mechanism,
    heads,
    qkv,
    tolerance,
)

import slay
from slay.ops.naive import naive_attention

BOUNDS = [0, 1, 6, 13]  # three packed sequences


@every_mechanism
@either_order
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_padding(name, causal, dtype):
    mechanism = heads(name, causal=causal, chunk_size=4).to(dtype)
    q, k, v = qkv(11, dtype=dtype)
    padding = torch.zeros(2, 11, dtype=torch.bool)
    padding[0, :5], padding[1, 8:] = True, True
    y = mechanism.attend(q, k, v, key_padding_mask=padding)
    expected = naive_attention(mechanism.scores(q, k), v, causal=causal, key_padding_mask=padding)
    visible = ~padding[:, None, None, :] & (torch.arange(11) >= 5).unsqueeze(-1)
    assert_near(y, expected, tolerance(mechanism, q, k, visible))
    if causal:
        assert not y[0, :, :5].any()  # nothing to look at
    only = mechanism.attend(q, k, v, key_padding_mask=torch.ones_like(padding))
    assert not only.any()


@every_mechanism
@either_order
def test_packed_sequences(name, causal):
    mechanism = heads(name, causal=causal, chunk_size=4).double()
    q, k, v = qkv(13, batch=1, dtype=torch.float64)
    expected = naive_attention(mechanism.scores(q, k), v, causal=causal, cu_seqlens=BOUNDS)
    for bounds in (BOUNDS, torch.tensor(BOUNDS), torch.tensor(BOUNDS, dtype=torch.int32)):
        assert_near(mechanism.attend(q, k, v, cu_seqlens=bounds), expected, 1e-10)


@every_mechanism
@either_order
def test_grouped_queries_and_wide_values(name, causal):
    mechanism = heads(name, 6, 6, n_kv_heads=2, causal=causal, chunk_size=4).double()
    q, k, v = qkv(11, n_heads=6, kv=2, value_dim=9, dtype=torch.float64)
    y = mechanism.attend(q, k, v)
    assert_near(y, naive_attention(mechanism.scores(q, k), v, causal=causal), 1e-10)
    for head in range(6):  # a query head is alone with its key head
        part = q.clone()
        part[:, [h for h in range(6) if h != head]] = 0.0
        assert_near(mechanism.attend(part, k, v)[:, head], y[:, head], 1e-10)


@every_mechanism
@pytest.mark.parametrize(("queries", "keys"), [(3, 11), (11, 3), (1, 5)])
def test_cross_attention(name, queries, keys):
    mechanism = heads(name, causal=False, chunk_size=4).double()
    q, k, v = qkv(queries, keys=keys, dtype=torch.float64)
    padding = torch.zeros(2, keys, dtype=torch.bool)
    padding[0, -1] = True
    y = mechanism.attend(q, k, v, key_padding_mask=padding)
    expected = naive_attention(mechanism.scores(q, k), v, causal=False, key_padding_mask=padding)
    assert_near(y, expected, 1e-10)
    layer = slay.get_attention_class(name)(12, 2, causal=False, bias=True).double()
    x, context = torch.randn(2, queries, 12).double(), torch.randn(2, keys, 12).double()
    assert layer(x, context).shape == x.shape
    torch.testing.assert_close(layer(x, x), layer(x))


@every_mechanism
def test_a_carried_state_stands_for_what_came_before(name):
    mechanism = heads(name, 6, 4, n_kv_heads=2, chunk_size=4).double()
    q, k, v = qkv(11, n_heads=4, kv=2, value_dim=3, dtype=torch.float64)
    whole, final = mechanism.attend(q, k, v, output_final_state=True)
    for grad in (False, True):
        for stops in ([5, 11], [1, 4, 8, 11], range(1, 12), [0, 3, 3, 11]):
            state, parts, start = None, [], 0
            for stop in stops:
                block = (t[:, :, start:stop] for t in (q, k, v))
                with torch.set_grad_enabled(grad):
                    y, state = mechanism.attend(
                        *block, initial_state=state, output_final_state=True
                    )
                parts.append(y)
                start = stop
            assert_near(torch.cat(parts, dim=2), whole, 1e-10)
            assert_near(state.memory[0], final.memory[0], 1e-10)
            assert state.length.tolist() == [11, 11]
    if name in FEATURES:  # the state does not grow
        assert state.memory[0][0, 0].numel() == mechanism.state_size(3)


@every_mechanism
def test_gradients_flow_through_a_carried_state(name):
    mechanism = heads(name, chunk_size=2).double()
    inputs = [t.requires_grad_() for t in qkv(13, dtype=torch.float64)]
    whole = mechanism.attend(*inputs)
    state, parts = None, []
    for block in zip(*(t.split((5, 8), dim=2) for t in inputs), strict=True):
        y, state = mechanism.attend(*block, initial_state=state, output_final_state=True)
        parts.append(y)
    g = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1), dtype=whole.dtype)
    found = torch.autograd.grad(torch.cat(parts, dim=2), inputs, g, materialize_grads=True)
    expected = torch.autograd.grad(whole, inputs, g, materialize_grads=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * (1 + b.abs().max().item()))


def layer(name, **options):
    torch.manual_seed(0)
    made = slay.get_attention_class(name)(
        16, 4, n_kv_heads=2, value_dim=3, rotary=100.0, short_conv=3, **options
    ).double()
    torch.nn.init.normal_(made.short_conv.weight)
    return made


@every_mechanism
def test_token_by_token(name):
    """With everything that a layer can carry; packed sequences go on as a batch."""
    attention = layer(name)
    x = torch.randn(3, 9, 16, dtype=torch.float64)
    whole = attention(x)
    lengths = [2, 5, 1]
    packed = torch.cat([x[i, :n] for i, n in enumerate(lengths)]).unsqueeze(0)
    y, state = attention(packed, cu_seqlens=[0, 2, 7, 8], output_final_state=True)
    expected = torch.cat([whole[i, :n] for i, n in enumerate(lengths)]).unsqueeze(0)
    assert_near(y, expected, 1e-9)
    for t in range(4):
        token = torch.stack([x[i, n + t] for i, n in enumerate(lengths)])
        y, state = attention.step(token, state)
        assert_near(y, torch.stack([whole[i, n + t] for i, n in enumerate(lengths)]), 1e-9)
    blank = None
    for t in range(9):
        y, blank = attention.step(x[:, t], blank)
        assert_near(y, whole[:, t], 1e-9)


@every_mechanism
def test_packed_sequences_resume_packed(name):
    attention = layer(name)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    whole = attention(x)
    first = torch.cat((x[0, :4], x[1, :6])).unsqueeze(0)
    second = torch.cat((x[0, 4:], x[1, 6:])).unsqueeze(0)
    _, state = attention(first, cu_seqlens=[0, 4, 10], output_final_state=True)
    y = attention(second, cu_seqlens=[0, 5, 8], initial_state=state)
    assert_near(y, torch.cat((whole[0, 4:], whole[1, 6:])).unsqueeze(0), 1e-9)


@every_mechanism
def test_padding_on_the_left_is_as_if_it_were_not_there(name):
    attention = layer(name)
    if name == "cosformer" or attention.rotary:
        attention.rotary = None  # positions count padding; without them nothing is left of it
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    padded = torch.cat((torch.randn(1, 3, 16, dtype=torch.float64), x), dim=1)
    mask = torch.tensor([[True] * 3 + [False] * 6])
    y, state = attention(padded, key_padding_mask=mask, output_final_state=True)
    bare, after = attention(x, output_final_state=True)
    assert_near(y[:, 3:], bare, 1e-9)
    if name != "cosformer":  # it knows how far back a key lies, and a step then differs not
        token = torch.randn(1, 16, dtype=torch.float64)
        assert_near(attention.step(token, state)[0], attention.step(token, after)[0], 1e-9)


@every_mechanism
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(name, dtype):
    mechanism = heads(name, 16, chunk_size=8)
    q, k, v = (t.to(dtype) for t in qkv(40, head_dim=16, value_dim=16))
    y, state = mechanism.attend(q, k, v, output_final_state=True)
    assert y.dtype == dtype
    if name in FEATURES:
        assert state.memory[0].dtype == torch.float32
    reference = mechanism.double().attend(*(t.double() for t in (q, k, v)))
    signed = not slay.get_attention_class(name).nonnegative
    if not signed:  # a denominator near zero has no digits to lose
        assert_near(y.double(), reference, 2e-2)


@every_mechanism
def test_autocast(name):
    torch.manual_seed(0)
    attention = slay.get_attention_class(name)(32, 2)
    x = torch.randn(2, 40, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = attention(x, output_final_state=True)
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert attention.qkv.weight.grad.isfinite().all()
    if name in FEATURES:
        assert state.memory[0].dtype == torch.float32
    if slay.get_attention_class(name).nonnegative:
        assert_near(y.float(), attention(x), 4e-2)


@pytest.fixture
def fresh_compiler():
    """The compiler counts what it compiled of a function, over all mechanisms."""
    torch._dynamo.reset()


@every_mechanism
@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_as_one_graph(name):
    mechanism = heads(name, chunk_size=4)
    q, k, v = (t.requires_grad_() for t in qkv(10))
    compiled = torch.compile(mechanism.attend, fullgraph=True, backend="aot_eager")
    g = torch.randn(2, 2, 10, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for attend in (mechanism.attend, compiled):
        y = attend(q, k, v)
        results.append((y, *torch.autograd.grad(y, (q, k, v), g, materialize_grads=True)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4 * (1 + b.abs().max().item()))


@pytest.mark.skipif(not shutil.which("g++"), reason="PyTorch's compiler for CPUs needs g++")
@pytest.mark.parametrize("name", ["linear", "yat-quadratic", "yat-performer-anchor"])
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_for_real(name):
    mechanism = heads(name, chunk_size=4)
    q, k, v = qkv(10)
    compiled = torch.compile(mechanism.attend, fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), mechanism.attend(q, k, v), rtol=1e-4, atol=1e-5)


@every_mechanism
def test_a_short_convolution_starts_as_the_identity(name):
    cls = slay.get_attention_class(name)
    torch.manual_seed(0)
    plain, convolved = cls(12, 2), cls(12, 2, short_conv=4)
    convolved.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(convolved(x), plain(x))
    convolved(x).sum().backward()
    assert convolved.short_conv.weight.grad.abs().sum() > 0
