"""Maps that act on each coordinate alone, and the projection to the sphere."""

from __future__ import annotations

import math

from torch import Tensor


def unit(u: Tensor) -> Tensor:
    """u / ‖u‖ over the last axis; a zero vector stays zero, and so does its gradient.

    Norms whose squares leave the range of the dtype (in float32 below 1e-19 or above 1e19) count
    as zero.
    """
    norm = u.norm(dim=-1, keepdim=True)
    return u / norm.masked_fill(norm == 0.0, math.inf)


LOWEST = -60.0
"""Lower bound of key exponents: weights at the bound are tiny and equal, but not all zero.

The output of a query whose keys all lie below is therefore the running mean of their values.
"""
