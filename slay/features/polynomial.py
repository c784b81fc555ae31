"""Polynomial maps on unit vectors: features for the factor x^2 of the kernel, x = q·k.

u: (B, H, L, d) throughout; every map returns (B, H, L, P).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slay.features.forms import Square


def anchor_features(u: Tensor, anchors: Tensor) -> Tensor:
    """(a_i·u)^2 for anchors a_i: (H, P, d), of norm P^{-1/4}.

    Over random anchors the inner product has mean (1 + 2 x^2) / (d (d + 2)), not x^2: it
    keeps a flat floor.
    """
    return (u @ anchors.mT).square()


def nystrom_features(u: Tensor, anchors: Tensor, root: Tensor) -> Tensor:
    """K_uA (K_AA + lambda I)^{-1/2} for the kernel (·)^2 (Williams & Seeger 2000).

    anchors: (H, P, d) unit vectors; root: (H, P, P), from `inverse_root`.
    """
    return (u @ anchors.mT).square() @ root


def inverse_root(anchors: Tensor, ridge: float) -> Tensor:
    """(K_AA + lambda I)^{-1/2} with K = (a·a')^2, lambda = `ridge`: (H, P, d) -> (H, P, P)."""
    a = anchors.double()
    eigenvalues, vectors = torch.linalg.eigh((a @ a.mT).square())
    scale = (eigenvalues.clamp(min=0.0) + ridge).rsqrt().unsqueeze(-2)
    return ((vectors * scale) @ vectors.mT).to(anchors.dtype)


def maclaurin_features(u: Tensor, r: Tensor, s: Tensor) -> Tensor:
    """(r_i·u) (s_i·u) for r, s: (H, P, d), random signs times P^{-1/4}; unbiased for x^2.

    Random Maclaurin features of degree 2 (Kar & Karnick 2012).
    """
    return (u @ r.mT) * (u @ s.mT)


def sketch_features(u: Tensor, first: Tensor, second: Tensor, size: int) -> Tensor:
    """TensorSketch of degree 2 (Pham & Pagh 2013), in the frequency domain; unbiased for x^2.

    A sketch is the circular convolution of two count sketches C1 u and C2 u. The Fourier transform
    turns it into a product and preserves inner products, so that no inverse transform is needed.
    first, second: (H, d, 2 F), the transformed count sketches of `sketch_spectrum`; P = `size`.
    """
    (a_re, a_im), (b_re, b_im) = ((u @ t).chunk(2, dim=-1) for t in (first, second))
    real = a_re * b_re - a_im * b_im  # (B, H, L, F), F = P // 2 + 1
    imaginary = a_re * b_im + a_im * b_re
    return torch.cat((real, imaginary[..., 1 : size - size // 2]), dim=-1)  # the rest is zero


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


def shifted_square(u: Tensor, beta: float) -> Square:
    """Exact features of (x + beta)^2: the degree-2 monomials of (u, sqrt beta).

    u: unit vectors; beta >= 0. (d + 1) (d + 2) / 2 features, or d (d + 1) / 2 for beta = 0.
    """
    if beta == 0.0:
        return Square(u)
    shift = torch.full_like(u[..., :1], math.sqrt(beta))
    return Square(torch.cat((u, shift), dim=-1))
