"""FAVOR+: random features of the softmax kernel, or their rectified form."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError, whole
from slay.features.elementwise import LOWEST
from slay.features.exponential import softmax_exponents, softmax_projections
from slay.features.forms import Dense
from slay.features.projections import gaussian
from slay.ops.triton.spec import FeatureSpec

Kernel = Literal["relu", "softmax"]
FLOOR = 1e-3  # avoids zero weight for a token whose projections are all negative


class PerformerAttention(FeatureAttention):
    """phi(u) = M^{-1/2} (relu(omega_i·u) + 10^{-3}), or features of exp(q·k / sqrt d).

    M = `num_features` directions omega_i ~ N(0, I), in `orthogonal` blocks. With `kernel="softmax"`
    phi(u) = M^{-1/2} exp(omega_i·x - ‖x‖^2 / 2), x = u / d^{1/4}, unbiased for the softmax kernel
    (Choromanski et al. 2021, section 2.3). Key exponents are clamped to at least -60, so a query
    whose keys all lie below gets the running mean of their values.
    """

    kernel = r"\tfrac1M\sum_i\mathrm{relu}(\omega_i^\top q)\,\mathrm{relu}(\omega_i^\top k)"
    nonnegative = True
    paper = "choromanski2021rethinking"

    omega: Tensor  # (K, M, d)
    numbers: Tensor  # (2, M), for `FeatureSpec`

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        num_features: int = 64,
        kernel: Kernel = "relu",
        orthogonal: bool = True,
        **layer: Any,
    ):
        super().__init__(embed_dim, n_heads, **layer)
        if kernel not in get_args(Kernel):
            raise SlayError(f"kernel = {kernel!r}: must be one of {', '.join(get_args(Kernel))}")
        self.softmax, self.orthogonal = kernel == "softmax", orthogonal
        self.directions = whole("num_features", num_features, 1)
        self.register_drawn()

    def draw(self) -> dict[str, Tensor]:
        m, d = self.directions, self.head_dim
        omega = gaussian((self.n_kv_heads, m, d), self.generator(), orthogonal=self.orthogonal)
        pair = (FLOOR, m**-0.5)
        if self.softmax:
            pair = (-0.5 * math.log(m), 0.5 / math.sqrt(d))
        return {"omega": omega, "numbers": torch.tensor(pair).unsqueeze(1).repeat(1, m)}

    def feature_map(self, u: Tensor, position: Tensor) -> Dense:
        omega = self.omega.to(u.dtype)
        if self.softmax:
            return Dense(softmax_exponents(u, omega).clamp(min=LOWEST).exp())
        return Dense((F.relu(u @ omega.mT) + FLOOR) / omega.shape[-2] ** 0.5)

    def query_map(self, u: Tensor, position: Tensor) -> Dense:
        if not self.softmax:
            return self.feature_map(u, position)
        exponents = softmax_projections(u, self.omega.to(u.dtype))
        # A per-query scale cancels in y; dividing by the largest keeps long queries from underflow.
        return Dense((exponents - exponents.detach().amax(-1, keepdim=True)).exp())

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        if not self.softmax:
            return FeatureSpec(f="relu", f_weight=self.omega, f_numbers=self.numbers)
        weight = self.omega / self.head_dim**0.25
        return FeatureSpec(f="softmax", f_weight=weight, f_numbers=self.numbers)
