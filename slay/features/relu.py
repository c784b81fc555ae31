"""Rectified coordinates, and rectified random projections."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense
from slay.features.spec import FeatureSpec


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
