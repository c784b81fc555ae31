"""Reduction of transformers' masks to padding, or to the boundaries of packed sequences.

transformers describes a mask by a function m(b, h, i, j) of a query's and a key's position, and
builds L x L booleans from it. Here it is evaluated on a few pairs only.
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
    allow_is_bidirectional_skip: bool | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **unused: Any,
) -> Tensor | None:
    """transformers' mask interface for slay: None if every key counts, else one of

    - (B, n) in bool, True for real tokens among the first n keys; a static cache has more, which
      are not filled yet;
    - (N + 1,) in int32: boundaries of N packed sequences in the batch's concatenated rows.

    Raises `SlayError` for any other pattern, such as a window shorter than the sequence.
    """
    causal = allow_is_bidirectional_skip is None  # passed only for bidirectional masks
    queries = range(int(q_offset), int(q_offset) + q_length)
    keys = range(kv_offset, kv_offset + kv_length)
    real = attention_mask
    if causal and keys.stop > queries.stop:
        keys = range(kv_offset, queries.stop)
        if real is None:
            real = torch.ones(batch_size, keys.stop, dtype=torch.bool, device=device)
    if real is not None:
        real = _real(real, keys, kv_length)
    if mask_function is (causal_mask_function if causal else bidirectional_mask_function):
        return real
    if use_vmap:
        raise SlayError("the model lays a mask of its own over attention; slay has no such")
    sees = _sees(mask_function, batch_size, device)
    boundaries = _boundaries(sees, queries, keys, causal, device)
    if boundaries is None:
        return real
    if real is not None:
        raise SlayError("packed sequences and padding exclude each other")
    return boundaries


def _real(attention_mask: Tensor, keys: range, kv_length: int) -> Tensor | None:
    """Slice a mask (B, L) to those keys; None if they are all of them, and all real."""
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
    """Return a function (i, j) that is True where query i sees key j.

    i and j: (1 or B, n) each, compared pair by pair; result: (B, n).
    """
    rows = torch.arange(batch, device=device).unsqueeze(-1)  # (B, 1)
    head = torch.zeros((), dtype=torch.long, device=device)
    return lambda i, j: function(rows, head, i, j).expand(batch, j.shape[-1])


def _boundaries(
    sees: Callable[[Tensor, Tensor], Tensor],
    queries: range,
    keys: range,
    causal: bool,
    device: torch.device | str,
) -> Tensor | None:
    """Boundaries of packed sequences; None if all queries see all keys, or all earlier ones.

    Tests each query against the ends of its sequence and neighbours at powers of two: O(L log L)
    pairs.
    """
    i = torch.arange(queries.start, queries.stop, device=device).unsqueeze(0)  # (1, L)
    begins, start = i == queries.start, torch.full_like(i, keys.start)
    if queries == keys:
        begins = begins | ~sees(i, (i - 1).clamp(min=keys.start))  # (B, L)
        start = torch.where(begins, i, start).cummax(dim=-1).values  # of i's own sequence
    shifts = [2**n for n in range(len(keys).bit_length())]
    other = torch.zeros((), dtype=torch.bool, device=device)
    for j in (start, start - 1, *(i + n for n in shifts), *(i - n for n in shifts)):
        j = j.clamp(keys.start, keys.stop - 1)
        expected = (start <= j) & (j <= i) if causal else torch.ones_like(i, dtype=torch.bool)
        other = other | (sees(i, j) != expected).any()
    if other:
        raise SlayError(
            f"the mask over {len(keys)} tokens is neither causal nor of packed sequences; slay has "
            "no such (a sliding window is turned off by sliding_window=None in the configuration)"
        )
    if not begins[:, 1:].any():
        return None
    inside = begins.flatten().nonzero().flatten()
    return torch.cat((inside, inside.new_full((1,), begins.numel()))).to(torch.int32)
