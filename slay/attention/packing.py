"""Packed sequences: several sequences concatenated in one row, given by their boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from slay.errors import SlayError, shown, whole
from slay.ops.modes import stands_in

Boundaries = Tensor | Sequence[int]


def lengths_of(cu_seqlens: Boundaries, batch: int, length: int) -> list[int]:
    """Lengths of packed sequences from their boundaries 0 = c_0 < c_1 < ... < c_N = L.

    Raises ValueError for boundaries that do not split (1, L) into non-empty sequences: an empty one
    would have no output and leave its state unchanged.
    """
    if isinstance(cu_seqlens, Tensor):
        if cu_seqlens.ndim != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
            raise SlayError(
                f"cu_seqlens has shape {tuple(cu_seqlens.shape)} and dtype {cu_seqlens.dtype}; "
                "expected (N + 1,) in int32 or int64"
            )
        # Checked inline: a helper function would be compiled separately after a graph break.
        if torch.compiler.is_compiling() or stands_in(cu_seqlens):
            raise SlayError(
                "cu_seqlens is a tensor, whose numbers cannot be read while a graph is traced; "
                "give a list of whole numbers, or call this part outside of it"
            )
        bounds = cu_seqlens.tolist()
    else:
        bounds = [whole("a boundary in cu_seqlens", bound, 0) for bound in cu_seqlens]
    if batch != 1:
        raise SlayError(f"cu_seqlens needs all sequences in one row, but the batch has {batch}")
    lengths = [b - a for a, b in pairwise(bounds)]
    if 0 in lengths:
        raise SlayError(
            f"cu_seqlens = {shown(bounds)}: sequence {lengths.index(0)} is empty; leave such "
            "sequences out, and their states with them"
        )
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != length or min(lengths) < 1:
        raise SlayError(
            f"cu_seqlens = {shown(bounds)}: expected to rise from 0 to the length {length}"
        )
    return lengths


def positions(
    length: int,
    lengths: list[int] | None,
    start: Tensor | None,
    device: torch.device,
    padding: Tensor | None = None,
) -> Tensor:
    """Position of every token in its own sequence: (B or 1, L); `start`: (B,) or (N,).

    Padding, (B, L), takes up none: tokens after it continue the count of those before it.
    """
    if lengths is None:
        position = torch.arange(length, device=device).unsqueeze(0)
        if padding is not None:
            before = padding.cumsum(1).masked_fill(padding, 0).cummax(1).values
            first = padding.long().cumprod(1).sum(1, keepdim=True)  # padding on the left
            position = position - before.maximum(first)
        return position if start is None else position + start.unsqueeze(-1)
    parts = [torch.arange(n, device=device) for n in lengths]
    if start is not None:
        parts = [part + first for part, first in zip(parts, start, strict=True)]
    return torch.cat(parts).unsqueeze(0)
