"""Random queries, keys and values on which quality is measured."""

from __future__ import annotations

import torch
from torch import Tensor

from slay.experiments.result import Progress, stream
from slay.features.elementwise import unit
from slay.pipeline.params import QualityParams

PLANTED_COSINE = 0.8
Inputs = tuple[Tensor, Tensor, Tensor]


def isotropic(params: QualityParams, progress: Progress) -> Inputs:
    """q, k, v standard normal: (1, H, L, d) each."""
    draw = stream(params.seed, "quality")
    shape = (1, params.n_heads, params.seq_len, params.head_dim)
    q, k, v = (torch.randn(shape, generator=draw) for _ in range(3))
    return q, k, v


def planted(params: QualityParams, progress: Progress) -> Inputs:
    """Isotropic, but each query has cosine 0.8 with one key drawn from those at or before it."""
    q, k, v = isotropic(params, progress)
    share = torch.rand(q.shape[:3], generator=stream(params.seed, "planted"))  # (1, H, L)
    chosen = (share * torch.arange(1, params.seq_len + 1)).long()  # in [0, i]
    near = unit(k.gather(2, chosen.unsqueeze(-1).expand(k.shape)))
    return q.norm(dim=-1, keepdim=True) * at_cosine(near, q, torch.tensor(PLANTED_COSINE)), k, v


def at_cosine(near: Tensor, towards: Tensor, x: Tensor) -> Tensor:
    """Unit vectors at cosine x to the unit vectors `near`, rotated from them towards `towards`."""
    off = unit(towards - (towards * near).sum(-1, keepdim=True) * near)
    return x * near + (1.0 - x.square()).sqrt() * off
