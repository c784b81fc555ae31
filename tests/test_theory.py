"""The kernel on the sphere: known moments, optimal projection, spectrum and Mercer bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from slay.errors import SlayError
from slay.theory import (
    mercer_bound,
    multiplicity,
    quadratic_projection,
    quadratic_shift,
    sphere_rule,
    yat_kernel,
)


@given(dim=st.integers(2, 200), epsilon=st.floats(1e-5, 10.0))
def test_moments_of_the_cosine(dim, epsilon):
    x, w = sphere_rule(dim, epsilon)
    known = [1.0, 0.0, 1.0 / dim, 0.0, 3.0 / (dim * (dim + 2))]
    assert [w @ x**n for n in range(5)] == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("dim", [4, 9, 32])
@pytest.mark.parametrize("epsilon", [1e-2, 1.0])
def test_means_agree_with_adaptive_quadrature(dim, epsilon):
    def density(x):
        return (1.0 - x * x) ** ((dim - 3) / 2)

    x, w = sphere_rule(dim, epsilon)
    mass = quad(density, -1.0, 1.0)[0]
    for power in (1, 2):
        mean = quad(
            lambda t, p=power: density(t) * yat_kernel(t, epsilon) ** p,
            -1.0,
            1.0,
            points=[0.9, 0.99],
            limit=200,
        )[0]
        assert w @ yat_kernel(x, epsilon) ** power == pytest.approx(mean / mass, rel=1e-7)


@given(
    dim=st.integers(2, 128),
    epsilon=st.floats(1e-4, 1.0),
    step=st.tuples(*[st.floats(-0.1, 0.1)] * 3),
)
def test_no_other_quadratic_is_nearer(dim, epsilon, step):
    x, w = sphere_rule(dim, epsilon)
    best = np.array(quadratic_projection(dim, epsilon))

    def loss(c):
        return w @ (yat_kernel(x, epsilon) - c[0] - c[1] * x - c[2] * x**2) ** 2

    assert loss(best + np.array(step)) >= loss(best) * (1.0 - 1e-9)


@pytest.mark.parametrize(("dim", "beta"), [(16, 0.078), (32, 0.043), (64, 0.022)])
def test_known_shifts(dim, beta):
    assert quadratic_shift(dim, 1e-3) == pytest.approx(beta, abs=6e-4)


@pytest.mark.parametrize("degree", range(1, 9))
def test_known_multiplicities(degree):
    assert [multiplicity(d, degree) for d in (2, 3, 4)] == [2, 2 * degree + 1, (degree + 1) ** 2]


KNOWN_BOUNDS = {
    16: {136: 0.46, 152: 0.39, 1024: 0.20},
    32: {33: 0.81, 256: 0.64, 528: 0.32, 561: 0.26, 1024: 0.25, 4096: 0.18},
    64: {1024: 0.61, 2144: 0.18},
}


@pytest.mark.parametrize("dim", KNOWN_BOUNDS)
def test_known_bounds(dim):
    found = {m: mercer_bound(dim, 1e-3, m) for m in KNOWN_BOUNDS[dim]}
    assert found == pytest.approx(KNOWN_BOUNDS[dim], abs=6e-3)


@pytest.mark.parametrize("dim", [3, 4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 0.1])
def test_the_best_quadratic_attains_the_bound_and_a_square_misses_it_by_one_constant(dim, epsilon):
    x, w = sphere_rule(dim, epsilon)
    k = yat_kernel(x, epsilon)
    c0, c1, c2 = quadratic_projection(dim, epsilon)
    beta, floor = quadratic_shift(dim, epsilon), c1**2 / (4.0 * c2)
    assert c1 > 0
    assert c2 > 0
    assert c0 <= floor
    best = w @ (k - c0 - c1 * x - c2 * x**2) ** 2
    rank = (dim + 1) * (dim + 2) // 2 - 1
    assert np.sqrt(best / (w @ k**2)) == pytest.approx(mercer_bound(dim, epsilon, rank), abs=1e-6)
    square = w @ (k - c2 * (x + beta) ** 2) ** 2
    assert square == pytest.approx(best + (floor - c0) ** 2, rel=1e-7)


@given(dim=st.integers(3, 64), epsilon=st.floats(1e-4, 1.0), m=st.integers(0, 3000))
def test_more_features_never_raise_the_bound(dim, epsilon, m):
    more, fewer = mercer_bound(dim, epsilon, m + 1), mercer_bound(dim, epsilon, m)
    assert 0.0 <= more <= fewer <= 1.0


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_all_harmonics_together_are_the_kernel(dim):
    everything = sum(multiplicity(dim, degree) for degree in range(64))
    assert mercer_bound(dim, 0.1, everything) < 1e-6
    assert mercer_bound(dim, 0.1, 0) == 1.0
    with pytest.raises(SlayError, match="need more than 64 degrees"):
        mercer_bound(dim, 0.1, everything + 1)


def test_the_bound_is_the_error_of_the_best_matrix_of_that_rank():
    """Against eigenvalues of the kernel on a quadrature grid of the sphere in R^3."""
    height, weight = np.polynomial.legendre.leggauss(14)
    angle = np.arange(28) * 2.0 * np.pi / 28
    ring = np.sqrt(1.0 - height**2)[:, None]
    point = np.stack(
        [ring * np.cos(angle), ring * np.sin(angle), np.broadcast_to(height[:, None], (14, 28))],
        axis=-1,
    ).reshape(-1, 3)
    root = np.sqrt(np.repeat(weight, 28) / (2.0 * 28))
    matrix = root[:, None] * yat_kernel(point @ point.T, 0.3) * root
    energy = np.sort(np.linalg.eigvalsh(matrix) ** 2)[::-1]
    for m in (0, 1, 3, 5, 9, 20):
        expected = np.sqrt(energy[m:].sum() / energy.sum())
        assert mercer_bound(3, 0.3, m) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("dim", "epsilon"), [(1, 1e-3), (8, 0.0), (8, -1.0), (8, float("nan"))])
def test_senseless_arguments_are_refused(dim, epsilon):
    with pytest.raises(SlayError, match=r"at least 2|must be positive"):
        quadratic_shift(dim, epsilon)
