"""Linear attention by Triton kernels: the kernel launches, as PyTorch custom operators.

A short sequence is a single chunk: `chunk_output` forward, `query_bwd` and `key_bwd` backward.
Longer ones also need `chunk_state` and `state_passing`. Factors are computed by `features`, or are
given.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import triton
from torch import Tensor

from slay.features.spec import FeatureSpec
from slay.ops.modes import remembered
from slay.ops.triton import chunk_backward, chunk_output, chunk_state, state_passing
from slay.ops.triton.chunk_state import Side
from slay.ops.triton.features import features, features_key
from slay.ops.triton.layout import (
    State,
    from_kernels,
    gradient_to_sums,
    sums_to_gradient,
    to_kernels,
)
from slay.ops.triton.tiles import Rows, rows
from slay.ops.triton.tiling import (
    LONGEST_TILE,
    Tiling,
    chunk_length,
    direct_length,
    tiling_of,
    value_columns,
)

SEGMENT = 32_768  # tokens whose factors are held at once when no gradient is needed


@remembered
def packed_chunks(
    bounds: tuple[int, ...], chunk: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Chunks of packed sequences, (N, 3) int32: start, end, sequence; first chunk of each."""
    spans, runs = [], [0]
    for sequence, (first, last) in enumerate(pairwise(bounds)):
        starts = range(first, last, chunk)
        spans += [(lo, min(lo + chunk, last), sequence) for lo in starts]
        runs.append(len(spans))
    return (
        torch.tensor(spans, dtype=torch.int32, device=device).view(-1, 3),
        torch.tensor(runs, dtype=torch.int32, device=device),
    )


def cumulative(log_decay: Tensor, starts: Tensor) -> Tensor:
    """Prefix sum of log decays within each token's chunk: (B, K, L) float32.

    Clamped at -110, where exp is zero in float32: stronger decays would cost the other sums
    precision.
    """
    G = log_decay.double().clamp(min=-110.0).cumsum(-1)
    before = torch.cat((G.new_zeros(*G.shape[:-1], 1), G), dim=-1)
    return (G - before.index_select(-1, starts)).float()


