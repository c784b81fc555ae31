"""Polynomial maps of unit vectors: features for the factor x^2 of the kernel, x = q·k."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slay.features.feature_map import FeatureMap
from slay.features.forms import Dense, Product, Square
from slay.features.spec import FeatureSpec


class SquaredProjections(FeatureMap):
    """phi(u) = (a_i·u)^2 for anchors a: (K, P, d), of norm P^{-1/4}; m = P.

    Over random anchors the inner product has mean (1 + 2 x^2) / (d (d + 2)), not x^2: it
    keeps a flat floor.
    """

    anchors: Tensor

    def __init__(self, anchors: Tensor):
        super().__init__()
        self.register_buffer("anchors", anchors)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense((u @ self.anchors.to(u.dtype).mT).square())

    def as_factor(self) -> dict[str, Any]:
        return {"p": "square", "p_weight": self.anchors}


class NystromSquares(FeatureMap):
    """phi(u) = K_uA (K_AA + lambda I)^{-1/2} for the kernel (·)^2 (Williams & Seeger 2000); m = P.

    anchors A: (K, P, d) unit vectors; root: (K, P, P), from `inverse_root`.
    """

    anchors: Tensor
    root: Tensor

    def __init__(self, anchors: Tensor, root: Tensor):
        super().__init__()
        self.register_buffer("anchors", anchors)
        self.register_buffer("root", root)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        return Dense((u @ self.anchors.to(u.dtype).mT).square() @ self.root.to(u.dtype))

    def as_factor(self) -> dict[str, Any]:
        return {"p": "given", "p_width": self.root.shape[-1]}


def inverse_root(anchors: Tensor, ridge: float) -> Tensor:
    """(K_AA + lambda I)^{-1/2} with K = (a·a')^2, lambda = `ridge`: (H, P, d) -> (H, P, P)."""
    a = anchors.double()
    eigenvalues, vectors = torch.linalg.eigh((a @ a.mT).square())
    scale = (eigenvalues.clamp(min=0.0) + ridge).rsqrt().unsqueeze(-2)
    return ((vectors * scale) @ vectors.mT).to(anchors.dtype)


class MaclaurinSquares(FeatureMap):
    """phi(u) = (r_i·u) (s_i·u): random Maclaurin features of degree 2 (Kar & Karnick 2012); m = P.

    signs r, s: (2, K, P, d), random signs times P^{-1/4}; unbiased for x^2.
    """

    signs: Tensor

    def __init__(self, signs: Tensor):
        super().__init__()
        self.register_buffer("signs", signs)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        r, s = self.signs.to(u.dtype)
        return Dense((u @ r.mT) * (u @ s.mT))

    def as_factor(self) -> dict[str, Any]:
        r, s = self.signs
        return {"p": "product", "p_weight": r, "p_second": s}


class SketchedSquares(FeatureMap):
    """phi(u) = TensorSketch of degree 2 (Pham & Pagh 2013), as its spectrum; m = P = `size`.

    A sketch is the circular convolution of two count sketches C1 u and C2 u. The Fourier transform
    turns it into a product and preserves inner products, so that no inverse transform is needed.
    spectra: (2, K, d, 2 F), the transformed count sketches of `sketch_spectrum`. Unbiased for x^2.
    """

    spectra: Tensor

    def __init__(self, spectra: Tensor, size: int):
        super().__init__()
        self.size = size
        self.register_buffer("spectra", spectra)

    def forward(self, u: Tensor, position: Tensor) -> Dense:
        size = self.size
        (a_re, a_im), (b_re, b_im) = ((u @ t).chunk(2, dim=-1) for t in self.spectra.to(u.dtype))
        real = a_re * b_re - a_im * b_im  # (B, K, n, F), F = P // 2 + 1
        imaginary = a_re * b_im + a_im * b_re
        kept = imaginary[..., 1 : size - size // 2]  # the rest is zero
        return Dense(torch.cat((real, kept), dim=-1))

    def as_factor(self) -> dict[str, Any]:
        return {"p": "given", "p_width": self.size}


def sketch_spectrum(bucket: Tensor, sign: Tensor, size: int) -> Tensor:
    """Real Fourier transform of a count sketch as a matrix: (H, d, 2 F), real parts first.

    bucket: (H, d), whole numbers below `size`; sign: (H, d), +1 or -1. By Parseval, inner products
    are sums over the `size` frequencies divided by `size`; of a conjugate pair one is kept and
    counted twice.
    """
    frequency = torch.arange(size // 2 + 1, dtype=torch.float64)
    angle = -2.0 * math.pi / size * bucket.unsqueeze(-1) * frequency  # (H, d, F)
    alone = (frequency == 0) | (2 * frequency == size)
    count = torch.where(alone, 1.0, 2.0) / size
    scale = sign.unsqueeze(-1) * count**0.25  # a score is a product of four of these
    return torch.cat((scale * angle.cos(), scale * angle.sin()), dim=-1).float()


class ShiftedSquare(FeatureMap):
    """Exact features of (x + beta)^2, beta >= 0: the degree-2 monomials of (u, sqrt beta).

    m = (d + 1) (d + 2) / 2, or d (d + 1) / 2 for beta = 0.
    """

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def forward(self, u: Tensor, position: Tensor) -> Square:
        if self.beta == 0.0:
            return Square(u)
        shift = torch.full_like(u[..., :1], math.sqrt(self.beta))
        return Square(torch.cat((u, shift), dim=-1))

    def spec(self) -> FeatureSpec:
        coefficients = (self.beta**2, 2.0 * self.beta, 1.0, 0.0)
        return FeatureSpec(f="identity", degree=2, coefficients=coefficients)


class ShiftedCube(ShiftedSquare):
    """Exact features of (x + beta)^2 (1 + x): those of the square times (1, u)."""

    def forward(self, u: Tensor, position: Tensor) -> Product:  # type: ignore[override]
        # Keeps 1 + x above zero where rounding takes x to -1 or below.
        inside = u * (1.0 - 32.0 * torch.finfo(u.dtype).eps)
        linear = torch.cat((torch.ones_like(u[..., :1]), inside), dim=-1)
        return Product(super().forward(u, position), Dense(linear))

    def spec(self) -> FeatureSpec:
        c0, c1 = self.beta**2, 2.0 * self.beta
        coefficients = (c0, c0 + c1, c1 + 1.0, 1.0)
        return FeatureSpec(f="identity", degree=3, coefficients=coefficients)
