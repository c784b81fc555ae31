"""Attention calls that a case's kernels must get right, also made by PyTorch in float64.

Each returns its outputs by name: y, gradients dq, dk and dv, the state, outputs of decoded tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.attention.linear import LinearAttention
from slay.benchmarks.calls import Inputs, with_gradients
from slay.experiments.result import stream
from slay.kernel_tools.cases import Case
from slay.registry import get_attention_class

ALIKE = 4.0  # scale of a common vector, which gives most scores of a signed kernel one sign
TOKENS = 3  # decoded one by one
CHUNK = 256  # tokens between states, for calls that are otherwise too short to have any

Outputs = dict[str, Tensor]


class CheckedCall(NamedTuple):
    """One call: its function, its shape and which pairs are visible."""

    name: str
    make: Callable[[Attention, Inputs], Outputs]
    length: int
    batch: int = 1
    groups: int = 1  # query heads per key head
    causal: bool = True
    padding: Tensor | None = None
    bounds: list[int] | None = None  # of packed sequences
    chunk: int = 0  # tokens between states; 0: the default, by which short calls have none
    timed: bool = False

    def mechanism(self, case: Case, **options: Any) -> Attention:
        cls = get_attention_class(case.mechanism)
        heads, kv_heads = 2 * self.groups, 2
        options = {**case.options, **options}
        mechanism = cls.heads_only(
            case.head_dim, heads, n_kv_heads=kv_heads, causal=self.causal, **options
        )
        if isinstance(mechanism, LinearAttention):
            mechanism.kernel_chunk_size = self.chunk
        return mechanism

    def visible(self) -> Tensor:
        """Mask of the visible pairs: (B, 1, L, L)."""
        seen = torch.ones(self.batch, 1, self.length, self.length, dtype=torch.bool)
        if self.bounds is not None:
            row = torch.bucketize(torch.arange(self.length), torch.tensor(self.bounds), right=True)
            seen &= row[:, None] == row
        if self.padding is not None:
            seen &= ~self.padding[:, None, None, :]
        return seen.tril() if self.causal else seen


def calls_of(case: Case) -> list[CheckedCall]:
    """All calls of a case, including those that carry a state if its kernels do."""
    one, short, odd, long, even = case.lengths
    bounds = [0, one, one + short, odd]
    padding = torch.zeros(2, short, dtype=torch.bool)
    padding[0, : short // 3], padding[1, -2:] = True, True
    absent = torch.zeros(1, odd, dtype=torch.bool)
    absent[:, : odd // 3] = True
    masked = partial(_plain, state=False, padding=padding)
    carries = issubclass(get_attention_class(case.mechanism), LinearAttention)
    plain = partial(_plain, state=carries)
    calls = [
        CheckedCall("long", partial(_plain, state=False), long, timed=True),
        *(CheckedCall(f"{n} tokens", plain, n) for n in (one, short, odd)),
        CheckedCall("packed", partial(plain, bounds=bounds), odd, groups=2, bounds=bounds),
        CheckedCall("padded", masked, short, batch=2, groups=2, padding=padding),
        CheckedCall("bidirectional", masked, short, batch=2, causal=False, padding=padding),
    ]
    if carries:
        calls += [
            CheckedCall("carried", partial(_carried, at=even // 2), even, batch=2),
            CheckedCall("by states", plain, odd, groups=2, chunk=CHUNK),
            CheckedCall(
                "packed, by states", partial(plain, bounds=bounds), odd, bounds=bounds, chunk=CHUNK
            ),
            CheckedCall(
                "bidirectional, by states",
                partial(_plain, state=False, padding=absent),
                odd,
                causal=False,
                padding=absent,
                chunk=CHUNK,
            ),
            CheckedCall("decoded", _decoded, short + TOKENS, batch=2, groups=2, timed=True),
        ]
    return calls


def inputs_of(call: CheckedCall, case: Case, mechanism: Attention) -> Inputs:
    """Inputs of a call, the same every time, in the case's precision."""
    draw = stream(0, f"{case.mechanism} {call.name}")
    kv, heads = mechanism.n_kv_heads, mechanism.n_heads
    d, e, n = case.head_dim, case.value_dim, call.length
    shapes = (heads, n, d), (kv, n, d), (kv, n, e), (heads, n, e)
    q, k, v, g = (torch.randn(call.batch, *shape, generator=draw) for shape in shapes)
    if not mechanism.nonnegative:
        common = ALIKE * torch.randn(d, generator=draw)
        q, k = q + common, k + common
    return Inputs(q, k, v, g).to(getattr(torch, case.dtype))


def _plain(
    mechanism: Attention,
    tokens: Inputs,
    *,
    state: bool,
    padding: Tensor | None = None,
    bounds: list[int] | None = None,
) -> Outputs:
    """Forward and backward pass of a whole sequence."""
    q, k, v = tokens.leaves()
    if padding is not None:
        padding = padding.to(q.device)
    result = mechanism.attend(
        q, k, v, key_padding_mask=padding, cu_seqlens=bounds, output_final_state=state
    )
    y, left = result if state else (result, None)
    found = with_gradients(y, (q, k, v), tokens.g)
    if left is not None:
        found["state"] = left.memory[0].detach()
    return found


def _carried(mechanism: Attention, tokens: Inputs, *, at: int) -> Outputs:
    """Forward and backward pass of a sequence in two parts, the second from the first's state."""
    leaves = tokens.leaves()
    first, second = ([t[:, :, part] for t in leaves] for part in (slice(at), slice(at, None)))
    start, state = mechanism.attend(*first, output_final_state=True)
    rest, last = mechanism.attend(*second, initial_state=state, output_final_state=True)
    found = with_gradients(torch.cat((start, rest), dim=2), leaves, tokens.g)
    return {**found, "state": last.memory[0].detach()}


@torch.no_grad()
def _decoded(mechanism: Attention, tokens: Inputs) -> Outputs:
    """Decode the last tokens one by one, alternately with and without an in-place state update."""
    length = tokens.q.shape[2]
    before = tokens.cut(0, length - TOKENS)
    _, state = mechanism.attend(before.q, before.k, before.v, output_final_state=True)
    outputs = []
    for i, j in pairwise(range(length - TOKENS, length + 1)):
        token = tokens.cut(i, j)
        state = state._replace(expendable=i % 2 == 0)
        y, state = mechanism.attend(
            token.q, token.k, token.v, initial_state=state, output_final_state=True
        )
        outputs.append(y)
    return {"token": torch.cat(outputs, dim=2), "state": state.memory[0]}
