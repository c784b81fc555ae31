"""Linear attention by Triton kernels: what is launched, as operators of `torch.library`.

The forward pass takes three launches (`chunk_states`, `scan_states`, `outputs`), the way back four
(`query_gradients`, the same two, `key_gradients`). States are laid out as `Map` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from slay.ops.recipe import Recipe
from slay.ops.triton_backward import key_gradients, query_gradients
from slay.ops.triton_configs import Tuned, tuned
from slay.ops.triton_layout import from_kernels, symmetric, to_kernels
from slay.ops.triton_maps import Factor, Map, Rows
from slay.ops.triton_output import outputs
from slay.ops.triton_state import Side, chunk_states, scan_states

LONGEST_TILE = 128  # of any configuration; chunks are multiples of it
SCAN_WIDTH = 512

# Blocks and warps with which nothing spills from registers, by `Map.size`. In float32 ("full") a
# product takes three, of operands that are split in registers. In `outputs`, TK divides T.
_chunk_states = tuned(chunk_states, ["M", "QUERY"], None, {
    "32": [(8, 2, 64, 0), (8, 1, 64, 0)],
    "64": [(8, 2, 64, 0), (8, 1, 64, 0)],
    "64 polynomial": [(8, 2, 64, 0), (8, 1, 64, 0)],
    "128": [(8, 2, 64, 0), (8, 1, 64, 0)],
    "128 polynomial": [(8, 2, 64, 0)],
    "full 32": [(8, 1, 16, 0)],
    "full": [(8, 1, 16, 0)],
})  # fmt: skip
_outputs = tuned(outputs, ["M"], "TK", {
    "32": [(8, 2, 128, 64), (4, 2, 64, 64), (8, 1, 64, 64)],
    "64": [(8, 2, 128, 64), (8, 1, 64, 64)],
    "64 polynomial": [(8, 2, 128, 64), (8, 1, 64, 64)],
    "128": [(8, 1, 64, 64), (8, 1, 64, 32)],
    "128 polynomial": [(8, 1, 64, 32), (8, 1, 64, 16)],
    "full 32": [(8, 1, 16, 16)],
    "full": [(8, 2, 16, 16)],
})  # fmt: skip
_query_gradients = tuned(query_gradients, ["M"], "TK", {
    "32": [(8, 2, 128, 64), (8, 1, 64, 32)],
    "64": [(8, 1, 64, 32), (8, 1, 64, 16)],
    "64 polynomial": [(8, 1, 64, 32), (8, 1, 64, 64)],
    "128": [(8, 1, 64, 16)],
    "128 polynomial": [(8, 1, 64, 16)],
    "full 32": [(8, 1, 16, 16)],
    "full": [(8, 1, 16, 16)],
})  # fmt: skip
_key_gradients = tuned(key_gradients, ["M"], "TQ", {
    "32": [(8, 2, 128, 32), (4, 2, 64, 32)],
    "64": [(8, 1, 64, 32), (8, 1, 64, 16)],
    "64 polynomial": [(8, 1, 64, 32)],
    "128": [(8, 1, 64, 16)],
    "128 polynomial": [(8, 1, 64, 16)],
    "full 32": [(8, 1, 16, 16)],
    "full": [(8, 1, 16, 16)],
})  # fmt: skip
_scan_states = Tuned(scan_states, [])


@lru_cache(maxsize=256)
def map_of(
    kinds: str, degree: int, unit: bool, coefficients: tuple[float, ...], weights: bool,
    d: int, e: int, widths: tuple[int, int], dtype: torch.dtype,
) -> Map:  # fmt: skip
    """What kernels are compiled for; `kinds`: those of a and b, as in "square exp"."""
    a, b = kinds.split()
    wide_a, wide_b = widths
    least = 64 if a == "none" and not degree else 16
    block = min(max(least, triton.next_power_of_2(wide_b)), 64 if a == "none" else 128)
    dp = max(16, triton.next_power_of_2(d))
    if degree:
        block = dp
    half = dtype in (torch.bfloat16, torch.float16)
    return Map(
        a, b, degree, unit, d, dp, e, max(16, triton.next_power_of_2(e)),
        wide_a, max(16, triton.next_power_of_2(wide_a)), wide_b, block,
        coefficients, weights,
        tl.bfloat16 if half else tl.float32,  # fp16 overflows where sums are long
        "tf32" if half else "tf32x3",
    )  # fmt: skip


def chunk_length(M: Map, itemsize: int) -> int:
    """Tokens a state: few enough that states take less memory than q, k, v and y, half of it."""
    tokens = 4 * M.state / (0.6 * 2 * itemsize * (M.D + M.E))
    return max(LONGEST_TILE, triton.next_power_of_2(math.ceil(tokens)))


@lru_cache(maxsize=64)
def packed(bounds: tuple[int, ...], chunk: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Chunks of packed sequences: (N, 3) int32, start, end and sequence; where sequences start."""
    spans, runs = [], [0]
    for sequence, (first, last) in enumerate(pairwise(bounds)):
        starts = range(first, last, chunk)
        spans += [(lo, min(lo + chunk, last), sequence) for lo in starts]
        runs.append(len(spans))
    return (
        torch.tensor(spans, dtype=torch.int32, device=device),
        torch.tensor(runs, dtype=torch.int32, device=device),
    )


