"""Linear attention over features, chunk by chunk: O(L) time, O(chunk x m) memory.

With S = sum_j phi(k_j) [v_j, 1]^T over the chunks before, (m, e + 1), and inside a chunk
A = tril(<phi(q_i), phi(k_j)>):

    [o, z] = A [v, 1] + phi(q) S,    y = o / z.

The column of ones carries the normaliser through the same products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.features.forms import Features
from slay.features.workspace import Workspace
from slay.ops.groups import fold, tril, unfold
from slay.ops.normalise import accumulation_dtype, normalise

FeatureMap = Callable[[Tensor, Tensor], Features]
Span = tuple[int, int]  # the first token, and the one after the last


@dataclass(frozen=True)
class Maps:
    """How tokens become features and chunks; see `slay.ops.linear` for the arguments."""

    query_map: FeatureMap
    key_map: FeatureMap
    chunk_size: int
    start: Tensor | None  # (B,)
    groups: int

    def spans(self, u: Tensor) -> Iterator[Span]:
        """The chunks of u: (B, H, L, d)."""
        length = u.shape[2]
        for lo in range(0, length, self.chunk_size):
            yield lo, min(lo + self.chunk_size, length)

    def query(self, u: Tensor, span: Span) -> Features:
        """phi of folded queries u: (B, K, G c, d)."""
        return self.query_map(u, self._position(span, u, self.groups))

    def key(self, u: Tensor, span: Span) -> Features:
        """phi of keys u: (B, K, c, d)."""
        return self.key_map(u, self._position(span, u, 1))

    def _position(self, span: Span, u: Tensor, copies: int) -> Tensor:
        position = torch.arange(*span, device=u.device).view(1, 1, -1)
        if self.start is not None:
            position = position + self.start.view(-1, 1, 1)
        return position if copies == 1 else position.repeat(1, 1, copies)  # (B or 1, 1, n)


def rows(t: Tensor, span: Span) -> Tensor:
    """Those tokens of t: (B, H, L, d) -> (B, H, c, d), in the dtype of sums."""
    return t[:, :, span[0] : span[1]].to(accumulation_dtype(t.dtype))


def values(v: Tensor, padding: Tensor | None, span: Span) -> Tensor:
    """[v, 1] of those tokens, zero where they are padding: (B, K, c, e + 1)."""
    v1 = F.pad(rows(v, span), (0, 1), value=1.0)
    if padding is None:
        return v1
    return v1.masked_fill(padding[:, None, span[0] : span[1], None], 0.0)


def add(state: Tensor | None, phi: Tensor, v1: Tensor) -> Tensor:
    """S + phi^T [v, 1]: (B, K, m, e + 1)."""
    update = phi.mT @ v1
    return update if state is None else state + update


def chunked(
    maps: Maps,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    state: Tensor | None,
    *,
    causal: bool,
    final: bool,
    work: Workspace | None = None,
    keep: Callable[[int, Tensor | None], None] = lambda index, state: None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y: (B, H, L, e), z: (B, H, L, 1), and the last state (the last but one unless `final`).

    Differentiable, at the price of everything m wide, unless it has a workspace. `keep` is shown
    the state before each chunk.
    """
    ys, zs = [], []
    if not causal:
        for span in maps.spans(k):
            phi_k = maps.key(rows(k, span), span)
            state = add(state, phi_k.expand(work), values(v, padding, span))
    spans = list(maps.spans(q))
    for index, span in enumerate(spans):
        keep(index, state)
        phi_q = maps.query(fold(rows(q, span), maps.groups), span)
        o = None if state is None else phi_q.expand(work) @ state  # (B, K, G c, e + 1)
        if causal:
            phi_k, v1 = maps.key(rows(k, span), span), values(v, padding, span)
            inside = tril(phi_q.scores(phi_k), maps.groups) @ v1
            o = inside if o is None else o + inside
            if final or span != spans[-1]:
                state = add(state, phi_k.expand(work), v1)
        assert o is not None  # there is a key
        o, z = unfold(o[..., :-1], maps.groups), unfold(o[..., -1:], maps.groups)
        ys.append(normalise(o, z).to(v.dtype))
        zs.append(z)
    if len(ys) == 1:
        return ys[0], zs[0], state
    return torch.cat(ys, dim=2), torch.cat(zs, dim=2), state
