"""Exact cubic features: a closer approximation than the quadratic for small heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError, not_negative, whole
from slay.features.elementwise import unit
from slay.features.forms import Dense, Product
from slay.features.polynomial import shifted_square
from slay.ops.normalise import accumulation_dtype
from slay.ops.triton.spec import FeatureSpec


class CubicAttention(FeatureAttention):
    """k(q, k) = (x + beta)^2 (1 + x), x the cosine of q and k; m = d (d + 1)^2 / 2.

    phi(u) = [monomials of (u, sqrt beta)] (x) (1, u). With beta = 0, x^2 (1 + x) is closest to
    the spherical Yat kernel in mean square: the linear factor replaces the shift of the quadratic
    kernel. With `project_dim` = d' each head is first mapped to d' dimensions by a learned matrix,
    initialised with orthonormal columns, and d' replaces d above.
    """

    kernel = r"(x+\beta)^2(1+x)"
    nonnegative = True
    paper = ""

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        beta: float = 0.0,
        project_dim: int | None = None,
        **layer: Any,
    ):
        super().__init__(embed_dim, n_heads, **layer)
        if project_dim is not None:
            project_dim = whole("project_dim", project_dim, 2)
        if project_dim is not None and project_dim > self.head_dim:
            raise SlayError(
                f"project_dim = {project_dim}: must lie between 2 and the head dimension "
                f"{self.head_dim}"
            )
        self.beta = not_negative("beta", beta)
        self.project_dim = project_dim
        self.projection: nn.Parameter | None = None
        if project_dim is not None:
            columns = self.drawn()["projection"].to(torch.get_default_dtype())
            self.projection = nn.Parameter(columns)  # (K, d, d')

    def draw(self) -> dict[str, Tensor]:
        if self.project_dim is None:
            return {}
        shape = (self.n_kv_heads, self.head_dim, self.project_dim)
        return {"projection": torch.linalg.qr(torch.randn(shape, generator=self.generator())).Q}

    def prepare(self, u: Tensor) -> Tensor:
        if self.projection is None:
            return u
        weight = self.projection.repeat_interleave(u.shape[1] // self.n_kv_heads, dim=0)
        u, dtype = unit(u.to(accumulation_dtype(u.dtype))), u.dtype  # no float16 overflow
        return (u @ weight.to(u.dtype)).to(dtype)

    def feature_map(self, u: Tensor, position: Tensor) -> Product:
        u = unit(u)
        # Keeps 1 + x above zero where rounding takes x to -1 or below.
        inside = u * (1.0 - 32.0 * torch.finfo(u.dtype).eps)
        linear = torch.cat((torch.ones_like(u[..., :1]), inside), dim=-1)
        return Product(shifted_square(u, self.beta), Dense(linear))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        c0, c1 = self.beta**2, 2.0 * self.beta
        return FeatureSpec(
            f="identity", unit=True, degree=3, coefficients=(c0, c0 + c1, c1 + 1.0, 1.0)
        )
