"""Features of exponential kernels (Choromanski et al. 2021, lemma 1; Rahimi & Recht 2007)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slay.features.elementwise import LOWEST
from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense
from slay.features.spec import FeatureSpec


class Exponentials(FeatureMap):
    """phi(u) = exp(omega_i·u + b_i) of unit vectors: positive random features, m = F.

    omega: (K, F, d) and offset b: (F,), as `at_nodes` makes them, one node after another.
    """

    omega: Tensor
    offset: Tensor

    def __init__(self, omega: Tensor, offset: Tensor):
        super().__init__()
        self.register_buffer("omega", omega)
        self.register_buffer("offset", offset)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense((u @ self.omega.to(u.dtype).mT).add_(self.offset.to(u.dtype)).exp_())

    def spec(self) -> FeatureSpec:
        numbers = torch.stack((self.offset, torch.zeros_like(self.offset)))
        return FeatureSpec(f="exp", f_weight=self.omega, f_numbers=numbers)


class SquaredExponentials(Exponentials):
    """phi(u) = (a_i·u)^2 exp(omega_i·u + b_i) with omega_i = sqrt(c_i) a_i, `spread` c: (F,)."""

    spread: Tensor

    def __init__(self, omega: Tensor, offset: Tensor, spread: Tensor):
        super().__init__(omega, offset)
        self.register_buffer("spread", spread)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        scaled = u @ self.omega.to(u.dtype).mT  # (B, K, n, F): omega_i·u
        exponential = (scaled + self.offset.to(u.dtype)).exp()
        return Dense(scaled.square() / self.spread.to(u.dtype) * exponential)

    def spec(self) -> FeatureSpec:
        numbers = torch.stack((self.offset, 1.0 / self.spread))
        return FeatureSpec(f="hadamard", f_weight=self.omega, f_numbers=numbers)


def at_nodes(omega: Tensor, s: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(sqrt(2 s_r) omega_ri, log(w_r / M) / 2 - s_r) for R nodes of M features: F = R M.

    omega: (H, R, M, d) standard normal; s, weight: (R,). The inner product of the features of two
    unit vectors is then unbiased for sum_r w_r exp(2 s_r x), x = q·k.
    """
    m = omega.shape[2]
    scaled = omega * (2.0 * s).sqrt().view(-1, 1, 1)
    offset = 0.5 * (weight / m).log() - s  # (R,)
    return scaled.flatten(1, 2), offset.repeat_interleave(m)


class SoftmaxFeatures(FeatureMap):
    """phi(u) = M^{-1/2} exp(omega_i·x - ‖x‖^2 / 2), x = u / d^{1/4}.

    Unbiased for exp(q·k / sqrt d) with omega: (K, M, d) standard normal. Exponents of keys are
    clamped to at least `LOWEST`; those of a query are shifted by the largest, which keeps long
    queries from underflow.
    """

    omega: Tensor

    def __init__(self, omega: Tensor):
        super().__init__()
        self.register_buffer("omega", omega)

    def projections(self, u: Tensor) -> Tensor:
        """omega_i·x, the exponents without the terms shared by all features of a token."""
        omega = self.omega.to(u.dtype)
        return u @ (omega / omega.shape[-1] ** 0.25).mT

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        m, d = self.omega.shape[-2:]
        length = u.square().sum(-1, keepdim=True)
        exponents = self.projections(u) - length / (2.0 * math.sqrt(d)) - 0.5 * math.log(m)
        return Dense(exponents.clamp(min=LOWEST).exp())

    def queries(self, u: Tensor, position: Tensor) -> Dense:
        exponents = self.projections(u)
        return Dense((exponents - exponents.detach().amax(-1, keepdim=True)).exp())

    def spec(self) -> FeatureSpec:
        m, d = self.omega.shape[-2:]
        numbers = (-0.5 * math.log(m), 0.5 / math.sqrt(d))
        return FeatureSpec(f="softmax", f_weight=self.omega / d**0.25, f_numbers=numbers)


class FourierFeatures(FeatureMap):
    """phi(u) = M^{-1/2} [cos(omega_i·u), sin(omega_i·u)], m = 2 M.

    omega: (K, M, d) normal with standard deviation 1 / sigma. The inner product is unbiased for
    exp(-‖q - k‖^2 / (2 sigma^2)).
    """

    omega: Tensor

    def __init__(self, omega: Tensor):
        super().__init__()
        self.register_buffer("omega", omega)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        omega = self.omega.to(u.dtype)
        angle = u @ omega.mT
        return Dense(torch.cat((angle.cos(), angle.sin()), dim=-1) / math.sqrt(omega.shape[-2]))

    def spec(self) -> FeatureSpec:
        m = self.omega.shape[-2]
        numbers = self.omega.new_full((2, 2 * m), m**-0.5)
        numbers[0, :m], numbers[0, m:] = 0.0, -0.5 * math.pi  # sin(s) = cos(s - pi/2)
        weight = torch.cat((self.omega, self.omega), dim=1)
        return FeatureSpec(f="cos", f_weight=weight, f_numbers=numbers)
