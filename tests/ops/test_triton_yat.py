"""The kernels of the exact spherical Yat against the definition in float64."""

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.attention import get_attention_class
from slay.ops.naive import naive_attention
from slay.ops.triton import configs
from slay.ops.triton.yat import exact_yat

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@pytest.fixture(autouse=True)
def _poison(monkeypatch):
    """New buffers hold NaN until a kernel writes to them."""
    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: poisoned(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poisoned(empty_like(*a, **k)))


def poisoned(t):
    return t.fill_(torch.nan) if t.is_floating_point() else t


def tokens(heads=(2, 2), lengths=(67, 67), d=16, e=16, dtype=torch.float32, batch=1):
    generator = torch.Generator().manual_seed(0)
    (H, K), (lq, lk) = heads, lengths
    shapes = (H, lq, d), (K, lk, d), (K, lk, e)
    return [torch.randn(batch, *s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def expected(q, k, v, epsilon, causal, padding=None, bounds=None):
    d, (heads, lq), (kv_heads, lk) = q.shape[3], q.shape[1:3], k.shape[1:3]
    mechanism = get_attention_class("yat-spherical").heads_only(
        d, heads, n_kv_heads=kv_heads, causal=causal, epsilon=epsilon
    )
    scores = mechanism.double().scores(q, k)
    if causal and lq < lk:
        visible = torch.ones(lq, lk, dtype=torch.bool).tril(lk - lq)
        scores, causal = scores.masked_fill(~visible, 0.0), False
    return naive_attention(scores, v, causal=causal, key_padding_mask=padding, cu_seqlens=bounds)


def errors(qkv, epsilon=1e-3, *, causal=True, padding=None, bounds=None):
    """Relative errors of y, dq, dk and dv."""
    exact = [t.detach().double().requires_grad_() for t in qkv]
    y = exact_yat(*qkv, epsilon, causal=causal, key_padding_mask=padding, bounds=bounds)
    o = expected(*exact, epsilon, causal, padding, bounds)
    dy = torch.randn(o.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    ours = (y, *torch.autograd.grad(y, qkv, dy))
    wanted = (o, *torch.autograd.grad(o, exact, dy.double()))
    assert all(a.dtype == qkv[0].dtype for a in ours)
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(ours, wanted, strict=True)]


def padding_of(batch, length):
    padding = torch.zeros(batch, length, dtype=torch.bool)
    padding[:, -5:] = padding[0, 3] = True
    return padding


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("epsilon", [1e-3, 1e-6])
def test_outputs_and_gradients(dtype, epsilon):
    assert max(errors(tokens(dtype=dtype), epsilon)) < TOLERANCE[dtype]


@pytest.mark.parametrize("causal", [True, False])
def test_fewer_queries_than_keys_grouped_heads_padding_and_odd_widths(causal):
    qkv = tokens((4, 2), (70, 131), d=6, e=5, batch=2)
    assert max(errors(qkv, causal=causal, padding=padding_of(2, 131))) < 1e-5


@pytest.mark.parametrize("causal", [True, False])
def test_packed_sequences(causal):
    qkv = tokens((2, 1), (200, 200))
    assert max(errors(qkv, causal=causal, bounds=[0, 1, 140, 200])) < 1e-5


@pytest.mark.parametrize("tiles", [(16, 32), (32, 16), (128, 32)], ids=str)
def test_every_shape_of_tile(tiles):
    names = {"yat_fwd": "TK", "yat_query_bwd": "TK", "yat_key_bwd": "TQ"}
    imposed = {
        name: configs.Config(4, 2, (("T", tiles[0]), (other, tiles[1])))
        for name, other in names.items()
    }
    with configs.forced(imposed):
        assert max(errors(tokens(lengths=(50, 133)))) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_keys_close_to_their_queries(dtype):
    """One key outweighs the others, and the kernel is steep: dx grows as 1 / |q^ - k^|^3."""
    q, k, v = tokens(dtype=dtype)
    q = (k.detach() + 0.1 * q.detach()).requires_grad_()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    assert max(errors((q, k, v), 1e-6)) < tolerance


def test_tokens_without_weight_give_zeros_and_no_gradient():
    q, k, v = tokens()
    q = q.detach().index_fill(2, torch.tensor([5]), 0.0).requires_grad_()
    k = k.detach().index_fill(2, torch.tensor([0, 9]), 0.0).requires_grad_()
    y = exact_yat(q, k, v, 1e-3, causal=True)
    dq, dk, dv = torch.autograd.grad(y.sum(), (q, k, v))
    assert not y[:, :, [0, 5]].any()
    assert not dq[:, :, 5].any()
    assert not dk[:, :, [0, 9]].any()
    assert not dv[:, :, [0, 9]].any()
    assert all(t.isfinite().all() for t in (y, dq, dk, dv))


def test_later_tokens_and_padding_change_nothing():
    q, k, v = (t.detach() for t in tokens())
    y = exact_yat(q, k, v, 1e-6, causal=True)
    for t in (q, k, v):
        t[:, :, 40:] *= -3.0
    again = exact_yat(q, k, v, 1e-6, causal=True)
    assert torch.equal(y[:, :, :40], again[:, :, :40])
    padding = torch.zeros(1, 67, dtype=torch.bool)
    padding[:, 40:] = True
    masked = exact_yat(q, k, v, 1e-6, causal=False, key_padding_mask=padding)
    cut = exact_yat(q, k[:, :, :40], v[:, :, :40], 1e-6, causal=False)
    torch.testing.assert_close(masked, cut)


def test_the_operator_is_what_torch_takes_it_for():
    q, k, v = tokens(lengths=(5, 5))
    torch.library.opcheck(torch.ops.slay.exact_yat.default, (q, k, v, 1e-3, True, None, None, True))
