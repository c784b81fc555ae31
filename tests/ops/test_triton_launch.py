"""What is launched for a call of linear attention: decay, segments, grids."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.features.forms import Dense, Product
from slay.features.spec import FeatureSpec
from slay.ops.naive import naive_attention
from slay.ops.triton import configs, launch, state_passing
from slay.ops.triton.decode import decode_attention

H, K, E, LENGTH = 2, 1, 5, 150
SPECS = ["dense", "product", "polynomial"]


def drawn(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=draw)


def call(kind):
    """q, k, v and log_decay that want gradients, and what makes a spec of q and k."""
    q, k, v = drawn(1, H, LENGTH, 6), drawn(1, K, LENGTH, 6, seed=1), drawn(1, K, LENGTH, E, seed=2)
    log_decay = -drawn(1, K, LENGTH, seed=3)
    log_decay[..., 40] = -1e4  # forgets everything
    return [t.requires_grad_() for t in (q, k, v, log_decay)]


def spec_of(kind, q, k):
    if kind == "polynomial":
        return FeatureSpec(f="identity", degree=2, coefficients=(0.25, 1.0, 1.0, 0.0))
    if kind == "product":
        parts = [Product(Dense(u[..., :2]), Dense(u[..., 2:])) for u in (q, k)]
        return FeatureSpec(
            p="given", given_p=(parts[0].a.phi, parts[1].a.phi),
            given_f=(parts[0].b.phi, parts[1].b.phi),
        )  # fmt: skip
    return FeatureSpec(given_f=(q, k))


def scores_of(kind, q, k, log_decay):
    """The specification's scores, decayed."""
    k = k.repeat_interleave(H // K, dim=1)
    x = q @ k.mT
    if kind == "product":
        x = (q[..., :2] @ k[..., :2].mT) * (q[..., 2:] @ k[..., 2:].mT)
    if kind == "polynomial":
        x = (x + 0.5).square()
    G = log_decay.cumsum(-1).repeat_interleave(H // K, dim=1)
    there = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    gap = (G.unsqueeze(-1) - G.unsqueeze(-2)).masked_fill(~there, 0.0)
    return x * gap.exp()


def close(found, wanted, bound=2e-5):
    assert found.isfinite().all()
    found, wanted = found.detach().double(), wanted.detach()
    error = (found - wanted).norm() / wanted.norm().clamp(min=1e-6)
    assert float(error) <= bound


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("chunk", [0, 128], ids=["one chunk", "by states"])
@pytest.mark.parametrize("lengths", [None, [30, 120]], ids=["one sequence", "packed"])
def test_decay(kind, chunk, lengths):
    """Outputs, and gradients of all that decays and of how fast, against the formula."""
    inputs = call(kind)
    q, k, v, log_decay = inputs
    y, _ = launch.kernel_attention(
        q, k, v, spec_of(kind, q, k), causal=True, chunk_size=chunk, log_decay=log_decay,
        lengths=lengths,
    )  # fmt: skip
    exact = [t.detach().double().requires_grad_() for t in inputs]
    bounds = None if lengths is None else [0, *accumulate(lengths)]
    wanted = naive_attention(
        scores_of(kind, exact[0], exact[1], exact[3]), exact[2], causal=True, cu_seqlens=bounds
    )  # fmt: skip
    close(y, wanted)
    g = drawn(*y.shape, seed=5) - 0.5
    found = torch.autograd.grad(y, inputs, g)
    for a, b in zip(found, torch.autograd.grad(wanted, exact, g.double()), strict=True):
        close(a, b)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("chunk", [0, 128], ids=["one chunk", "by states"])
def test_a_state_decays(kind, chunk):
    """A sequence in two pieces and a token is the same as in one, and so are its gradients."""
    inputs = call(kind)
    q, k, v, log_decay = inputs
    first, second, last = slice(0, 129), slice(129, -1), slice(LENGTH - 1, None)
    ys, state = [], None
    for part in (first, second):
        spec = spec_of(kind, q[:, :, part], k[:, :, part])
        y, state = launch.kernel_attention(
            q[:, :, part], k[:, :, part], v[:, :, part], spec, causal=True, chunk_size=chunk,
            log_decay=log_decay[..., part], initial_state=state, output_final_state=True,
        )  # fmt: skip
        ys.append(y)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    wanted = naive_attention(
        scores_of(kind, exact[0], exact[1], exact[3]), exact[2], causal=True
    )  # fmt: skip
    with torch.no_grad():
        parts = [t[:, :, last].detach() for t in (q, k, v)]
        y, _ = decode_attention(
            *parts, spec_of(kind, *parts[:2]), state.detach(), log_decay=log_decay[..., last]
        )  # fmt: skip
    close(y, wanted[:, :, last])
    y = torch.cat(ys, dim=2)
    close(y, wanted[:, :, :-1])
    g = drawn(*y.shape, seed=5) - 0.5
    found = torch.autograd.grad(y, inputs, g)
    wanted = torch.autograd.grad(wanted[:, :, :-1], exact, g.double())
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("decays", [False, True])
def test_states_pass_over_many_chunks(reverse, decays):
    """More chunks than are read at once, of two packed sequences, from a first state."""
    lengths, C, N = [900, 1500], 128, 70
    bounds = (0, *accumulate(lengths))
    spans, runs = launch.packed_chunks(bounds, C, torch.device("cpu"))
    chunks, L = len(spans), bounds[-1]
    own, first = drawn(K, chunks, N), drawn(K, 2, N, seed=1)
    G = -drawn(K, L, seed=2) if decays else None
    X, final = own.clone(), torch.full((K, 2, N), torch.nan)
    state_passing.kernel(
        lambda tiles: (-(-N // tiles["W"]) * 2 * K,), "dense 32 values 32 fp32", L,
        X=X, initial=first, final=final, decay=G, spans=spans, runs=runs, chunks=chunks,
        sequences=2, N=N, C=C, L=L, REVERSE=reverse,
    )  # fmt: skip
    wanted = torch.empty_like(own)
    for i, (lo, hi) in enumerate(pairwise(runs.tolist())):
        total = first[:, i].double()
        for n in reversed(range(lo, hi)) if reverse else range(lo, hi):
            wanted[:, n] = total
            kept = 1.0 if G is None else G[:, spans[n, 1] - 1].double().exp().unsqueeze(-1)
            total = kept * total + own[:, n].double()
        close(final[:, i], total)
    close(X, wanted.double())


@pytest.mark.parametrize("p", ["none", "given"])
def test_segments_are_one_sequence(p, monkeypatch):
    """Where no gradient is wanted a long sequence is cut, so that few factors are held.

    One of which a factor is given is not: it is held already.
    """
    q, k, v, _ = (t.detach() for t in call("polynomial"))
    spec = FeatureSpec(f="identity", degree=2, coefficients=(0.25, 1.0, 1.0, 0.0))
    if p == "given":
        spec = FeatureSpec(p="given", given_p=(q[..., :2], k[..., :2]), f="identity")
    whole = launch.kernel_attention(q, k, v, spec, causal=True, output_final_state=True)
    monkeypatch.setattr(launch, "SEGMENT", 64)
    cut = launch.kernel_attention(q, k, v, spec, causal=True, output_final_state=True)
    for a, b in zip(cut, whole, strict=True):
        close(a, b.double())


def test_any_number_of_heads():
    """Programs are numbered along one axis: the others of a grid end at 65,535."""
    B, heads, length = 2**15, 8, 300
    q, k, v = (torch.empty(B, heads, length, n, device="meta") for n in (32, 32, 16))
    with configs.recording() as recorded:
        made = launch.LinearCall(
            None, q, None, k, v, None, None, None, None, None, "dense", 0, (0.0,) * 4, True, 128,
            True,
        )  # fmt: skip
        y, z, seen, last = made.forward()
        made.backward(y, z, seen, y, last)
    for one in recorded:
        tiles = dict(one.kernel.candidates(one.key)[0].tiles)
        (programs,) = one.grid(tiles)
        assert B * heads <= programs < 2**31
    assert {one.kernel.name for one in recorded} == {
        "chunk_state", "state_passing", "chunk_output", "query_bwd", "key_bwd",
    }  # fmt: skip


def test_packed_sequences_are_cut_into_chunks():
    spans, runs = launch.packed_chunks((0, 3, 300), 128, torch.device("cpu"))
    assert spans.tolist() == [[0, 3, 0], [3, 131, 1], [131, 259, 1], [259, 300, 1]]
    assert runs.tolist() == [0, 1, 4]
    assert [b - a for a, b in pairwise(runs.tolist())] == [1, 3]
