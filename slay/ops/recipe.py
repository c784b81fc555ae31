"""How a mechanism's features are told to kernels, which form them on chip."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from slay.features.forms import Dense, Features, Product


@dataclass(frozen=True)
class Recipe:
    """phi = a (x) b of a token u, or a polynomial of x = q·k.

    `a` and `b` are kinds that `slay.ops.triton_maps.Map` defines; "given" factors come as columns,
    (B, H, Lq, width) of queries and (B, K, Lk, width) of keys, the others from weights
    (K, width, d) and numbers a column, (2, width). With `degree` 2 or 3,
    k = c0 + c1 x + c2 x^2 + c3 x^3, where `coefficients` are c0, ..., c3.
    """

    a: str = "none"
    b: str = "given"
    unit: bool = False  # u is first projected to the sphere
    a_weight: Tensor | None = None
    a_second: Tensor | None = None
    b_weight: Tensor | None = None
    b_numbers: Tensor | None = None
    given_a: tuple[Tensor, Tensor] | None = None  # of queries, of keys
    given_b: tuple[Tensor, Tensor] | None = None
    degree: int = 0
    coefficients: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def widths(self, head_dim: int) -> tuple[int, int]:
        """Columns of a (1 without one) and of b."""
        if self.degree:
            return 1, head_dim
        a = 1 if self.a_weight is None else self.a_weight.shape[-2]
        b = head_dim if self.b_weight is None else self.b_weight.shape[-2]
        if self.given_a is not None:
            a = self.given_a[1].shape[-1]
        if self.given_b is not None:
            b = self.given_b[1].shape[-1]
        return a, b


def given(queries: Features, keys: Features) -> Recipe | None:
    """The recipe of features that were formed already, if kernels know their form."""
    if isinstance(queries, Dense) and isinstance(keys, Dense):
        return Recipe(given_b=(queries.phi, keys.phi))
    if isinstance(queries, Product) and isinstance(keys, Product):
        factors = (queries.a, keys.a, queries.b, keys.b)
        if all(isinstance(factor, Dense) for factor in factors):
            a_q, a_k, b_q, b_k = (factor.factors()[0] for factor in factors)
            return Recipe(a="given", given_a=(a_q, a_k), given_b=(b_q, b_k))
    return None
