"""Positions as angles, whose cosines favour near tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense


class PositionAngle(FeatureMap):
    """(cos a, sin a) with a = pi/2 i / M at position i, M = `max_len`; m = 2.

    Inner products are cos(pi/2 (i - j) / M).
    """

    def __init__(self, max_len: int):
        super().__init__()
        self.max_len = max_len

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        angle = (0.5 * math.pi / self.max_len) * position.to(u.dtype).unsqueeze(-1)
        turn = torch.cat((angle.cos(), angle.sin()), dim=-1)  # (B or 1, 1, n, 2)
        return Dense(turn.expand(*u.shape[:-1], 2))

    def as_factor(self) -> dict[str, Any]:
        return {"p": "given", "p_width": 2}