def rows(t: Tensor) -> Rows:
    """A tensor (B, H, L, width) for kernels; axes that were expanded have no stride."""
    if t.stride(-1) != 1:
        t = t.contiguous()
    return Rows(t, t.stride(0), t.stride(1), t.stride(2))


class Call:
    """The arguments of one call of the operators, and its launches."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor,
        a_q: Tensor | None, a_k: Tensor | None, b_q: Tensor | None, b_k: Tensor | None,
        a_weight: Tensor | None, a_second: Tensor | None,
        b_weight: Tensor | None, b_numbers: Tensor | None,
        padding: Tensor | None, bounds: Sequence[int] | None,
        kinds: str, degree: int, unit: bool, coefficients: Sequence[float],
        causal: bool, chunk: int,
    ):  # fmt: skip
        self.q, self.k, self.v, self.causal = q, k, v, causal
        self.given = (a_q, a_k, b_q, b_k)
        self.rest = (
            *self.given, a_weight, a_second, b_weight, b_numbers, padding, bounds,
            kinds, degree, unit, coefficients, causal,
        )  # fmt: skip
        self.B, self.H, self.Lq = q.shape[:3]
        self.K, self.Lk = k.shape[1], k.shape[2]
        d, e = int(q.shape[3]), int(v.shape[3])  # not symbols, where torch.compile has them
        wide_a = 1 if a_weight is None else a_weight.shape[1]
        wide_b = d if b_weight is None else b_weight.shape[1]
        if a_k is not None:
            wide_a = a_k.shape[-1]
        if b_k is not None:
            wide_b = b_k.shape[-1]
        widths = int(wide_a), int(wide_b)
        self.M = map_of(
            kinds, degree, unit, tuple(coefficients), b_weight is not None, d, e, widths, q.dtype
        )
        self.C = chunk or chunk_length(self.M, q.element_size())
        self.spans = self.runs = None
        self.sequences = 1
        if bounds is not None:
            self.spans, self.runs = packed(tuple(bounds), self.C, q.device)
            self.sequences = len(bounds) - 1
        if self.M.columnwise:
            b_q, b_k = q, k
        weights = (a_weight, a_second, None), (b_weight, None, b_numbers)
        self.a, self.b = (
            [Factor(None if g is None else rows(g), *w) for g in pair]
            for w, pair in zip(weights, ((a_q, a_k), (b_q, b_k)), strict=True)
        )
        self.padding = padding

    def chunks(self, length: int) -> int:
        return -(-length // self.C) if self.spans is None else len(self.spans)

    def queries(self, w: Tensor, z: Tensor | None = None, dz: Tensor | None = None) -> Side:
        return Side(rows(self.q), rows(w), z, dz, self.a[0], self.b[0], None, self.spans)

    def keys(self) -> Side:
        side = (rows(self.k), rows(self.v), None, None, self.a[1], self.b[1])
        return Side(*side, self.padding, self.spans)

    def new(self, *shape: int) -> Tensor:
        return self.q.new_empty(shape, dtype=torch.float32)

    def states(
        self, side: Side, length: int, initial: Tensor | None, *, query: bool, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """The scanned states X: (B K, chunks, state), and each sequence's last."""
        N, M, bk = self.chunks(length), self.M, self.B * self.K
        X, final = self.new(bk, N, M.state), self.new(bk, self.sequences, M.state)
        groups = self.H // self.K if query else 1
        _chunk_states[M.size](
            (M.programs, N, bk),
            side, X, length, self.C, N, self.H, self.K, M, query, groups,
        )  # fmt: skip
        grid = (triton.cdiv(M.state, SCAN_WIDTH), self.sequences, bk)
        _scan_states(
            grid, X, initial, final, self.runs, N, self.sequences, M.state, reverse, SCAN_WIDTH
        )
        return X, final

    def blocks(self, length: int, heads: int) -> Callable[[dict[str, Any]], tuple[int, int]]:
        """The grid of a kernel over blocks of T tokens."""
        N = self.chunks(length)
        return lambda meta: (N * (self.C // meta["T"]), self.B * heads)

    def forward(self, initial: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y, z, the states that queries look at, and if causal each sequence's last."""
        X, final = self.states(self.keys(), self.Lk, initial, query=False, reverse=False)
        if not self.causal:
            X, final = final, self.new(0)
        y = self.q.new_empty(self.B, self.H, self.Lq, self.M.E)
        z = self.new(self.B, self.H, self.Lq)
        _outputs[self.M.size](
            self.blocks(self.Lq, self.H),
            self.queries(self.q), self.keys(), X, rows(y), z,
            self.Lq, self.C, X.shape[1], self.H, self.K, self.M, self.causal,
        )  # fmt: skip
        return y, z, X, final

    def backward(
        self, y: Tensor, z: Tensor, X: Tensor, dy: Tensor, dfinal: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Gradients of q, k, v, the given factors (empty where there are none), the first state.

        All but that of v are sums over values, of which so many fit into registers at once.
        """
        if dfinal is not None and self.M.degree:
            dfinal = symmetric(dfinal, self.M)
        W = self.M.values_at_once
        if self.M.E <= W:
            return self._gradients(y, z, X, dy, dfinal)
        parts = []
        for e in range(0, self.M.E, W):
            some = slice(e, e + W)
            call = Call(self.q, self.k, self.v[..., some], *self.rest, self.C)
            last = None
            if dfinal is not None:
                S, s = self._rows_and_sums(dfinal)
                last = _state(S[..., some], s if e == 0 else torch.zeros_like(s))
            S, s = self._rows_and_sums(X)
            of_parts = y[..., some], z, _state(S[..., some], s), dy[..., some], last
            *grads, first = call._gradients(*of_parts)
            parts.append((*grads, *call._rows_and_sums(first)))
        terms = [list(each) for each in zip(*parts, strict=True)]
        dv, rows_of_S = (torch.cat(terms.pop(i), dim=-1) for i in (2, -2))
        dq, dk, *given, s = map(_sum, terms)
        return dq, dk, dv, *given, _state(rows_of_S, s)

    def _rows_and_sums(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """S: (..., rows, E) and s of a state."""
        S, s = X.split((self.M.rows * self.M.E, self.M.sums), dim=-1)
        return S.unflatten(-1, (self.M.rows, self.M.E)), s

    def _gradients(
        self, y: Tensor, z: Tensor, X: Tensor, dy: Tensor, dfinal: Tensor | None
    ) -> tuple[Tensor, ...]:
        dq, dk, dv = (
            torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (self.q, self.k, self.v)
        )
        given = [self.new(0) if g is None else torch.empty_like(g).contiguous() for g in self.given]
        da_q, da_k, db_q, db_k = (None if not g.numel() else rows(g) for g in given)
        if self.M.columnwise:
            db_q, db_k = rows(dq), rows(dk)
        elif not self.M.projects and not self.M.degree:  # nothing depends on q and k themselves
            dq.zero_()
            dk.zero_()
        dz = torch.empty_like(z)
        _query_gradients[self.M.size](
            self.blocks(self.Lq, self.H),
            self.queries(dy, z), self.keys(), X, rows(y), dz, rows(dq), da_q, db_q,
            self.Lq, self.C, X.shape[1], self.H, self.K, self.M, self.causal,
        )  # fmt: skip
        side = self.queries(dy, z, dz)
        dX, dinitial = self.states(side, self.Lq, dfinal, query=True, reverse=True)
        if not self.causal:
            dX = dinitial
        _key_gradients[self.M.size](
            self.blocks(self.Lk, self.K),
            side, self.keys(), dX, rows(dk), rows(dv), da_k, db_k,
            self.Lk, self.C, dX.shape[1], self.H, self.K, self.M, self.causal, self.H // self.K,
        )  # fmt: skip
        return dq, dk, dv, *given, dinitial


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).float().sum(0).to(terms[0].dtype)


def _state(S: Tensor, s: Tensor) -> Tensor:
    """A state of rows S: (..., rows, E) and sums s."""
    return torch.cat((S.flatten(-2), s), dim=-1)


# The arguments of both operators that a `Call` is made of, in its order.
SHARED = """
    Tensor q, Tensor k, Tensor v,
    Tensor? a_q, Tensor? a_k, Tensor? b_q, Tensor? b_k,
    Tensor? a_weight, Tensor? a_second, Tensor? b_weight, Tensor? b_numbers,
    Tensor? padding, SymInt[]? bounds,
    str kinds, int degree, bool unit, float[] coefficients, bool causal, int chunk
"""
FIRST = 19  # of them


@torch.library.custom_op(
    "slay::linear_attention",
    mutates_args=(),
    schema=f"({SHARED}, Tensor? initial) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *shared, initial = arguments
    return Call(*shared).forward(initial)


@_forward.register_fake
def _(*arguments):
    *shared, _ = arguments
    bounds, shared[11], shared[12] = shared[12], None, None
    call = Call(*shared)
    sequences, chunks = 1, call.chunks(call.Lk)
    if bounds is not None:
        sequences = len(bounds) - 1
        chunks = sum(-(-(last - first) // call.C) for first, last in pairwise(bounds))
    y = call.q.new_empty(*call.q.shape[:3], call.M.E)
    z = call.new(*call.q.shape[:3])
    final = call.new(call.B * call.K, sequences, call.M.state)
    if not call.causal:
        return y, z, final, call.new(0)
    return y, z, call.new(call.B * call.K, chunks, call.M.state), final


@torch.library.custom_op(
    "slay::linear_attention_backward",
    mutates_args=(),
    schema=f"({SHARED}, Tensor y, Tensor z, Tensor X, Tensor dy, Tensor? dfinal)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    return Call(*arguments[:FIRST]).backward(*arguments[FIRST:])


@_backward.register_fake
def _(*arguments):
    tensors, bounds, X = arguments[:7], arguments[12], arguments[FIRST + 2]
    sequences = 1 if bounds is None else len(bounds) - 1
    grads = [X.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]
    return *grads, X.new_empty(X.shape[0], sequences, X.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors = [t if isinstance(t, Tensor) else None for t in inputs[:12]]
    ctx.save_for_backward(*tensors, *output[:3])
    ctx.settings = inputs[12:FIRST]
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, dz: Any, dX: Any, dfinal: Tensor | None) -> Any:
    *tensors, y, z, X = ctx.saved_tensors
    dy = torch.zeros_like(y) if dy is None else dy
    grads = torch.ops.slay.linear_attention_backward(*tensors, *ctx.settings, y, z, X, dy, dfinal)
    *wanted, dinitial = (g if g.numel() else None for g in grads)
    return (*wanted, *[None] * (FIRST - 7), dinitial if ctx.needs_input_grad[FIRST] else None)


_forward.register_autograd(_differentiate, setup_context=_keep)


def arguments(
    recipe: Recipe, key_padding_mask: Tensor | None
) -> tuple[list[Tensor | None], tuple[str, int, bool, tuple[float, ...]]]:
    """A recipe and padding as the operators take them: tensors, and kinds and numbers."""
    given = [*(recipe.given_a or (None, None)), *(recipe.given_b or (None, None))]
    weights = [
        None if w is None else w.float().contiguous()
        for w in (recipe.a_weight, recipe.a_second, recipe.b_weight, recipe.b_numbers)
    ]
    padding = None if key_padding_mask is None else key_padding_mask.to(torch.uint8)
    kinds = (f"{recipe.a} {recipe.b}", recipe.degree, recipe.unit, recipe.coefficients)
    return [*given, *weights, padding], kinds


def kernel_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    recipe: Recipe,
    *,
    causal: bool,
    chunk_size: int = 0,
    key_padding_mask: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`slay.ops.linear.linear_attention` by kernels, for features that a recipe describes.

    `lengths`: of sequences packed into one row; states are then (N, K, e + 1, m). `chunk_size`:
    tokens between states, a multiple of 128; 0 chooses.
    """
    bounds = None if lengths is None else [0, *accumulate(lengths)]
    packed = lengths is not None
    tensors, kinds = arguments(recipe, key_padding_mask)
    M = map_of(
        *kinds, recipe.b_weight is not None,
        q.shape[3], v.shape[3], recipe.widths(q.shape[3]), q.dtype,
    )  # fmt: skip
    initial = None
    if initial_state is not None:
        initial = to_kernels(initial_state, M, packed=packed)
    y, _, _, final = torch.ops.slay.linear_attention(
        q, k, v, *tensors, bounds, *kinds, causal, chunk_size, initial
    )
    if not output_final_state:
        return y, None
    return y, from_kernels(final, M, k.shape[1], packed=packed)
