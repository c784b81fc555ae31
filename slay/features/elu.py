"""The feature map elu(u) + 1."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from slay.features.elementwise import LOWEST
from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense
from slay.features.spec import FeatureSpec


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
