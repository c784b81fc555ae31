"""Features of exponential kernels (Choromanski et al. 2021, lemma 1; Rahimi & Recht 2007)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def positive_random_features(u: Tensor, omega: Tensor, s: Tensor, weight: Tensor) -> Tensor:
    """sqrt(w_r / M) exp(sqrt(2 s_r) omega_ri·u - s_r) for R nodes of M features, side by side.

    u: (B, H, L, d) unit vectors; omega: (H, R, M, d) standard normal; s, weight: (R,).
    Returns (B, H, L, R M). The inner product of two images is unbiased for
    sum_r w_r exp(2 s_r x), x = q·k.
    """
    n_nodes, n_features = omega.shape[1:3]
    shape = (n_nodes, 1)
    scaled = omega * (2.0 * s).sqrt().view(*shape, 1)  # (H, R, M, d)
    offset = 0.5 * (weight / n_features).log() - s  # (R,)
    projected = u @ scaled.flatten(1, 2).mT  # (B, H, L, R M)
    return (projected + offset.view(shape).expand(n_nodes, n_features).flatten()).exp()


def softmax_exponents(u: Tensor, omega: Tensor) -> Tensor:
    """omega_i·u / d^(1/4) - ‖u‖^2 / (2 sqrt d) - log(M) / 2: (B, H, L, d) -> (B, H, L, M).

    omega: (H, M, d) standard normal. The inner product of their exponentials is unbiased for
    exp(q·k / sqrt d).
    """
    m, d = omega.shape[-2:]
    projected = u @ (omega / d**0.25).mT
    return projected - u.square().sum(-1, keepdim=True) / (2.0 * math.sqrt(d)) - 0.5 * math.log(m)


def fourier_features(u: Tensor, omega: Tensor) -> Tensor:
    """M^{-1/2} [cos(omega_i·u), sin(omega_i·u)]: (B, H, L, d) -> (B, H, L, 2 M).

    omega: (H, M, d) normal with standard deviation 1 / sigma. The inner product is unbiased for
    exp(-‖q - k‖^2 / (2 sigma^2)).
    """
    angle = u @ omega.mT
    return torch.cat((angle.cos(), angle.sin()), dim=-1) / math.sqrt(omega.shape[-2])
