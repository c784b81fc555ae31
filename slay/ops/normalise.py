"""Normalisation of kernel attention by its row sums."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divisor(z: Tensor) -> Tensor:
    """z, or inf where a row has no weight: (..., L, 1) -> (..., L, 1).

    Only normalisers below the smallest normal number of the dtype count as zero.
    """
    return z.masked_fill(z.abs() < torch.finfo(z.dtype).tiny, math.inf)


def normalise(o: Tensor, z: Tensor) -> Tensor:
    """y = o / z. A row without any weight gives zeros, and no gradient.

    o: (..., L, e); z: (..., L, 1).
    """
    return o / divisor(z)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums and exponentials: float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def saturating_cast(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast y; values beyond the range of float16 saturate at its largest finite number.

    If scores have both signs, outputs may be far larger than the values.
    """
    if dtype == torch.float16:
        limit = torch.finfo(dtype).max
        y = y.clamp(-limit, limit)
    return y.to(dtype)
