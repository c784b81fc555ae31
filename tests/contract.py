"""What the contract's tests share: every registered mechanism, small inputs, relative errors."""

from __future__ import annotations

import pytest
import torch

import slay
from slay.attention.linear import LinearAttention
from slay.attention.yat_cubic import CubicAttention

NAMES = slay.list_attention_types()
FEATURES = [n for n in NAMES if issubclass(slay.get_attention_class(n), LinearAttention)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
every_mechanism = pytest.mark.parametrize("name", NAMES)
either_order = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def tolerance(mechanism, q, k, visible=1.0, exact=None):
    """What rounding may do to outputs: sums of both signs have fewer digits than their terms.

    Terms are scores; of a kernel that vanishes at x = 0 but not its features, those of a score.
    visible: (..., Lq, Lk), the pairs that count. exact: for sums of one sign.
    """
    exact = TOLERANCE[q.dtype] if exact is None else exact
    vanishing = isinstance(mechanism, CubicAttention) and mechanism.beta == 0.0
    if mechanism.nonnegative and not vanishing:
        return exact
    scores = mechanism.scores(q, k) * visible
    if not vanishing:
        return 10 * exact * lost(scores.abs(), scores)
    position = torch.zeros(1, 1, 1, device=q.device)
    phi = (mechanism.feature_map(u, position).expand().abs() for u in (q, k))
    return max(exact, 0.01 * exact * lost(next(phi) @ next(phi).mT * visible, scores))


def lost(terms, scores):
    """How many times larger terms are than the scores that they add up to, row by row."""
    z, size = scores.tril().sum(-1).abs(), terms.tril().sum(-1)
    return float((size[z > 0] / z[z > 0]).max())


def heads(name, head_dim=6, n_heads=2, chunk_size=None, **options):
    mechanism = slay.get_attention_class(name).heads_only(head_dim, n_heads, **options)
    if chunk_size is not None:
        mechanism.chunk_size = chunk_size  # exact mechanisms have none
    return mechanism


def qkv(
    length, *, keys=None, head_dim=6, value_dim=6, batch=2, n_heads=2, kv=None, seed=0, dtype=None
):
    """q: (B, H, L, d), k: (B, K, Lk, d), v: (B, K, Lk, e)."""
    draw = torch.Generator().manual_seed(seed)
    kv = n_heads if kv is None else kv
    keys = length if keys is None else keys
    shapes = [
        (batch, n_heads, length, head_dim),
        (batch, kv, keys, head_dim),
        (batch, kv, keys, value_dim),
    ]
    return [torch.randn(s, generator=draw, dtype=dtype or torch.float32) for s in shapes]


def assert_near(found, expected, tolerance):
    """‖found - expected‖ <= tolerance ‖expected‖."""
    assert found.shape == expected.shape
    assert found.isfinite().all()
    assert (found - expected).norm() <= tolerance * expected.norm()


def one_line(caught, *words):
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message
