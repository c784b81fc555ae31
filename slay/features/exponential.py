"""Positive random features of exp(2 s x) on unit vectors (Choromanski et al. 2021, lemma 1)."""

from __future__ import annotations

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
