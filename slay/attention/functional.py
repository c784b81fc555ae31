"""Attention by name on tensors that are split into heads already."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from slay.attention.layer import Attention
from slay.attention.packing import Boundaries
from slay.attention.state import State
from slay.errors import SlayError
from slay.ops.modes import remembered
from slay.registry import get_attention_class


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention: str,
    *,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Boundaries | None = None,
    initial_state: State | None = None,
    output_final_state: bool = False,
    **options: Any,
) -> Any:
    """Attention of q over k and v by the mechanism of that name.

    q: (B, H, L, d); k: (B, K, Lk, d) and v: (B, K, Lk, e), where K divides H. Returns (B, H, L, e),
    or that and a `State` with `output_final_state`. `key_padding_mask`, `cu_seqlens` and
    `initial_state` are those of `Attention.forward`. `options` are the mechanism's own
    (`causal=True`, `seed=0`, `epsilon=...`); random features are drawn once for a set of options
    and kept. Raises `UnknownNameError` for the name, TypeError for an option, ValueError for
    shapes.
    """
    cls = get_attention_class(attention)
    if q.ndim != 4 or k.ndim != 4:
        raise SlayError(
            f"q and k have shapes {tuple(q.shape)} and {tuple(k.shape)}; expected (B, H, L, d)"
        )
    shape = (q.shape[3], q.shape[1])
    made = _heads if isinstance(q, FakeTensor) else _kept
    heads = made(cls, *shape, q.device, **{"n_kv_heads": k.shape[1], **options})
    return heads.attend(
        q,
        k,
        v,
        key_padding_mask=key_padding_mask,
        cu_seqlens=cu_seqlens,
        initial_state=initial_state,
        output_final_state=output_final_state,
    )


def _heads(
    cls: type[Attention], head_dim: int, n_heads: int, device: torch.device, **options: Any
) -> Attention:
    return cls.heads_only(head_dim, n_heads, **options).to(device)


_kept = remembered(_heads)
