"""Random directions for feature maps, drawn head by head."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian(shape: tuple[int, ...], draw: torch.Generator, *, orthogonal: bool = False) -> Tensor:
    """Standard normal vectors in the last axis: (..., M, d), float32.

    With `orthogonal`, each run of d vectors along M is mutually orthogonal while every norm stays
    that of a Gaussian vector, so that each vector is still standard normal
    (Choromanski et al. 2021, section 2.4).
    """
    omega = torch.randn(shape, generator=draw)
    if not orthogonal:
        return omega
    m, d = shape[-2:]
    rounds = -(-m // d)
    blocks = torch.randn((*shape[:-2], rounds, d, d), generator=draw, dtype=torch.float64)
    q, r = torch.linalg.qr(blocks)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # uniform over the rotations
    rows = q.mT.flatten(-3, -2)[..., :m, :]  # (..., M, d)
    return rows.float() * omega.norm(dim=-1, keepdim=True)
