"""Limits of the kernels: which features they support, and whether these are verified.

Separate from `slay.ops.select`, so that mechanisms without kernels do not depend on kernel code.
"""

from __future__ import annotations

import torch

from slay.features.spec import FeatureSpec
from slay.ops.verification import unverified

WIDEST_CUBIC = 32  # head dimension
WIDEST_FACTOR = 64  # features of either factor of a product
WIDEST_DENSE = 512  # features of a dense map


def spec_limit(spec: FeatureSpec | None, head_dim: int) -> str | None:
    """Return why kernels do not support features of heads of this dimension, or None."""
    if spec is None:
        return "kernels know features that are a vector or an outer product of two, not these"
    if spec.degree == 3 and head_dim > WIDEST_CUBIC:
        return f"kernels take cubic features of heads up to {WIDEST_CUBIC}, not {head_dim}"
    p, f = spec.widths(head_dim)
    if spec.score == "product" and max(p, f) > WIDEST_FACTOR:
        return f"kernels take factors of up to {WIDEST_FACTOR} features, not {p} x {f}"
    if spec.score == "dense" and f > WIDEST_DENSE:
        return f"kernels take up to {WIDEST_DENSE} features that are no product, not {f}"
    return None


def verification_limit(
    spec: FeatureSpec, d: int, e: int, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Return why backend="auto" does not use kernels for these features, or None if verified."""
    from slay.ops.triton.launch import keys_of

    return unverified(device, keys_of(spec, d, e, dtype))
