"""FAVOR+: random features of the softmax kernel, or their rectified form."""

from __future__ import annotations

from typing import Any, Literal, get_args

from slay.attention.linear import LinearAttention
from slay.errors import SlayError, whole
from slay.features.exponential import SoftmaxFeatures
from slay.features.feature_map import FeatureMap
from slay.features.projections import gaussian
from slay.features.relu import ReluProjections

Kernel = Literal["relu", "softmax"]
FLOOR = 1e-3  # avoids zero weight for a token whose projections are all negative


class PerformerAttention(LinearAttention):
    """phi(u) = M^{-1/2} (relu(omega_i·u) + 10^{-3}), or features of exp(q·k / sqrt d).

    M = `num_features` directions omega_i ~ N(0, I), in `orthogonal` blocks. With `kernel="softmax"`
    phi(u) = M^{-1/2} exp(omega_i·x - ‖x‖^2 / 2), x = u / d^{1/4}, unbiased for the softmax kernel
    (Choromanski et al. 2021, section 2.3). Key exponents are clamped to at least -60, so a query
    whose keys all lie below gets the running mean of their values.
    """

    kernel = r"\tfrac1M\sum_i\mathrm{relu}(\omega_i^\top q)\,\mathrm{relu}(\omega_i^\top k)"
    nonnegative = True
    paper = "choromanski2021rethinking"

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
        if kernel not in get_args(Kernel):
            raise SlayError(f"kernel = {kernel!r}: must be one of {', '.join(get_args(Kernel))}")
        self.softmax, self.orthogonal = kernel == "softmax", orthogonal
        self.directions = whole("num_features", num_features, 1)
        super().__init__(embed_dim, n_heads, **layer)

    def features(self) -> FeatureMap:
        shape = (self.n_kv_heads, self.directions, self.head_dim)
        omega = gaussian(shape, self.generator(), orthogonal=self.orthogonal)
        return SoftmaxFeatures(omega) if self.softmax else ReluProjections(omega, FLOOR)
