"""What kernels can take of a mechanism's features, and whether they may be used unasked.

Apart from `slay.ops.select`, so that what has no kernels does not depend on their code.
"""

from __future__ import annotations

from torch import Tensor

from slay.ops.triton.spec import FeatureSpec
from slay.ops.verification import unverified

WIDEST_CUBIC = 32  # heads
WIDEST_FACTOR = 64  # features of either factor of a product
WIDEST_DENSE = 512  # features that are no product


def spec_limit(spec: FeatureSpec | None, q: Tensor, v: Tensor) -> str | None:
    """Why kernels cannot take a mechanism's features, if they cannot."""
    head_dim = q.shape[-1]
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


def verification_limit(backend: str, spec: FeatureSpec, q: Tensor, v: Tensor) -> str | None:
    """Why kernels are not used unasked for such features, if this device did not verify them."""
    if backend != "auto":
        return None
    from slay.ops.triton.launch import keys_of

    return unverified(q.device, keys_of(spec, q, v))
