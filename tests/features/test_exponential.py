"""Positive random features: unbiased and positive."""

from __future__ import annotations

import pytest
import torch

from slay.features.exponential import positive_random_features
from slay.features.quadrature import laguerre


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("x", [-0.9, 0.0, 0.5, 0.9])
def test_the_mean_is_the_quadrature_sum(nodes, x):
    seeds, draw = 20_000, torch.Generator().manual_seed(1)
    s, weight = map(torch.from_numpy, laguerre(nodes, 1e-3))
    omega = torch.randn(seeds, nodes, 2, 3, generator=draw, dtype=torch.float64)
    q = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(1, seeds, 1, 3)
    k = torch.tensor([x, (1 - x * x) ** 0.5, 0.0], dtype=torch.float64).expand(1, seeds, 1, 3)
    phi_q, phi_k = (positive_random_features(u, omega, s, weight) for u in (q, k))
    assert phi_q.shape == (1, seeds, 1, 2 * nodes)
    assert (phi_q > 0).all()
    product = (phi_q * phi_k).sum(-1).flatten()
    claim = (weight * (2 * s * x).exp()).sum()
    assert abs(product.mean() - claim) < 4.0 * product.std() / seeds**0.5
