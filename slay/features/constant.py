"""The constant feature, under which all pairs have the same score."""

from __future__ import annotations

from torch import Tensor

from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense


class Constant(FeatureMap):
    """phi(u) = 1: every pair has the same score; m = 1."""

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(u.new_ones(*u.shape[:-1], 1))
