"""Linear attention in PyTorch: the entry point and the backward pass.

`slay.ops.chunked` is the recurrence over chunks. Its backward pass is computed here chunk by chunk
with recomputed features, so that nothing m wide is saved per token. With g = [dy, -dy·y] / z and S
before a chunk:

    dA = tril(g [v, 1]^T),    dphi(q) = g S,    dphi(k) = [v, 1] dS,
    d[v, 1] = A^T g + phi(k) dS^T,    and, going backwards,    dS <- dS + g^T phi(q).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from slay.features.feature_map import FeatureMap
from slay.features.forms import Features
from slay.features.workspace import Workspace, product
from slay.ops.chunked import (
    Maps,
    Span,
    add,
    add_,
    chunked,
    chunked_in_place,
    rows,
    values,
)
from slay.ops.groups import fold, tril_, unfold
from slay.ops.modes import transformed, without_autocast
from slay.ops.normalise import divisor
from slay.ops.sequences import Sequences


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: FeatureMap,
    sequences: Sequences,
    *,
    causal: bool,
    chunk_size: int = 128,
) -> tuple[Tensor, Tensor | None]:
    """y_i = sum_j <phi(q_i), phi(k_j)> v_j / sum_j <phi(q_i), phi(k_j)>, over j <= i when causal.

    q: (B, H, Lq, d); k: (B, K, Lk, d) and v: (B, K, Lk, e), K dividing H; Lq = Lk when causal.
    Lq, Lk >= 1, and sequences that are not packed. A state is S: (B, K, e + 1, m), the sum over all
    earlier tokens; it needs `causal`. An initial state that requires no gradient may be overwritten
    by the final one if `sequences.overwrite`. Returns y: (B, H, Lq, e) in v's dtype, and the state
    after the last token if `sequences.final`.
    """
    places = sequences.places(q.shape[2], k.shape[2])
    maps = Maps(feature_map, chunk_size, q.shape[1] // k.shape[1], sequences.start, places)
    parameters = [p for p in feature_map.parameters() if p.requires_grad]
    final = sequences.final
    tensors = (q, k, v, sequences.padding, sequences.state)
    with without_autocast(q.device):
        if torch.compiler.is_compiling() or transformed():
            y, state = chunked(maps, *tensors, causal=causal, final=final)
        elif wants_gradient(*tensors, *parameters):
            y, state = _LinearAttention.apply(maps, causal, final, *tensors, *parameters)
        else:
            y, _, state = chunked_in_place(
                maps, *tensors, causal=causal, final=final, overwrite=sequences.overwrite
            )
    return y, state if final else None


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Return True if autograd records a call with these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


BACK = 2  # backward chunks are this many times longer: fewer, larger steps are faster


class _LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: Maps,
        causal: bool,
        final: bool,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        padding: Tensor | None,
        initial_state: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        states: list[Tensor | None] = []
        per_state = BACK  # chunks between saved states

        def keep(index: int, state: Tensor | None) -> None:
            """Save states at intervals: about as many elements as q, k, v and y have."""
            nonlocal per_state
            if index == BACK and state is not None:
                chunk = maps.chunk_size * maps.groups * (q.shape[-1] + v.shape[-1])
                per_state *= max(1, round(state[0, 0].numel() / (2 * BACK * chunk)))
            if index % per_state == 0:
                states.append(None if state is None else state.clone())

        y, z, state = chunked_in_place(
            maps, q, k, v, padding, initial_state, causal=causal, final=final, keep=keep
        )
        ctx.maps = replace(maps, chunk_size=BACK * maps.chunk_size)
        ctx.causal, ctx.per_state, ctx.n_parameters = causal, per_state, len(parameters)
        ctx.once = maps, final
        if initial_state is not None and not initial_state.requires_grad:
            initial_state = None  # it is saved with the other states
        ctx.save_for_backward(q, k, v, padding, initial_state, y, z, *parameters, *states)
        return y, state if final else None

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dstate: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, padding, initial_state, y, z, *rest = ctx.saved_tensors
        parameters, states = rest[: ctx.n_parameters], rest[ctx.n_parameters :]
        if torch.is_grad_enabled():
            first = initial_state if initial_state is not None or not ctx.causal else states[0]
            inputs = (q, k, v, padding, first, *parameters)
            return None, None, None, *_differentiable(ctx, inputs, dy, dstate)
        back = _Backward(ctx.maps, (q, k, v, padding), (y, z, dy), parameters)
        with without_autocast(q.device):
            if ctx.causal:
                initial = ctx.needs_input_grad[7]
                dstate = back.causal(states, ctx.per_state // BACK, dstate, initial=initial)
            else:
                back.bidirectional(states[0])
        return None, None, None, back.dq, back.dk, back.dv, None, dstate, *back.dparameters


def _differentiable(
    ctx: Any, inputs: Sequence[Any], dy: Tensor, dstate: Tensor | None
) -> list[Tensor | None]:
    """Gradients that are differentiable themselves (double backward)."""
    maps, final = ctx.once
    with without_autocast(dy.device):
        y, state = chunked(maps, *inputs[:5], causal=ctx.causal, final=final)
    outputs: list[Any] = [(y, dy), (state, dstate)] if dstate is not None else [(y, dy)]
    wanted = {i: t for i, t in enumerate(inputs) if t is not None and t.requires_grad}
    found = torch.autograd.grad(
        [t for t, _ in outputs],
        list(wanted.values()),
        [g for _, g in outputs],
        create_graph=True,
        allow_unused=True,
    )
    by_place = dict(zip(wanted, found, strict=True))
    return [by_place.get(i) for i in range(len(inputs))]


class _Backward:
    """Gradients of one call, written chunk by chunk into dq, dk and dv."""

    def __init__(
        self,
        maps: Maps,
        inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
        outputs: tuple[Tensor, Tensor, Tensor],
        parameters: Sequence[Tensor],
    ):
        self.maps, self.parameters, self.work = maps, parameters, Workspace()
        self.q, self.k, self.v, self.padding = inputs
        self.y, self.z, self.dy = outputs
        self.dq, self.dk, self.dv = (torch.empty_like(t) for t in inputs[:3])
        self.dparameters: list[Tensor | None] = [None] * len(parameters)

    def causal(
        self,
        states: Sequence[Tensor | None],
        stride: int,
        dstate: Tensor | None,
        *,
        initial: bool,
    ) -> Tensor | None:
        """Iterate over chunks in reverse; `states` are those before every `stride`-th chunk.

        Returns the gradient of the initial state if `initial`.
        """
        spans = list(self.maps.spans(self.q))
        dstate = None if dstate is None else dstate.clone(memory_format=torch.contiguous_format)
        for index in reversed(range(len(states))):
            segment = spans[index * stride : (index + 1) * stride]
            before = [states[index]]
            for span in segment[:-1]:
                phi_k = self.maps.key(self.k, span)
                v1 = values(self.v, self.padding, span, self.work)
                before.append(add(before[-1], v1, phi_k.expand(self.work)))
            for span, state in zip(reversed(segment), reversed(before), strict=True):
                dstate = self._chunk(span, state, dstate, more=initial or span[0] > 0)
        return dstate

    def _chunk(
        self, span: Span, state: Tensor | None, dstate: Tensor | None, *, more: bool
    ) -> Tensor | None:
        """Gradients of one chunk from S before and dS after it; returns dS before it if `more`."""
        groups, work = self.maps.groups, self.work
        q, k = _leaf(fold(rows(self.q, span), groups)), _leaf(rows(self.k, span))
        with torch.enable_grad():
            phi_q, phi_k = self.maps.query_of(q, span), self.maps.key_of(k, span)
        g, v1 = self._incoming(span), values(self.v, self.padding, span, work)
        dv1 = g.mT @ tril_(phi_q.scores(phi_k, work), groups)  # (B, K, e + 1, c)
        dscores = tril_(product(g, v1, work, "dscores"), groups)  # (B, K, G c, c)
        of_q, of_k = phi_q.pull_scores(phi_k, dscores, work)
        if state is not None:
            wide = self._pull_wide(phi_q, g, state)
            of_q = [a + b for a, b in zip(of_q, wide, strict=True)]
        if dstate is not None:
            wide = self._pull_wide(phi_k, v1.mT, dstate)
            of_k = [a + b for a, b in zip(of_k, wide, strict=True)]
            dv1 = dv1 + dstate @ phi_k.expand(work).mT
        factors = [*phi_q.factors(), *phi_k.factors()]
        dq, dk = self._pull(zip(factors, [*of_q, *of_k], strict=True), q, k)
        self.dq[:, :, slice(*span)] = unfold(dq, groups)
        self.dk[:, :, slice(*span)] = dk
        self._put_values(span, dv1)
        return add_(dstate, g.mT, phi_q.expand(work)) if more else None

    def bidirectional(self, state: Tensor) -> None:
        """Non-causal gradients: one state serves all queries, and its gradient all keys."""
        groups, work = self.maps.groups, self.work
        dstate = None
        for span in self.maps.spans(self.q):
            q, g = _leaf(fold(rows(self.q, span), groups)), self._incoming(span)
            with torch.enable_grad():
                phi_q = self.maps.query_of(q, span)
            wide = self._pull_wide(phi_q, g, state)
            (dq,) = self._pull(zip(phi_q.factors(), wide, strict=True), q)
            self.dq[:, :, slice(*span)] = unfold(dq, groups)
            dstate = add_(dstate, g.mT, phi_q.expand(work))
        assert dstate is not None  # there is a query
        for span in self.maps.spans(self.k):
            k, v1 = _leaf(rows(self.k, span)), values(self.v, self.padding, span, work)
            with torch.enable_grad():
                phi_k = self.maps.key_of(k, span)
            wide = self._pull_wide(phi_k, v1.mT, dstate)
            (dk,) = self._pull(zip(phi_k.factors(), wide, strict=True), k)
            self.dk[:, :, slice(*span)] = dk
            self._put_values(span, dstate @ phi_k.expand(work).mT)

    def _incoming(self, span: Span) -> Tensor:
        """g = [dy, -dy·y] / z: (B, K, G c, e + 1)."""
        z = self.z[:, :, slice(*span)]  # (B, H, c, 1)
        dy, y = rows(self.dy, span), rows(self.y, span)
        dz = -(dy * y).sum(-1, keepdim=True)
        return fold(torch.cat((dy, dz), dim=-1) / divisor(z), self.maps.groups)

    def _pull_wide(self, phi: Features, g: Tensor, state: Tensor) -> list[Tensor]:
        """Gradients of the factors from dphi = g S: (B, K, c, e + 1), (B, K, e + 1, m)."""
        if phi.by_column:
            dphi = product(state.mT, g.mT, self.work, "dphi").mT
        else:
            dphi = product(g, state, self.work, "dphi")
        return phi.vjp(dphi, self.work)

    def _pull(self, known: Iterable[tuple[Tensor, Tensor]], *leaves: Tensor) -> Sequence[Tensor]:
        """Gradients of the leaves from those of some features; accumulates those of parameters."""
        known = [(feature, gradient) for feature, gradient in known if feature.requires_grad]
        if not known:
            return [torch.zeros_like(leaf) for leaf in leaves]
        features, gradients = zip(*known, strict=True)
        wanted = (*leaves, *self.parameters)
        found = torch.autograd.grad(features, wanted, gradients, materialize_grads=True)
        for i, gradient in enumerate(found[len(leaves) :]):
            held = self.dparameters[i]
            self.dparameters[i] = gradient if held is None else held + gradient
        return found[: len(leaves)]

    def _put_values(self, span: Span, dv1: Tensor) -> None:
        dv = dv1[..., :-1, :].mT
        if self.padding is not None:
            dv = dv.masked_fill(self.padding[:, None, slice(*span), None], 0.0)
        self.dv[:, :, slice(*span)] = dv


def _leaf(u: Tensor) -> Tensor:
    return u.detach().requires_grad_()
