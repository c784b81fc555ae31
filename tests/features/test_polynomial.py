"""What stands in for x^2: on average, in the limit, or exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slay.features.elementwise import unit
from slay.features.polynomial import (
    MaclaurinSquares,
    NystromSquares,
    ShiftedSquare,
    SketchedSquares,
    SquaredProjections,
    inverse_root,
    sketch_spectrum,
)

SEEDS, P = 20_000, 6


def anchors(dim, draw):
    a = unit(torch.randn(SEEDS, P, dim, generator=draw, dtype=torch.float64)) / P**0.25
    return SquaredProjections(a)


def maclaurin(dim, draw):
    signs = torch.randint(2, (2, SEEDS, P, dim), generator=draw) * 2.0 - 1.0
    return MaclaurinSquares(signs.double() / P**0.25)


def sketch(dim, draw):
    bucket = torch.randint(P, (2, SEEDS, dim), generator=draw)
    sign = torch.randint(2, (2, SEEDS, dim), generator=draw) * 2.0 - 1.0
    spectra = [sketch_spectrum(bucket[i], sign[i], P).double() for i in range(2)]
    return SketchedSquares(torch.stack(spectra), P)


CLAIMS = {
    anchors: lambda x, dim: (1.0 + 2.0 * x * x) / (dim * (dim + 2)),
    maclaurin: lambda x, dim: x * x,
    sketch: lambda x, dim: x * x,
}


@pytest.mark.parametrize("map_of", CLAIMS)
@pytest.mark.parametrize("dim", [2, 4, 8])
@pytest.mark.parametrize("x", [-1.0, -0.3, 0.0, 0.8])
def test_random_maps_have_the_mean_they_claim(map_of, dim, x):
    q, k = torch.zeros(2, 1, SEEDS, 1, dim, dtype=torch.float64)
    q[..., 0] = 0.6
    q[..., 1] = 0.8
    k[..., 0], k[..., 1] = (
        0.6 * x - 0.8 * (1.0 - x * x) ** 0.5,
        0.8 * x + 0.6 * (1.0 - x * x) ** 0.5,
    )
    features = map_of(dim, torch.Generator().manual_seed(0))
    phi_q, phi_k = (features(u, None).expand() for u in (q, k))
    assert phi_q.shape == (1, SEEDS, 1, P)
    product = (phi_q * phi_k).sum(-1).flatten()
    assert abs(product.mean() - CLAIMS[map_of](x, dim)) < 4.0 * product.std() / SEEDS**0.5 + 1e-7


@given(dim=st.integers(1, 6), size=st.integers(1, 9), seed=st.integers(0, 999))
def test_the_spectrum_of_a_sketch_has_its_inner_products(dim, size, seed):
    """Against count sketches and a circular convolution by FFT, as published."""
    draw = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, (2, 1, dim), generator=draw)
    sign = torch.randint(2, (2, 1, dim), generator=draw) * 2.0 - 1.0
    u = torch.randn(1, 1, 5, dim, generator=draw, dtype=torch.float64)
    counts = [
        torch.zeros(dim, size, dtype=torch.float64).scatter_(1, b.T, s.double().T)
        for b, s in zip(bucket, sign, strict=True)
    ]
    ffts = [torch.fft.fft(u @ c) for c in counts]
    published = torch.fft.ifft(ffts[0] * ffts[1]).real
    spectra = [sketch_spectrum(*c, size).double() for c in zip(bucket, sign, strict=True)]
    ours = SketchedSquares(torch.stack(spectra), size)(u, None).expand()
    assert ours.shape == published.shape
    torch.testing.assert_close(ours @ ours.mT, published @ published.mT, rtol=1e-5, atol=1e-5)


def test_nystrom_with_enough_anchors_is_exact():
    draw = torch.Generator().manual_seed(0)
    a = unit(torch.randn(1, 20, 4, generator=draw, dtype=torch.float64))  # the squares span 10
    u = unit(torch.randn(1, 1, 30, 4, generator=draw, dtype=torch.float64))
    phi = NystromSquares(a, inverse_root(a, 1e-10))(u, None).expand()
    torch.testing.assert_close(phi @ phi.mT, (u @ u.mT).square(), rtol=1e-6, atol=1e-6)


def test_nystrom_error_falls_with_the_anchors():
    draw = torch.Generator().manual_seed(0)
    a = unit(torch.randn(1, 32, 8, generator=draw, dtype=torch.float64))
    u = unit(torch.randn(1, 1, 200, 8, generator=draw, dtype=torch.float64))
    errors = []
    for p in (4, 8, 16, 32):
        phi = NystromSquares(a[:, :p], inverse_root(a[:, :p], 1e-8))(u, None).expand()
        errors.append((phi @ phi.mT - (u @ u.mT).square()).norm())
    assert errors == sorted(errors, reverse=True)


@given(beta=st.floats(0.0, 4.0), dim=st.integers(1, 9), seed=st.integers(0, 999))
def test_shifted_square_is_exact(beta, dim, seed):
    draw = torch.Generator().manual_seed(seed)
    q, k = unit(torch.randn(2, 3, dim, generator=draw, dtype=torch.float64))
    phi_q, phi_k = (ShiftedSquare(beta)(u, None) for u in (q, k))
    expected = (q @ k.mT + beta) ** 2
    n = dim + (beta > 0)
    assert phi_q.expand().shape[-1] == n * (n + 1) // 2
    torch.testing.assert_close(phi_q.scores(phi_k), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(phi_q.expand() @ phi_k.expand().mT, expected, rtol=1e-12, atol=1e-12)
