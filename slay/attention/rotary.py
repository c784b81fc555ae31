"""Rotary position embedding (Su et al. 2021): q·k depends on the difference of positions."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(u: Tensor, position: Tensor, base: float) -> Tensor:
    """Rotate the pair (u_i, u_{i + d/2}) by the angle position x base^(-2 i / d), i < d / 2.

    u: (B, H, L, d), d even; position: (B or 1, L). Norms do not change.
    """
    half = u.shape[-1] // 2
    exponent = torch.arange(half, device=u.device, dtype=torch.float32) / half
    angle = position.unsqueeze(1).unsqueeze(-1) * base**-exponent  # (B or 1, 1, L, d / 2)
    cos, sin = angle.cos().to(u.dtype), angle.sin().to(u.dtype)
    a, b = u.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
