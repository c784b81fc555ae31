"""Random features of exponential kernels: unbiased, and positive where they claim it."""

from __future__ import annotations

import math

import pytest
import torch

from slay.features.exponential import Exponentials, FourierFeatures, SoftmaxFeatures, at_nodes
from slay.features.projections import gaussian
from slay.features.quadrature import laguerre

SEEDS = 20_000


def pair(x, dim=3):
    """Two unit vectors at cosine x, as many times as there are seeds: (1, SEEDS, 1, d)."""
    q, k = torch.zeros(2, 1, SEEDS, 1, dim, dtype=torch.float64)
    q[..., 0] = 1.0
    k[..., 0], k[..., 1] = x, (1 - x * x) ** 0.5
    return q, k


def assert_mean(product, claim):
    product = product.flatten()
    assert abs(product.mean() - claim) < 4.0 * product.std() / len(product) ** 0.5


def directions(*shape, orthogonal, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return gaussian((SEEDS, *shape), draw, orthogonal=orthogonal).double()


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("x", [-0.9, 0.0, 0.5, 0.9])
def test_positive_features_have_the_quadrature_sum_as_mean(nodes, x, orthogonal):
    s, weight = map(torch.from_numpy, laguerre(nodes, 1e-3))
    phi = Exponentials(*at_nodes(directions(nodes, 4, 3, orthogonal=orthogonal), s, weight))
    phi_q, phi_k = (phi(u, None).expand() for u in pair(x))
    assert phi_q.shape == (1, SEEDS, 1, 4 * nodes)
    assert (phi_q > 0).all()
    assert_mean((phi_q * phi_k).sum(-1), (weight * (2 * s * x).exp()).sum())


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("x", [-0.5, 0.8])
def test_softmax_features_are_unbiased(x, orthogonal):
    phi = SoftmaxFeatures(directions(4, 3, orthogonal=orthogonal))
    q, k = pair(x)
    q = 1.5 * q
    phi_q, phi_k = (phi(u, None).expand() for u in (q, k))
    assert_mean((phi_q * phi_k).sum(-1), math.exp(1.5 * x / math.sqrt(3)))


@pytest.mark.parametrize("x", [-0.5, 0.8, 1.0])
def test_fourier_features_are_unbiased(x):
    phi = FourierFeatures(directions(4, 3, orthogonal=False) / 0.7)
    phi_q, phi_k = (phi(u, None).expand() for u in pair(x))
    claim = math.exp(-(2 - 2 * x) / (2 * 0.7**2))
    if x == 1.0:
        torch.testing.assert_close((phi_q * phi_k).sum(-1), torch.ones(1, SEEDS, 1).double())
    else:
        assert_mean((phi_q * phi_k).sum(-1), claim)


def test_orthogonal_blocks_are_orthogonal_and_each_vector_gaussian():
    omega = gaussian((500, 7, 5), torch.Generator().manual_seed(0), orthogonal=True).double()
    for block in (omega[:, :5], omega[:, 5:]):
        gram = block @ block.mT
        assert (gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-4
    norms = omega.square().sum(-1).flatten()  # chi^2 with 5 degrees of freedom
    assert abs(norms.mean() - 5) < 4 * math.sqrt(10 / len(norms))
    assert abs(norms.var() - 10) < 1.5
    assert omega.mean((0, 1)).abs().max() < 4 / math.sqrt(500 * 7)
