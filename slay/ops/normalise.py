"""The row sum that every kernel attention is divided by."""

from __future__ import annotations

import torch
from torch import Tensor

DELTA = 1e-12


def divisor(z: Tensor) -> Tensor:
    """sign(z) max(|z|, DELTA): (..., L, 1) -> (..., L, 1)."""
    return torch.where(z.abs() < DELTA, torch.where(z < 0, -DELTA, DELTA), z)


def normalise(o: Tensor, z: Tensor) -> Tensor:
    """y = o / z, with |z| kept at DELTA or more and the sign of z kept.

    o: (..., L, e); z: (..., L, 1). A row without any weight (o = z = 0) gives zeros.
    """
    return o / divisor(z)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums and exponentials are kept in float32 or better."""
    return torch.promote_types(dtype, torch.float32)
