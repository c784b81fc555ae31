"""What transformers' masks come down to: real tokens, or the boundaries of packed sequences.

transformers describes a mask by a function m(b, h, i, j) of a query's and a key's position, and
builds L x L booleans of it. Here it is asked about O(L) pairs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from slay.errors import SlayError

MaskFunction = Callable[..., Any]


def mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction = causal_mask_function,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **unused: Any,
) -> Tensor | None:
    """transformers' mask interface for slay: None where every key counts, else one of

    - (B, n) in bool, True for the tokens that are real, of the first n keys; a static cache has
      more, which are not filled yet;
    - (N + 1,) in int32: boundaries of N packed sequences in the batch's rows laid end to end.

    Raises `SlayError` for any other pattern, such as a window shorter than the sequence.
    """
    queries = range(int(q_offset), int(q_offset) + q_length)
    keys = range(kv_offset, kv_offset + kv_length)
    real = attention_mask
    if mask_function is not bidirectional_mask_function and keys.stop > queries.stop:
        keys = range(kv_offset, queries.stop)
        if real is None:
            real = torch.ones(batch_size, keys.stop, dtype=torch.bool, device=device)
    if real is not None:
        real = _real(real, keys, kv_length)
    if mask_function in (causal_mask_function, bidirectional_mask_function):
        return real
    if use_vmap:
        raise SlayError("the model lays a mask of its own over attention; slay has no such")
    boundaries = _boundaries(_sees(mask_function, batch_size, device), queries, keys, device)
    if boundaries is None:
        return real
    if real is not None:
        raise SlayError("packed sequences and padding exclude each other")
    return boundaries


def _real(attention_mask: Tensor, keys: range, kv_length: int) -> Tensor | None:
    """The part of (B, L) that is about those keys; None if they are all of them, and all real."""
    if attention_mask.shape[-1] < keys.stop:
        raise SlayError(
            f"attention_mask is of {attention_mask.shape[-1]} tokens, but there are {keys.stop}; "
            "give one of all tokens, those in the cache too"
        )
    real = attention_mask[:, keys.start : keys.stop].bool()
    return None if len(keys) == kv_length and real.all() else real


def _sees(
    function: MaskFunction, batch: int, device: torch.device | str
) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether queries i see keys j, pair by pair: (1 or B, n) each -> (B, n)."""
    rows = torch.arange(batch, device=device).unsqueeze(-1)  # (B, 1)
    head = torch.zeros((), dtype=torch.long, device=device)
    return lambda i, j: function(rows, head, i, j).expand(batch, j.shape[-1])


def _boundaries(
    sees: Callable[[Tensor, Tensor], Tensor],
    queries: range,
    keys: range,
    device: torch.device | str,
) -> Tensor | None:
    """Where packed sequences begin and end; None if all queries see all keys, or all before."""
    i = torch.arange(queries.start, queries.stop, device=device).unsqueeze(0)  # (1, L)
    first, last = torch.full_like(i, keys.start), torch.full_like(i, keys.stop - 1)
    seen = sees(i, first)
    if (seen & sees(i, last)).all():
        return None
    here, before = i[:, 1:], i[:, :-1]
    begins = torch.cat((torch.ones_like(seen[:, :1]), ~sees(here, before)), dim=1)  # (B, L)
    start = first
    if queries == keys:
        start = torch.where(begins, i, first).cummax(dim=-1).values  # (B, L), of i's sequence
        others = sees(i, (start - 1).clamp(min=keys.start)) & (start > keys.start)
    else:
        others = begins[:, 1:]
    ordered = sees(i, i).all() and not sees(before, here).any()
    if not ordered or not sees(i, start).all() or others.any():
        raise SlayError(
            f"the mask over {len(keys)} tokens is neither causal nor of packed sequences (a "
            "sliding window or the like); slay has no such"
        )
    if not begins[:, 1:].any():
        return None
    inside = begins.flatten().nonzero().flatten()
    return torch.cat((inside, inside.new_full((1,), begins.numel()))).to(torch.int32)
