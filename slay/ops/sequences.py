"""The sequences of a call: their padding, boundaries, positions, and the state before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from slay.errors import SlayError, shown, whole
from slay.ops.modes import readable, stands_in

Boundaries = Tensor | Sequence[int]
Memory = tuple[Tensor | None, ...]
Places = tuple[Tensor | None, Tensor | None]  # positions of queries and keys: (B, L) each


@dataclass(frozen=True)
class Sequences:
    """What a call knows of its sequences besides q: (B, H, Lq, d), k and v: (B, K, Lk, ...)."""

    padding: Tensor | None = None  # (B, Lk), True for keys that are padding
    lengths: list[int] | None = None  # of N sequences packed into one row
    start: Tensor | None = None  # (B,) or (N,): tokens before the first
    memory: Memory | None = None  # state before the first token (`State.memory`)
    final: bool = False  # the state after the last token is wanted
    overwrite: bool = False  # and may be written over `memory`

    @property
    def state(self) -> Tensor | None:
        """The first tensor of `memory`: S of linear attention."""
        return None if self.memory is None else self.memory[0]

    def unpacked(self) -> list[Sequences]:
        """Each packed sequence by itself."""
        n = len(self.lengths or ())
        starts = [None] * n if self.start is None else self.start.split(1)
        rows: list[Memory | None] = [None] * n
        if self.memory is not None:
            rows = [
                tuple(None if t is None else t[i : i + 1] for t in self.memory) for i in range(n)
            ]
        return [
            Sequences(start=start, memory=row, final=self.final)
            for start, row in zip(starts, rows, strict=True)
        ]

    def longest(self, lq: int, lk: int) -> int:
        """Tokens of the longest sequence, earlier ones included where they can be read."""
        known, ends = max(lq, lk), None
        if self.lengths is not None:
            known = max(self.lengths)
        if self.padding is not None:
            known, ends = lq if lq != lk else 0, (~self.padding).sum(1)
        if self.start is not None:
            if ends is None:
                own = known if self.lengths is None else self.lengths
                ends = torch.tensor(own, device=self.start.device)
            ends = ends + self.start
        if ends is not None and ends.numel() and readable(ends):
            known = max(known, int(ends.max()))
        return known

    def places(self, lq: int, lk: int) -> Places:
        """Positions where padding, which takes up none, shifts them; else None.

        With as many queries as keys, both are the same tokens.
        """
        if self.padding is None:
            return None, None
        j = positions(lk, None, self.start, self.padding.device, self.padding)
        return (j if lq == lk else None), j

    def positions(self, lq: int, lk: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Positions of queries and keys: (B or 1, 1, L) each."""
        shifted_i, shifted_j = self.places(lq, lk)
        i = positions(lq, self.lengths, self.start, device) if shifted_i is None else shifted_i
        j = i if lq == lk else torch.arange(lk, device=device).unsqueeze(0)
        return i.unsqueeze(1), (j if shifted_j is None else shifted_j).unsqueeze(1)


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
