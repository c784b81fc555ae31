"""The spherical Yat kernel on the sphere: its best quadratic, its spectrum, the Mercer bound.

For independent uniform unit vectors in R^d, x = q·k has density proportional to
(1 - x^2)^((d-3)/2). With x = cos t the weight is sin(t)^(d-2) on [0, pi], and the trapezoid rule
converges geometrically for even d: the integrand is smooth and periodic in t, and the kernel's
nearest pole lies sqrt(eps) away from the real axis. For odd d the error falls as step^(d-1).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from slay.errors import SlayError

Array = NDArray[np.float64]


def yat_kernel(x: Array, epsilon: float) -> Array:
    """k(x) = x^2 / (C - 2x), C = 2 + epsilon, for cosines x of any shape."""
    return x**2 / (2.0 + epsilon - 2.0 * x)


@lru_cache(maxsize=32)
def sphere_rule(dim: int, epsilon: float) -> tuple[Array, Array]:
    """Nodes x and weights w (they sum to one) for means over x = q·k on the sphere in R^dim.

    The step resolves the kernel's pole; for even dim the error is about
    exp(-2 pi sqrt(eps) / step).
    """
    if dim < 2:
        raise SlayError(f"dim = {dim}: the sphere needs at least 2 dimensions")
    if not 0 < epsilon < math.inf:
        raise SlayError(f"epsilon = {epsilon}: must be positive")
    n = min(max(4096, math.ceil(20.0 / math.sqrt(epsilon))), 1 << 21)
    t = np.linspace(0.0, math.pi, n + 1)
    w = np.sin(t) ** (dim - 2)
    w[[0, -1]] /= 2.0
    return np.cos(t), w / w.sum()


def quadratic_projection(dim: int, epsilon: float) -> tuple[float, float, float]:
    """(c0, c1, c2): the polynomial c0 + c1 x + c2 x^2 nearest to the kernel in mean square.

    1, x and x^2 - 1/d are orthogonal under the density of x.
    """
    x, w = sphere_rule(dim, epsilon)
    k = yat_kernel(x, epsilon)
    p2 = x**2 - 1.0 / dim
    c2 = float(w @ (k * p2) / (w @ p2**2))
    c1 = float(w @ (k * x) / (w @ x**2))
    c0 = float(w @ k) - c2 / dim
    return c0, c1, c2


def quadratic_shift(dim: int, epsilon: float) -> float:
    """beta = c1 / (2 c2), at least 0: then (x + beta)^2 has the projection's shape."""
    _, c1, c2 = quadratic_projection(dim, epsilon)
    return max(0.0, c1 / (2.0 * c2))


def multiplicity(dim: int, degree: int) -> int:
    """N(d, l): the number of independent spherical harmonics of a degree in R^dim."""
    if degree == 0:
        return 1
    return (2 * degree + dim - 2) * math.comb(degree + dim - 3, degree - 1) // degree


@lru_cache(maxsize=32)
def _energies(dim: int, epsilon: float, degrees: int) -> tuple[float, Array]:
    """E[k^2] and the share of it in one harmonic of each degree (Funk–Hecke)."""
    x, w = sphere_rule(dim, epsilon)
    k = yat_kernel(x, epsilon)
    previous, current = np.zeros_like(x), np.ones_like(x)  # normalised so that P_l(1) = 1
    eigenvalues = []
    for degree in range(degrees):
        eigenvalues.append(float(w @ (k * current)))
        a = 2 * degree + dim - 2
        following = (a * x * current - degree * previous) / (degree + dim - 2) if a else x
        previous, current = current, following
    return float(w @ k**2), np.array(eigenvalues) ** 2


def mercer_bound(dim: int, epsilon: float, num_features: int, degrees: int = 64) -> float:
    """Smallest relative Hilbert–Schmidt error that a map with `num_features` features can have.

    The kernel's eigenvalues on the sphere are lambda_l with multiplicity N(d, l), and
    E[k^2] = sum_l N(d, l) lambda_l^2. A rank-m approximation keeps at best the m largest
    (Eckart–Young), so its squared relative error is the remaining energy over the total. Raises
    ValueError if `degrees` degrees have fewer than `num_features` harmonics.
    """
    total, energy = _energies(dim, epsilon, degrees)
    counts = np.array([multiplicity(dim, degree) for degree in range(degrees)], dtype=np.float64)
    if num_features > counts.sum():
        raise SlayError(f"{num_features} features need more than {degrees} degrees at d = {dim}")
    order = np.argsort(-energy, kind="stable")
    taken = np.diff(np.minimum(np.cumsum(counts[order]), num_features), prepend=0.0)
    return math.sqrt(max(0.0, 1.0 - float(taken @ energy[order]) / total))