class LinearCall:
    """One call of the operators: factors, values, chunking and kernel launches."""

    def __init__(
        self, p_q: Tensor | None, f_q: Tensor, p_k: Tensor | None, f_k: Tensor, v: Tensor,
        padding: Tensor | None, log_decay: Tensor | None,
        initial_S: Tensor | None, initial_s: Tensor | None, bounds: Sequence[int] | None,
        score: str, degree: int, coefficients: Sequence[float], causal: bool, chunk: int,
        final: bool,
    ):  # fmt: skip
        self.p_q, self.f_q, self.p_k, self.f_k, self.v = p_q, f_q, p_k, f_k, v
        self.padding, self.causal, self.final = padding, causal, final
        self.initial = None
        if initial_S is not None and initial_s is not None:
            self.initial = State(initial_S, initial_s)
        self.B, self.H, self.Lq = f_q.shape[:3]
        self.K, self.Lk = v.shape[1], v.shape[2]
        widths = 1 if p_k is None else int(p_k.shape[3]), int(f_k.shape[3])
        self.M = tiling_of(score, degree, tuple(coefficients), widths, int(v.shape[3]), v.dtype)
        lengths = [max(self.Lq, self.Lk)]
        if bounds is not None:
            lengths = [last - first for first, last in pairwise(bounds)]
        self.C, self.inside = self._cut(max(lengths), chunk)
        self.one_chunk = max(lengths) <= self.C
        self.sequences = len(lengths)
        self.spans = self.runs = None
        if bounds is not None:
            self.spans, self.runs = packed_chunks(tuple(bounds), self.C, v.device)
        self.log_decay, self.G = log_decay, None
        if log_decay is not None:
            self.G = cumulative(log_decay, self._chunk_starts())

    def _cut(self, longest: int, chunk: int) -> tuple[int, bool]:
        """Return tokens per chunk, and True if queries see their own chunk without a state."""
        direct = direct_length(self.M) // (1 if self.causal else 2)
        if not chunk and longest <= direct:
            return triton.cdiv(longest, LONGEST_TILE) * LONGEST_TILE, True
        return chunk or chunk_length(self.M, self.v.element_size()), self.causal

    def _chunk_starts(self) -> Tensor:
        """First token of each token's chunk: (L,)."""
        token = torch.arange(self.Lk, device=self.v.device)
        if self.spans is None:
            return token // self.C * self.C
        first = self.spans[:, 0].long()
        return first[torch.searchsorted(first, token, right=True) - 1]

    @property
    def dtype(self) -> torch.dtype:
        """dtype of states and of g."""
        return torch.float32 if self.v.dtype == torch.float32 else torch.bfloat16

    def chunks(self, length: int) -> int:
        return triton.cdiv(length, self.C) if self.spans is None else len(self.spans)

    def new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.v.device)

    def queries(self, w: Tensor | None, one: Tensor | None = None) -> Side:
        return Side(_rows(self.p_q), rows(self.f_q), _rows(w), one, None, self.G, self.spans)

    def keys(self) -> Side:
        f, v = rows(self.f_k), rows(self.v)
        return Side(_rows(self.p_k), f, v, None, self.padding, self.G, self.spans)

    def chunk_states(self, side: Side, length: int, *, query: bool) -> State:
        """State of each chunk by itself."""
        N, M, bk = self.chunks(length), self.M, self.B * self.K
        S, s = self.new(bk, N, M.rows, M.EP, dtype=self.dtype), self.new(bk, N, M.sums)
        chunk_state.kernel(
            lambda tiles: (chunk_state.programs(M, tiles["R"]) * N * bk,), M.key, length,
            side=side, S=S, s=s, L=length, C=self.C, chunks=N, H=self.H if query else self.K,
            K=self.K, M=M, QUERY=query and self.G is not None, G=self.H // self.K if query else 1,
        )  # fmt: skip
        return State(S, s)

    def pass_on(self, states: State, length: int, initial: State | None, *, reverse: bool) -> State:
        """Replace each chunk's state by the sum of those before; returns each sequence's last."""
        N, bk = self.chunks(length), self.B * self.K
        last = []
        for X, first in zip(states, initial or (None, None), strict=True):
            n = X[0, 0].numel()
            final = self.new(bk, self.sequences, *X.shape[2:])
            state_passing.kernel(
                lambda tiles, n=n: (triton.cdiv(n, tiles["W"]) * self.sequences * bk,),
                self.M.key, length,
                X=X, initial=first, final=final, decay=self.G, spans=self.spans, runs=self.runs,
                chunks=N, sequences=self.sequences, N=n, C=self.C, L=length, REVERSE=reverse,
            )  # fmt: skip
            last.append(final)
        return State(*last)

    def shared(self, length: int, state: State | None) -> dict[str, Any]:
        """Arguments shared by the kernels over blocks of tokens."""
        return {
            "Lq": self.Lq, "Lk": self.Lk, "C": self.C, "chunks": self.chunks(length),
            "states": 1 if state is None else state.S.shape[1], "H": self.H, "K": self.K,
            "M": self.M, "CAUSAL": self.causal, "INSIDE": self.inside,
        }  # fmt: skip

    def grid(self, length: int, heads: int) -> Any:
        """Grid with one program for each block of T tokens of every head."""
        return lambda tiles: (self.chunks(length) * (self.C // tiles["T"]) * self.B * heads,)

    def forward(self) -> tuple[Tensor, Tensor, State | None, State | None]:
        """Return y, z, and the states before every chunk and after every sequence, or None."""
        seen, last = self.initial, None
        if not self.one_chunk or not self.inside or self.final:
            states = self.chunk_states(self.keys(), self.Lk, query=False)
            last = self.pass_on(states, self.Lk, self.initial, reverse=False)
            if not self.one_chunk or not self.inside:
                seen = states if self.causal else last
        y = self.new(self.B, self.H, self.Lq, self.M.E, dtype=self.v.dtype)
        z = self.new(self.B, self.H, self.Lq)
        S, s = seen or (None, None)
        chunk_output.kernel(
            self.grid(self.Lq, self.H), self.M.key, self.Lq,
            queries=self.queries(None), keys=self.keys(), S=S, s=s, y=rows(y), z_out=z,
            **self.shared(self.Lq, seen),
        )  # fmt: skip
        if seen is self.initial or seen is last:
            seen = None
        return y, z, seen, last

    def backward(
        self, y: Tensor, z: Tensor, seen: State | None, dy: Tensor, dlast: State | None
    ) -> dict[str, Tensor | None]:
        """Gradients of the factors, values, decay and initial state, by name."""
        dlast = None if dlast is None else gradient_to_sums(dlast, self.M)
        g, dz = self.new(*y.shape, dtype=self.dtype), self.new(*z.shape)
        dp_q, df_q, dp_k, df_k = (
            None if t is None else torch.empty(t.shape, dtype=t.dtype, device=t.device)
            for t in (self.p_q, self.f_q, self.p_k, self.f_k)
        )
        assert df_q is not None
        assert df_k is not None
        S, s = seen or (None, None)
        chunk_backward.query_kernel(
            self.grid(self.Lq, self.H), self.M.key, self.Lq,
            queries=self.queries(dy), keys=self.keys(), S=S, s=s, y=rows(y), z=z, g_out=rows(g),
            dz_out=dz, dF_out=rows(df_q), dP_out=_rows(dp_q), **self.shared(self.Lq, seen),
        )  # fmt: skip
        side = self.queries(g, dz)
        after, dinitial = dlast, None
        if not self.one_chunk or not self.inside or self.initial is not None:
            states = self.chunk_states(side, self.Lq, query=True)
            dinitial = self.pass_on(states, self.Lq, dlast, reverse=True)
            if not self.one_chunk or not self.inside:
                after = states if self.causal else dinitial
        dv = torch.empty(self.v.shape, dtype=self.v.dtype, device=self.v.device)
        dG = None if self.G is None else torch.empty_like(self.G)
        dS, ds = after or (None, None)
        chunk_backward.key_kernel(
            self.grid(self.Lk, self.K), self.M.key, self.Lk,
            keys=self.keys(), queries=side, dS=dS, ds=ds, dF_out=rows(df_k), dP_out=_rows(dp_k),
            dv_out=rows(dv), dG_out=dG, G=self.H // self.K, **self.shared(self.Lk, after),
        )  # fmt: skip
        grads = {"p_q": dp_q, "f_q": df_q, "p_k": dp_k, "f_k": df_k, "v": dv}
        if self.initial is not None and dinitial is not None:
            grads["initial_S"], grads["initial_s"] = sums_to_gradient(dinitial, self.M)
        return grads | {"dG": dG}


def _rows(t: Tensor | None) -> Rows | None:
    return None if t is None else rows(t)


# The arguments of both operators, in the order of `LinearCall`. A polynomial needs no P.
_SHARED = """
    Tensor? p_q, Tensor f_q, Tensor? p_k, Tensor f_k, Tensor v, Tensor? padding, Tensor? log_decay,
    Tensor? initial_S, Tensor? initial_s, SymInt[]? bounds,
    str score, int degree, float[] coefficients, bool causal, int chunk, bool final
"""


@torch.library.custom_op(
    "slay::linear_attention",
    mutates_args=(),
    schema=f"({_SHARED}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def linear_attention(*arguments: Any) -> tuple[Tensor, ...]:
    """y: (B, H, L, E), z: (B, H, L), and two states, before every chunk and after every sequence.

    Empty tensors stand for absent states.
    """
    call = LinearCall(*arguments)
    y, z, seen, last = call.forward()
    return y, z, *(seen or (call.new(0), call.new(0))), *(last or (call.new(0), call.new(0)))


@linear_attention.register_fake
def _(p_q, f_q, p_k, f_k, v, padding, log_decay, initial_S, initial_s, bounds, *settings):
    call = LinearCall(p_q, f_q, p_k, f_k, v, padding, None, initial_S, initial_s, None, *settings)
    chunks, sequences = call.chunks(call.Lk), 1
    if bounds is not None:
        lengths = [last - first for first, last in pairwise(bounds)]
        call.C, call.inside = call._cut(max(lengths), settings[4])
        call.one_chunk, sequences = max(lengths) <= call.C, len(lengths)
        chunks = sum(triton.cdiv(n, call.C) for n in lengths)
    M, bk = call.M, call.B * call.K

    def states(wanted, n, dtype):
        if not wanted:
            return call.new(0), call.new(0)
        return call.new(bk, n, M.rows, M.EP, dtype=dtype), call.new(bk, n, M.sums)

    stateless = call.one_chunk and call.inside
    return (
        call.new(*call.f_q.shape[:3], M.E, dtype=v.dtype),
        call.new(*call.f_q.shape[:3]),
        *states(not stateless and call.causal, chunks, call.dtype),
        *states(call.final or (not stateless and not call.causal), sequences, torch.float32),
    )


_GRADIENTS = ("p_q", "f_q", "p_k", "f_k", "v", "log_decay", "initial_S", "initial_s")


@torch.library.custom_op(
    "slay::linear_attention_backward",
    mutates_args=(),
    schema=f"({_SHARED}, Tensor y, Tensor z, Tensor seen_S, Tensor seen_s, Tensor last_S,"
    " Tensor last_s, Tensor dy, Tensor? dlast_S, Tensor? dlast_s)"
    f" -> ({', '.join(['Tensor'] * len(_GRADIENTS))})",
)
def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    *shared, y, z, seen_S, seen_s, last_S, last_s, dy, dlast_S, dlast_s = arguments
    call = LinearCall(*shared)
    last = State(last_S, last_s) if last_S.numel() else None
    seen = State(seen_S, seen_s) if seen_S.numel() else call.initial
    if not call.causal and not call.inside:
        seen = last
    dlast = None
    if last is not None and (dlast_S is not None or dlast_s is not None):
        known = zip((dlast_S, dlast_s), last, strict=True)
        dlast = State(*(torch.zeros_like(t) if d is None else d.contiguous() for d, t in known))
    grads = call.backward(y, z, seen, dy, dlast)
    dG = grads.pop("dG")
    if dG is not None and call.log_decay is not None:
        grads["log_decay"] = _decay_gradient(call, dG, last, dlast)
    found = [grads.get(name) for name in _GRADIENTS]
    return tuple(call.new(0) if t is None else t for t in found)


def _decay_gradient(
    call: LinearCall, dG: Tensor, last: State | None, dlast: State | None
) -> Tensor:
    """Gradient of the log decay: the sum of dG from a token to the end of its sequence.

    The gradient of the final state adds to every token of the sequence. Returns (B, K, L).
    """
    bounds = [0, call.Lk]
    if call.spans is not None and call.runs is not None:
        starts = call.spans[call.runs[:-1].long(), 0].tolist()
        bounds = [*starts, call.Lk]
    parts = []
    for i, (first, end) in enumerate(pairwise(bounds)):
        part = dG[..., first:end].double().flip(-1).cumsum(-1).flip(-1)
        if last is not None and dlast is not None:
            pairs = zip(last, dlast, strict=True)
            along = [(t[:, i] * d[:, i]).flatten(1).sum(1) for t, d in pairs]
            part = part + torch.stack(along).sum(0).view(call.B, call.K, 1)
        parts.append(part)
    assert call.log_decay is not None
    return torch.cat(parts, dim=-1).to(call.log_decay.dtype)


@_backward.register_fake
def _(*arguments):
    tensors = dict(zip((*_GRADIENTS[:5], "padding", *_GRADIENTS[5:]), arguments, strict=False))
    empty = arguments[4].new_empty
    return tuple(
        empty(0) if tensors[name] is None else tensors[name].new_empty(tensors[name].shape)
        for name in _GRADIENTS
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.bounds, ctx.score, ctx.degree, ctx.coefficients, causal, chunk, final = inputs
    ctx.settings = causal, chunk, final
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, *rest: Any) -> Any:
    *_, dlast_S, dlast_s = rest
    *tensors, y, z, seen_S, seen_s, last_S, last_s = ctx.saved_tensors
    dy = torch.zeros_like(y) if dy is None else dy
    grads = torch.ops.slay.linear_attention_backward(
        *tensors, ctx.bounds, ctx.score, ctx.degree, ctx.coefficients, *ctx.settings,
        y, z, seen_S, seen_s, last_S, last_s, dy, dlast_S, dlast_s,
    )  # fmt: skip
    found = {
        name: grad if grad.numel() else None for name, grad in zip(_GRADIENTS, grads, strict=True)
    }
    order = (*_GRADIENTS[:5], "padding", *_GRADIENTS[5:])
    return *(found.get(name) for name in order), *[None] * 7


linear_attention.register_autograd(_differentiate, setup_context=_keep)


def keys_of(spec: FeatureSpec, d: int, e: int, dtype: torch.dtype) -> list[str]:
    """Call classes of attention with such features, of heads d and values e wide."""
    settings = spec.score, spec.degree, spec.coefficients, spec.widths(d)
    columns = sorted(set(value_columns(e, dtype)))
    keys = [tiling_of(*settings, n, dtype).key for n in columns]
    if spec.p in ("square", "product") or spec.f != "given":
        keys.append(features_key(spec.p, spec.f, d, dtype))
    return keys


def kernel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spec: FeatureSpec,
    *,
    causal: bool,
    chunk_size: int = 0,
    key_padding_mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`slay.ops.linear.linear_attention` in Triton, for features described by a spec.

    `lengths`: of sequences packed into one row; states are then (N, K, e + 1, m). `log_decay`:
    (B, K, L), at most 0: at each token, all tokens before it are scaled by its exp. `chunk_size`:
    tokens per chunk, a multiple of 128; 0 selects one. Wide values are split over several
    independent calls, whose attention weights are the same.
    """
    options: Any = {
        "causal": causal, "chunk_size": chunk_size, "key_padding_mask": key_padding_mask,
        "log_decay": log_decay, "lengths": lengths, "output_final_state": output_final_state,
    }  # fmt: skip
    columns = value_columns(v.shape[3], v.dtype)
    if len(columns) == 1:
        return _attention(q, k, v, spec, initial_state=initial_state, **options)
    firsts: list[Tensor | None] = [None] * len(columns)
    if initial_state is not None:
        *parts, sums = initial_state.split([*columns, 1], dim=-2)
        firsts = [torch.cat((part, sums), dim=-2) for part in parts]
    found = [
        _attention(q, k, part, spec, initial_state=first, **options)
        for part, first in zip(v.split(columns, dim=-1), firsts, strict=True)
    ]
    y = torch.cat([y for y, _ in found], dim=-1)
    states = [state for _, state in found if state is not None]
    if not states:
        return y, None
    return y, torch.cat([*(state[..., :-1, :] for state in states[:-1]), states[-1]], dim=-2)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spec: FeatureSpec,
    *,
    causal: bool,
    chunk_size: int,
    key_padding_mask: Tensor | None,
    log_decay: Tensor | None,
    lengths: Sequence[int] | None,
    initial_state: Tensor | None,
    output_final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """`kernel_attention` for values that fit in one call."""
    bounds = None if lengths is None else [0, *accumulate(lengths)]
    packed = lengths is not None
    widths = spec.widths(q.shape[3])
    M = tiling_of(spec.score, spec.degree, spec.coefficients, widths, v.shape[3], v.dtype)
    initial = State(None, None)  # type: ignore[arg-type]
    if initial_state is not None:
        initial = to_kernels(initial_state, M, packed=packed)
    padding = None if key_padding_mask is None else key_padding_mask.to(torch.uint8)
    settings = spec.score, spec.degree, spec.coefficients, causal, chunk_size

    pieces = [slice(0, q.shape[2])]
    tensors = (q, k, v, log_decay, initial_state)
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    whole = spec.given_p is not None or spec.given_f is not None
    if causal and not packed and not training and not whole:
        pieces = [slice(i, i + SEGMENT) for i in range(0, q.shape[2], SEGMENT)]
    y = q.new_empty(0) if len(pieces) == 1 else v.new_empty(*q.shape[:3], v.shape[3])
    for part in pieces:
        own = part if causal else slice(None)
        masked = None if padding is None else padding[:, own].contiguous()
        p_q, f_q = factors(q[:, :, part], spec, M, None, query=True)
        p_k, f_k = factors(k[:, :, own], spec, M, masked, query=False)
        decay = None if log_decay is None else log_decay[..., own]
        final = output_final_state or part is not pieces[-1]
        y_part, _, _, _, *last = linear_attention(
            p_q, f_q, p_k, f_k, v[:, :, own], masked, decay, *initial, bounds, *settings, final
        )
        initial = State(*last)
        if len(pieces) == 1:
            y = y_part
        else:
            y[:, :, part] = y_part
    if not output_final_state:
        return y, None
    return y, from_kernels(initial, M, k.shape[1], packed=packed)


def factors(
    u: Tensor, spec: FeatureSpec, M: Tiling, padding: Tensor | None, *, query: bool
) -> tuple[Tensor | None, Tensor]:
    """P, or None, and F of tokens u: (B, H, L, d); zero at padding."""
    which = 0 if query else 1
    numbers = spec.f_numbers
    if isinstance(numbers, tuple):  # the same for every column
        width = spec.widths(u.shape[3])[1]
        numbers = torch.stack([u.new_full((width,), n, dtype=torch.float32) for n in numbers])
    weights = (spec.p_weight, spec.p_second, spec.f_weight, numbers)
    p, f = features(
        u, *(None if w is None else w.float().contiguous() for w in weights),
        padding, spec.p, spec.f, spec.unit, query, M.fine,
    )  # fmt: skip
    known = (spec.given_p, p), (spec.given_f, f)
    dtype = torch.float32 if M.fine else torch.bfloat16
    found = []
    for given, formed in known:
        if given is not None:
            formed = given[which].to(dtype)
            if padding is not None:
                formed = formed.masked_fill(padding.bool()[:, None, :, None], 0.0)
        found.append(formed)
    P, F = found
    return (None if spec.score != "product" else P), F
