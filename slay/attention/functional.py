"""Functional interface: attention by name on tensors already split into heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from slay.attention.layer import Attention
from slay.attention.state import State
from slay.errors import SlayError
from slay.ops.modes import remembered
from slay.ops.sequences import Boundaries
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
    """Compute attention of q over k and v with the named mechanism.

    q: (B, H, L, d); k: (B, K, Lk, d) and v: (B, K, Lk, e), where K divides H. Returns (B, H, L, e),
    or (y, `State`) with `output_final_state`. `key_padding_mask`, `cu_seqlens` and `initial_state`
    are as in `Attention.forward`. `options` are the mechanism's own (`causal=True`, `seed=0`,
    `epsilon=...`); random features are drawn once per set of options and cached. Raises
    `UnknownNameError` for the name, TypeError for an option, ValueError for shapes.
    """
    if q.ndim != 4 or k.ndim != 4:
        raise SlayError(
            f"q and k have shapes {tuple(q.shape)} and {tuple(k.shape)}; expected (B, H, L, d)"
        )
    head_dim, n_heads, n_kv_heads = map(_number, (q.shape[3], q.shape[1], k.shape[1]))
    options = {"n_kv_heads": n_kv_heads, **options}
    heads = _heads(attention, q, head_dim=head_dim, n_heads=n_heads, **options)
    return heads.attend(
        q,
        k,
        v,
        key_padding_mask=key_padding_mask,
        cu_seqlens=cu_seqlens,
        initial_state=initial_state,
        output_final_state=output_final_state,
    )


def _number(size: int) -> int:
    """Return a size as a plain int, where torch.compile may have a symbolic one."""
    return len(range(size))


class _Compiled:
    """Mechanisms of compiled functions as attributes, which torch.compile can read."""


def _heads(name: str, q: Tensor, **options: Any) -> Attention:
    if torch.compiler.is_compiling():
        return getattr(_Compiled, _compiled(name, q.device, tuple(options.items())))
    if isinstance(q, FakeTensor):
        return _made(get_attention_class(name), q.device, **options)
    return _kept(get_attention_class(name), q.device, **options)


@torch.compiler.assume_constant_result
def _compiled(name: str, device: torch.device, options: tuple[tuple[str, Any], ...]) -> str:
    """Return the attribute of `_Compiled` that holds this mechanism; called during compilation."""
    heads = _kept(get_attention_class(name), device, **dict(options))
    key = f"{name} {id(heads)}"
    setattr(_Compiled, key, heads)
    return key


def _made(cls: type[Attention], device: torch.device, **options: Any) -> Attention:
    return cls.heads_only(**options).to(device)


_kept = remembered(_made)
