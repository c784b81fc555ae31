"""Gauss–Laguerre nodes for the Bernstein representation 1/y = ∫_0^∞ exp(-s y) ds.

With y = C - 2x: x^2 / (C - 2x) = ∫ exp(-s C) x^2 exp(2 s x) ds ≈ sum_r w_r x^2 exp(2 s_r x).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slay.errors import SlayError, positive, whole


def laguerre(num_nodes: int, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes s_r = t_r / C and weights w_r = a_r / C, r = 1..R, with C = 2 + epsilon."""
    num_nodes = whole("num_quadrature_nodes", num_nodes, 1)
    epsilon = positive("epsilon", epsilon)
    with np.errstate(all="ignore"):
        t, a = np.polynomial.laguerre.laggauss(num_nodes)
    if not np.isfinite(a).all():
        raise SlayError(f"num_quadrature_nodes = {num_nodes}: too many, their weights underflow")
    return t / (2.0 + epsilon), a / (2.0 + epsilon)
