"""Gauss–Laguerre nodes for 1 / (C - 2x)."""

from __future__ import annotations

import numpy as np
import pytest

from slay.errors import SlayError
from slay.features.quadrature import laguerre
from slay.theory import yat_kernel


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 0.5])
def test_more_nodes_come_closer_to_the_kernel(epsilon):
    x = np.linspace(-1.0, 0.5, 101)
    errors = []
    for nodes in (1, 2, 4, 8, 16):
        s, w = laguerre(nodes, epsilon)
        assert (s > 0).all()
        assert (w > 0).all()
        sums = x**2 * (w * np.exp(2.0 * s * x[:, None])).sum(-1)
        errors.append(np.abs(sums - yat_kernel(x, epsilon)).max())
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 1e-3


@pytest.mark.parametrize(("nodes", "epsilon"), [(0, 1e-3), (2, 0.0), (2, -1.0), (2, float("nan"))])
def test_senseless_arguments_are_refused(nodes, epsilon):
    with pytest.raises(SlayError, match="must be"):
        laguerre(nodes, epsilon)
