"""Attention by name on tensors that are split into heads already."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.errors import SlayError
from slay.registry import get_attention_class


def attend(q: Tensor, k: Tensor, v: Tensor, attention: str, **options: Any) -> Tensor:
    """Attention of q over k and v by the mechanism of that name.

    q, k: (B, H, L, d); v: (B, H, L, e). Returns (B, H, L, e). `options` are the mechanism's own
    (`causal=True`, `seed=0`, `epsilon=...`); random features are drawn once for a set of options
    and kept. Raises `UnknownNameError` for the name, TypeError for an option, ValueError for
    shapes.
    """
    if q.ndim != 4:
        raise SlayError(f"q has shape {tuple(q.shape)}; expected (B, H, L, d)")
    heads = _heads(get_attention_class(attention), q.shape[3], q.shape[1], q.device, **options)
    return heads.attend(q, k, v)


@lru_cache(maxsize=32)
def _heads(
    cls: type[Attention], head_dim: int, n_heads: int, device: torch.device, **options: Any
) -> Attention:
    return cls.heads_only(head_dim, n_heads, **options).to(device)
