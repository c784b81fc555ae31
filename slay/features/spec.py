"""Specification of a feature map for the Triton kernels; independent of Triton."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class FeatureSpec:
    """The features phi = P (x) F of a token u, or a polynomial of x = q·k.

    Kinds of P: "none" (phi = F), "given", "square" (W u)^2, "product" (W u)(W' u).
    Kinds of F, with s = W u (s = u without weights) and constants (c, c') per column: "given";
    "identity", s; "exp", exp(s + c); "hadamard", s^2 exp(s + c) c'; "cos", cos(s + c) c'; "relu",
    (relu(s) + c) c'; "softmax", exp(s + c - c' ‖u‖^2); "elu", elu(s) + 1. In the last two,
    exponents of keys are clamped to at least -60, and those of a query are shifted by the largest.

    Weights are (K, width, d), numbers (2, width), float32. "given" factors are passed as tensors,
    (B, H, Lq, width) of queries and (B, K, Lk, width) of keys; before they are computed, `p_width`
    and `f_width` are their widths. With `degree` 2 or 3, P is "none" and the score is
    c0 + c1 x + c2 x^2 + c3 x^3 of x = <F_q, F_k>, with coefficients >= 0.
    """

    p: str = "none"
    f: str = "given"
    unit: bool = False  # u is first projected to the sphere
    p_weight: Tensor | None = None  # W
    p_second: Tensor | None = None  # W'
    f_weight: Tensor | None = None
    f_numbers: Tensor | tuple[float, float] | None = None  # (2, width), or the same per column
    p_width: int = 1
    f_width: int = 0  # 0: the head dimension
    given_p: tuple[Tensor, Tensor] | None = None  # of queries, of keys
    given_f: tuple[Tensor, Tensor] | None = None
    degree: int = 0
    coefficients: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def score(self) -> str:
        """Form of the scores: "dense", "product" or "polynomial" in the factors."""
        if self.degree:
            return "polynomial"
        return "dense" if self.p == "none" else "product"

    def widths(self, head_dim: int) -> tuple[int, int]:
        """Columns of P (1 where there is none) and of F."""
        p = self.p_width if self.p_weight is None else self.p_weight.shape[-2]
        f = self.f_width or head_dim if self.f_weight is None else self.f_weight.shape[-2]
        if self.given_p is not None:
            p = self.given_p[1].shape[-1]
        if self.given_f is not None:
            f = self.given_f[1].shape[-1]
        return p, f
