"""What stands in for x^2: anchors on average, the shifted square exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slay.features.elementwise import unit
from slay.features.polynomial import anchor_features, shifted_square


@pytest.mark.parametrize("dim", [2, 4, 8])
@pytest.mark.parametrize("x", [-1.0, -0.3, 0.0, 0.8])
def test_anchors_have_the_mean_they_claim(dim, x):
    draw = torch.Generator().manual_seed(0)
    anchors = unit(torch.randn(20_000, 2, dim, generator=draw, dtype=torch.float64))
    q, k = torch.zeros(2, 1, 20_000, 1, dim, dtype=torch.float64)
    q[..., 0] = 1.0
    k[..., 0], k[..., 1] = x, (1.0 - x * x) ** 0.5
    product = (anchor_features(q, anchors) * anchor_features(k, anchors)).sum(-1).flatten()
    claim = (1.0 + 2.0 * x * x) / (dim * (dim + 2))
    assert abs(product.mean() - claim) < 4.0 * product.std() / len(product) ** 0.5


@given(beta=st.floats(0.0, 4.0), dim=st.integers(1, 9), seed=st.integers(0, 999))
def test_shifted_square_is_exact(beta, dim, seed):
    draw = torch.Generator().manual_seed(seed)
    q, k = unit(torch.randn(2, 3, dim, generator=draw, dtype=torch.float64))
    phi_q, phi_k = shifted_square(q, beta), shifted_square(k, beta)
    expected = (q @ k.mT + beta) ** 2
    assert phi_q.expand().shape[-1] == (dim + 1) * (dim + 2) // 2
    torch.testing.assert_close(phi_q.scores(phi_k), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(phi_q.expand() @ phi_k.expand().mT, expected, rtol=1e-12, atol=1e-12)
