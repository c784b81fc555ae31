"""Polynomial maps on unit vectors: what stands in for the factor x^2 of the kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slay.features.forms import Square


def anchor_features(u: Tensor, anchors: Tensor) -> Tensor:
    """P^{-1/2} (a_i·u)^2 for unit anchors a_i.

    u: (B, H, L, d); anchors: (H, P, d). Returns (B, H, L, P). Over random anchors the inner
    product has mean (1 + 2 x^2) / (d (d + 2)), not x^2: it keeps a flat floor.
    """
    return (u @ anchors.mT).square() / math.sqrt(anchors.shape[-2])


def shifted_square(u: Tensor, beta: float) -> Square:
    """Exact features of (x + beta)^2: the degree-2 monomials of (u, sqrt beta).

    u: (B, H, L, d) unit vectors; beta >= 0. m = (d + 1) (d + 2) / 2.
    """
    shift = torch.full_like(u[..., :1], math.sqrt(beta))
    return Square(torch.cat((u, shift), dim=-1))
