"""Feature maps as modules, and how they compose.

A map has its formula in `forward`, for PyTorch, and names it in `spec`, for the Triton kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from slay.features.elementwise import unit
from slay.features.forms import Features, Product
from slay.features.spec import FeatureSpec

Factors = tuple[Tensor | None, Tensor | None]


class FeatureMap(nn.Module, ABC):
    """phi: tokens u: (B, K, n, d) at positions (B or 1, 1, n) -> `Features`.

    K is the number of key heads; grouped queries share the map of their key head. Tensors that are
    drawn or learnt have K as their first or second dimension.
    """

    @abstractmethod
    def forward(self, u: Tensor, position: Tensor) -> Features:
        """phi of keys, and of queries unless `queries` differs."""

    def queries(self, u: Tensor, position: Tensor) -> Features:
        """phi of queries. A per-query scale cancels in the normalisation."""
        phi: Features = self(u, position)
        return phi

    def prepare(self, u: Tensor) -> Tensor:
        """Map applied once per token, before chunking: (B, H, L, d) -> (B, H, L, d')."""
        return u

    def width(self, head_dim: int) -> int:
        """d', the dimension of prepared tokens."""
        return head_dim

    def spec(self) -> FeatureSpec | None:
        """Description for the kernels; None if they are passed the features instead."""
        return None

    def as_factor(self) -> dict[str, Any] | None:
        """Fields of `FeatureSpec` for this map as the factor P; None if it cannot be one."""
        return None

    def given(self, u: Tensor, position: Tensor) -> Factors:
        """The factors P and F that are "given" in `spec`: (B, K, n, width) each."""
        return None, None


class OnSphere(FeatureMap):
    """phi(u / ‖u‖)."""

    def __init__(self, phi: FeatureMap):
        super().__init__()
        self.phi = phi

    def forward(self, u: Tensor, position: Tensor) -> Features:
        features: Features = self.phi(unit(u), position)
        return features

    def spec(self) -> FeatureSpec | None:
        spec = self.phi.spec()
        return None if spec is None else replace(spec, unit=True)

    def given(self, u: Tensor, position: Tensor) -> Factors:
        return self.phi.given(unit(u), position)


class OuterProduct(FeatureMap):
    """phi = p (x) f, so that scores are <p(q), p(k)> <f(q), f(k)>; m = P F."""

    def __init__(self, p: FeatureMap, f: FeatureMap):
        super().__init__()
        self.p, self.f = p, f

    def forward(self, u: Tensor, position: Tensor) -> Product:
        return Product(self.p(u, position), self.f(u, position))

    def spec(self) -> FeatureSpec | None:
        f, p = self.f.spec(), self.p.as_factor()
        return None if f is None or p is None else replace(f, **p)

    def given(self, u: Tensor, position: Tensor) -> Factors:
        p = self.p.as_factor()
        computed = p is not None and p["p"] != "given"
        return None if computed else self.p(u, position).expand(), None


class Projected(FeatureMap):
    """phi(W u^) with u^ = u / ‖u‖ and a learned W: (K, d, d'), applied once per token."""

    def __init__(self, weight: Tensor, phi: FeatureMap):
        super().__init__()
        self.projection, self.phi = nn.Parameter(weight), phi

    def forward(self, u: Tensor, position: Tensor) -> Features:
        features: Features = self.phi(u, position)
        return features

    def prepare(self, u: Tensor) -> Tensor:
        weight = self.projection.repeat_interleave(u.shape[1] // len(self.projection), dim=0)
        u, dtype = (
            unit(u.to(torch.promote_types(u.dtype, torch.float32))),
            u.dtype,
        )  # no float16 overflow
        return (u @ weight.to(u.dtype)).to(dtype)

    def width(self, head_dim: int) -> int:
        return self.projection.shape[-1]

    def spec(self) -> FeatureSpec | None:
        return self.phi.spec()
