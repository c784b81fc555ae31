"""Maps that act on each coordinate alone, and the projection to the sphere."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def unit(u: Tensor) -> Tensor:
    """u / ‖u‖ over the last axis; a zero vector stays zero."""
    return F.normalize(u, dim=-1, eps=1e-12)


def elu_plus_one(u: Tensor) -> Tensor:
    """elu(u) + 1 > 0 (Katharopoulos et al. 2020, eq. 7)."""
    return F.relu(u) + (-F.relu(-u)).exp()  # cheaper to differentiate than elu
