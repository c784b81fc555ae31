"""Features of exponential kernels (Choromanski et al. 2021, lemma 1; Rahimi & Recht 2007)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def positive_random_features(u: Tensor, omega: Tensor, offset: Tensor) -> Tensor:
    """exp(omega_i·u + b_i): (B, H, L, d) unit vectors -> (B, H, L, F).

    omega: (H, F, d) and offset b: (F,), as `at_nodes` makes them, one node after another.
    """
    return (u @ omega.mT).add_(offset).exp_()


def at_nodes(omega: Tensor, s: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(sqrt(2 s_r) omega_ri, log(w_r / M) / 2 - s_r) for R nodes of M features: F = R M.

    omega: (H, R, M, d) standard normal; s, weight: (R,). The inner product of the features of two
    unit vectors is then unbiased for sum_r w_r exp(2 s_r x), x = q·k.
    """
    m = omega.shape[2]
    scaled = omega * (2.0 * s).sqrt().view(-1, 1, 1)
    offset = 0.5 * (weight / m).log() - s  # (R,)
    return scaled.flatten(1, 2), offset.repeat_interleave(m)


def softmax_exponents(u: Tensor, omega: Tensor) -> Tensor:
    """omega_i·u / d^(1/4) - ‖u‖^2 / (2 sqrt d) - log(M) / 2: (B, H, L, d) -> (B, H, L, M).

    omega: (H, M, d) standard normal. The inner product of their exponentials is unbiased for
    exp(q·k / sqrt d).
    """
    m, d = omega.shape[-2:]
    length = u.square().sum(-1, keepdim=True)
    return softmax_projections(u, omega) - length / (2.0 * math.sqrt(d)) - 0.5 * math.log(m)


def softmax_projections(u: Tensor, omega: Tensor) -> Tensor:
    """omega_i·u / d^(1/4), the exponents without the terms shared by all features of a token."""
    return u @ (omega / omega.shape[-1] ** 0.25).mT


def fourier_features(u: Tensor, omega: Tensor) -> Tensor:
    """M^{-1/2} [cos(omega_i·u), sin(omega_i·u)]: (B, H, L, d) -> (B, H, L, 2 M).

    omega: (H, M, d) normal with standard deviation 1 / sigma. The inner product is unbiased for
    exp(-‖q - k‖^2 / (2 sigma^2)).
    """
    angle = u @ omega.mT
    return torch.cat((angle.cos(), angle.sin()), dim=-1) / math.sqrt(omega.shape[-2])
