"""The row sum that every kernel attention is divided by."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divisor(z: Tensor) -> Tensor:
    """z, or inf where a row has no weight: (..., L, 1) -> (..., L, 1).

    However small, a normaliser is one as long as its dtype holds it to full precision.
    """
    return z.masked_fill(z.abs() < torch.finfo(z.dtype).tiny, math.inf)


def normalise(o: Tensor, z: Tensor) -> Tensor:
    """y = o / z. A row without any weight gives zeros, and no gradient.

    o: (..., L, e); z: (..., L, 1).
    """
    return o / divisor(z)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums and exponentials are kept in float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def saturating_cast(y: Tensor, dtype: torch.dtype) -> Tensor:
    """y as outputs of a dtype: what float16 cannot hold becomes the largest number that it can.

    Where scores have both signs, outputs may be far larger than the values.
    """
    if dtype == torch.float16:
        limit = torch.finfo(dtype).max
        y = y.clamp(-limit, limit)
    return y.to(dtype)
