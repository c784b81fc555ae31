"""Maps of single coordinates, or of single projections, and of positions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.features.elementwise import LOWEST
from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense
from slay.features.spec import FeatureSpec


class Constant(FeatureMap):
    """phi(u) = 1: every pair has the same score; m = 1."""

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(u.new_ones(*u.shape[:-1], 1))


class EluPlusOne(FeatureMap):
    """phi(u) = elu(u) + 1 > 0 (Katharopoulos et al. 2020, eq. 7), m = d.

    Coordinates of keys are clamped to at least `LOWEST`; features of a query are divided by the
    largest if that is below 1.
    """

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(F.relu(u) + u.clamp(LOWEST, 0.0).exp())  # cheaper to differentiate than elu

    def queries(self, u: Tensor, position: Tensor) -> Dense:
        top = u.detach().amax(-1, keepdim=True).clamp(max=0.0)
        return Dense(F.relu(u) + (u.clamp(max=0.0) - top).exp())

    def spec(self) -> FeatureSpec:
        return FeatureSpec(f="elu")


class Relu(FeatureMap):
    """phi(u) = relu(u), m = d."""

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(F.relu(u))

    def spec(self) -> FeatureSpec:
        return FeatureSpec(f="relu", f_numbers=(0.0, 1.0))


class ReluProjections(FeatureMap):
    """phi(u) = M^{-1/2} (relu(omega_i·u) + `floor`) for directions omega: (K, M, d)."""

    omega: Tensor

    def __init__(self, omega: Tensor, floor: float):
        super().__init__()
        self.floor = floor
        self.register_buffer("omega", omega)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        omega = self.omega.to(u.dtype)
        return Dense((F.relu(u @ omega.mT) + self.floor) / omega.shape[-2] ** 0.5)

    def spec(self) -> FeatureSpec:
        numbers = (self.floor, self.omega.shape[-2] ** -0.5)
        return FeatureSpec(f="relu", f_weight=self.omega, f_numbers=numbers)


class Turn(FeatureMap):
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
