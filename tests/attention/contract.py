"""What the contract's tests share: every registered mechanism, small inputs, relative errors."""

from __future__ import annotations

import pytest
import torch

import slay
from slay.attention.linearised import FeatureAttention

NAMES = slay.list_attention_types()
FEATURES = [n for n in NAMES if issubclass(slay.get_attention_class(n), FeatureAttention)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
every_mechanism = pytest.mark.parametrize("name", NAMES)
either_order = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def tolerance(mechanism, q, k, visible=None):
    """What rounding may do to outputs: where features have both signs, their sums lose digits.

    visible: (..., Lq, Lk), the pairs that count. A row loses what the sizes of its terms are of
    their sum, sum_j |phi(q_i)| . |phi(k_j)| over |sum_j phi(q_i) . phi(k_j)|, and a tenth of the
    tolerance is some roundings.
    """
    exact = TOLERANCE[q.dtype]
    if not isinstance(mechanism, FeatureAttention):
        return exact
    phi_q, phi_k = (
        mechanism.feature_map(
            mechanism.prepare(u), torch.arange(u.shape[2]).view(1, 1, -1)
        ).expand()
        for u in (q, k)
    )
    seen = 1.0 if visible is None else visible
    terms, z = phi_q.abs() @ phi_k.abs().mT * seen, phi_q @ phi_k.mT * seen
    if mechanism.causal:
        terms, z = terms.tril(), z.tril()
    terms, z = terms.sum(-1), z.sum(-1).abs()
    return max(exact, 0.1 * exact * float((terms[z > 0] / z[z > 0]).max()))


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
