"""Linear attention over features, chunk by chunk: O(L) time, O(chunk x m) memory.

With S = sum_j [v_j, 1] phi(k_j)^T over earlier chunks, (e + 1, m), and inside a chunk
A = tril(<phi(q_i), phi(k_j)>):

    [o, z] = A [v, 1] + phi(q) S^T,    y = o / z.

The column of ones carries the normaliser through the same products. They are computed transposed,
with e + 1 rows and c or m columns, which matrix products handle faster than e + 1 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.features.feature_map import FeatureMap
from slay.features.forms import Features
from slay.features.workspace import Workspace, product
from slay.ops.groups import fold, tril, tril_, unfold
from slay.ops.normalise import accumulation_dtype, normalise, saturating_cast
from slay.ops.sequences import Places

Span = tuple[int, int]  # the first token, and the one after the last
BLOCK = 4  # chunks whose narrow factors are evaluated at once


@dataclass(frozen=True)
class Maps:
    """Feature map and chunking of one call; see `slay.ops.linear` for the arguments."""

    feature_map: FeatureMap
    chunk_size: int
    groups: int
    start: Tensor | None  # (B,)
    places: Places  # positions, if not consecutive from `start`

    def spans(self, u: Tensor) -> Iterator[Span]:
        """The chunks of u: (B, H, L, d)."""
        return spans(0, u.shape[2], self.chunk_size)

    def queries(self, q: Tensor) -> Iterator[tuple[Span, Features]]:
        """Yield each chunk of queries and its phi."""
        for block, span, inside in self._blocks(q.shape[2]):
            if span[0] == block[0]:
                phi = self.query(q, block)
            yield span, phi if span == block else phi.at(partial(cut, inside, self.groups))

    def keys(
        self, k: Tensor, v: Tensor, padding: Tensor | None, work: Workspace
    ) -> Iterator[tuple[Features, Tensor]]:
        """Yield phi and [v, 1]^T of each chunk of keys."""
        for block, span, inside in self._blocks(k.shape[2]):
            if span[0] == block[0]:
                phi, v1 = self.key(k, block), values(v, padding, block, work)
            yield phi if span == block else phi.at(partial(cut, inside, 1)), v1[..., slice(*inside)]

    def _blocks(self, length: int) -> Iterator[tuple[Span, Span, Span]]:
        """Yield (block, chunk, chunk relative to its block)."""
        for block in spans(0, length, BLOCK * self.chunk_size):
            for lo, hi in spans(*block, self.chunk_size):
                yield block, (lo, hi), (lo - block[0], hi - block[0])

    def query(self, q: Tensor, span: Span) -> Features:
        """phi of a span of queries, folded: (B, K, G c, ...)."""
        return self.query_of(fold(rows(q, span), self.groups), span)

    def key(self, k: Tensor, span: Span) -> Features:
        """phi of a span of keys: (B, K, c, ...)."""
        return self.key_of(rows(k, span), span)

    def query_of(self, u: Tensor, span: Span) -> Features:
        """phi of queries already sliced and folded."""
        return self.feature_map.queries(u, self._position(span, u, self.groups, self.places[0]))

    def key_of(self, u: Tensor, span: Span) -> Features:
        """phi of keys already sliced."""
        phi: Features = self.feature_map(u, self._position(span, u, 1, self.places[1]))
        return phi

    def _position(self, span: Span, u: Tensor, copies: int, places: Tensor | None) -> Tensor:
        position = torch.arange(*span, device=u.device).view(1, 1, -1)
        if places is not None:
            position = places[:, None, span[0] : span[1]]
        elif self.start is not None:
            position = position + self.start.view(-1, 1, 1)
        return position if copies == 1 else position.repeat(1, 1, copies)  # (B or 1, 1, n)


def spans(first: int, end: int, size: int) -> Iterator[Span]:
    """Split [first, end) into spans of `size` tokens, the last possibly shorter."""
    return ((lo, min(lo + size, end)) for lo in range(first, end, size))


def cut(span: Span, groups: int, factor: Tensor) -> Tensor:
    """Slice a span out of every group: (B, K, G n, w) -> (B, K, G c, w)."""
    if groups == 1:
        return factor[..., slice(*span), :]
    return factor.unflatten(-2, (groups, -1))[..., slice(*span), :].flatten(-3, -2)


def rows(t: Tensor, span: Span) -> Tensor:
    """Slice a span of t, in the accumulation dtype: (B, H, L, d) -> (B, H, c, d)."""
    return t[:, :, span[0] : span[1]].to(accumulation_dtype(t.dtype))


def values(v: Tensor, padding: Tensor | None, span: Span, work: Workspace | None = None) -> Tensor:
    """[v, 1]^T of a span, zero at padding: (B, K, e + 1, c)."""
    block = rows(v, span).mT
    if work is None:
        v1 = F.pad(block, (0, 0, 0, 1), value=1.0)
    else:
        v1 = work("values", (*block.shape[:2], block.shape[2] + 1, block.shape[3]), block)
        v1[..., :-1, :] = block
        v1[..., -1, :] = 1.0
    if padding is None:
        return v1
    return v1.masked_fill(padding[:, None, None, span[0] : span[1]], 0.0)


def add(state: Tensor | None, v1: Tensor, phi: Tensor) -> Tensor:
    """S + [v, 1]^T phi: (B, K, e + 1, m)."""
    update = v1 @ phi
    return update if state is None else state + update


def add_(sum_: Tensor | None, v1: Tensor, phi: Tensor) -> Tensor:
    """`add` in place, for a sum we own: it is too large to reallocate for every chunk."""
    if sum_ is None:
        return v1 @ phi
    sum_.flatten(0, 1).baddbmm_(v1.flatten(0, 1), phi.flatten(0, 1))
    return sum_


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
) -> tuple[Tensor, Tensor | None]:
    """Return y: (B, H, L, e) and the final state, which may be None unless `final`.

    Pure and differentiable, but materialises tensors m wide: for `torch.compile`, `torch.func`,
    second derivatives, and as readable reference. All chunks are computed at once, so that the
    graph does not depend on the length.
    """
    whole = (0, q.shape[2])
    phi_q = maps.query(q, whole)
    keys = (0, k.shape[2])
    phi_k, v1 = maps.key(k, keys), values(v, padding, keys)  # v1: (B, K, e + 1, L)
    if not causal:
        state = add(state, v1, phi_k.expand())
        return unfold(output(state @ phi_q.expand().mT, v.dtype), maps.groups), state
    cut = Cut.of(q.shape[2], maps.chunk_size)
    phi_q, phi_k = phi_q.at(partial(cut, maps.groups)), phi_k.at(partial(cut, 1))
    v1 = cut(1, v1.mT).mT  # (B, K, N, e + 1, C)
    o = v1 @ tril(phi_q.scores(phi_k), maps.groups).mT  # (B, K, N, e + 1, G C)
    if state is not None or final or cut.several:
        first = (torch.zeros_like(v1[:, :, 0, :, :1]) if state is None else state).unsqueeze(2)
        updates = v1 @ phi_k.expand()  # (B, K, N, e + 1, m)
        states = torch.cat((first.expand_as(updates[:, :, :1]), updates), dim=2).cumsum(2)
        o = o + states[:, :, :-1] @ phi_q.expand().mT
        state = states[:, :, -1]
    o = o.unflatten(-1, (maps.groups, -1)).permute(0, 1, 3, 4, 2, 5).flatten(-2)
    there = torch.arange(q.shape[2], device=o.device)  # a slice would add a guard on the length
    o = o.index_select(-1, there).flatten(-2)  # (B, K, e + 1, G L)
    return unfold(output(o, v.dtype), maps.groups), state


@dataclass(frozen=True)
class Cut:
    """Cuts sequences into whole chunks of C tokens, after padding the end with zeros."""

    size: int
    zeros: int
    several: bool = True

    @classmethod
    def of(cls, length: int, size: int) -> Cut:
        """Chunking of a sequence; always two or more chunks at a dynamic length.

        A graph that depended on the number of chunks would be recompiled.
        """
        if not torch.compiler.is_compiling():
            return cls(size, size - 1, length > size)
        from torch.fx.experimental.symbolic_shapes import statically_known_true as known

        if known(length <= size):
            return cls(length, 0, several=False)
        return cls(size, size if known(length >= size) else 2 * size)

    def __call__(self, groups: int, factor: Tensor) -> Tensor:
        """(B, K, G L, w) -> (B, K, N, G C, w)."""
        tokens = F.pad(factor.unflatten(-2, (groups, -1)), (0, 0, 0, self.zeros))
        return tokens.unfold(3, self.size, self.size).permute(0, 1, 3, 2, 5, 4).flatten(3, 4)


def output(o: Tensor, dtype: torch.dtype) -> Tensor:
    """y = o / z: (B, K, e + 1, n) -> (B, K, n, e)."""
    return saturating_cast(normalise(o[..., :-1, :], o[..., -1:, :]), dtype).mT


def chunked_in_place(
    maps: Maps,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    state: Tensor | None,
    *,
    causal: bool,
    final: bool,
    overwrite: bool = False,
    keep: Callable[[int, Tensor | None], None] = lambda index, state: None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`chunked` without autograd, chunk by chunk in reused memory; also returns z: (B, H, L, 1).

    Unless `final`, a causal state lacks the last chunk. `keep` is called with the state before each
    chunk, which is then modified in place; the initial state is copied unless `overwrite`.
    """
    work = Workspace()
    y = v.new_empty(*q.shape[:3], v.shape[-1])
    z = v.new_empty(*q.shape[:3], 1, dtype=accumulation_dtype(v.dtype))
    if state is not None and not (overwrite and state.is_contiguous()):
        state = state.clone(memory_format=torch.contiguous_format)
    keys = maps.keys(k, v, padding, work)
    if not causal:
        for phi_k, v1 in keys:
            state = add_(state, v1, phi_k.expand(work))
    for index, (span, phi_q) in enumerate(maps.queries(q)):
        keep(index, state)
        o = None  # (B, K, e + 1, G c)
        if state is not None:
            o = product(state, phi_q.expand(work).mT, work, "o")
        if causal:
            phi_k, v1 = next(keys)
            o = add_(o, v1, tril_(phi_q.scores(phi_k, work), maps.groups).mT)
            if final or span[1] < q.shape[2]:
                state = add_(state, v1, phi_k.expand(work))
        assert o is not None  # there is a key
        block = slice(*span)
        y[:, :, block] = unfold(output(o, v.dtype), maps.groups)
        z[:, :, block] = unfold(o[..., -1:, :].mT, maps.groups)
    return y, z, state
