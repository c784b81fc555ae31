"""The specification: attention from an explicit L x L matrix of scores."""

from __future__ import annotations

from torch import Tensor

from slay.ops.normalise import normalise


def naive_attention(scores: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """y_i = sum_j k(i, j) v_j / sum_j k(i, j), over j <= i when causal.

    scores: (B, H, L, L), unnormalised k(i, j); v: (B, H, L, e). Returns (B, H, L, e).
    O(L^2) in time and memory: an oracle for tests, never a baseline.
    """
    if causal:
        scores = scores.tril()
    return normalise(scores @ v, scores.sum(-1, keepdim=True))
