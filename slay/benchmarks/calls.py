"""Inputs of an attention call, and the calls on them that are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.benchmarks.timing import Call


class Inputs(NamedTuple):
    """q: (B, H, L, d), k: (B, K, L, d), v: (B, K, L, e), and the gradient of y: (B, H, L, e)."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor

    @classmethod
    def drawn(
        cls, size: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device
    ) -> Inputs:
        """Standard normal inputs (B, H, L, d) each, the same for every call on a device."""
        draw = torch.Generator(device).manual_seed(0)
        return cls(*(torch.randn(size, generator=draw, device=device).to(dtype) for _ in range(4)))

    def to(self, *where: Any) -> Inputs:
        """The same on another device, or in another precision."""
        return Inputs(*(t.to(*where) for t in self))

    def first(self, length: int) -> Inputs:
        """A contiguous copy of the first tokens."""
        return Inputs(*(t.contiguous() for t in self.cut(0, length)))

    def cut(self, start: int, stop: int) -> Inputs:
        """A view of the tokens from `start` to below `stop`."""
        return Inputs(*(t[:, :, start:stop] for t in self))

    @property
    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.q, self.k, self.v

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v as tensors whose gradients can be computed."""
        q, k, v = (t.detach().requires_grad_() for t in self.qkv)
        return q, k, v


def passes(
    mode: str, attend: Callable[..., Any], inputs: Sequence[Tensor], g: Tensor | None = None
) -> Call:
    """Call that computes the output ("forward"), or the gradients of the inputs too.

    They are those of the output's sum, weighted by `g` if it is given.
    """
    if mode == "forward":
        return lambda: attend(*inputs)
    leaves = [t.detach().requires_grad_() for t in inputs]

    def backward() -> tuple[Tensor, ...]:
        y = attend(*leaves)
        return torch.autograd.grad(y.sum() if g is None else y, leaves, g, materialize_grads=True)

    return backward


def with_gradients(y: Tensor, qkv: tuple[Tensor, Tensor, Tensor], g: Tensor) -> dict[str, Tensor]:
    """y and the gradients by name; for a single token dq and dk vanish and are left out."""
    dq, dk, dv = torch.autograd.grad(y, qkv, g, materialize_grads=True)
    found = {"y": y.detach(), "dv": dv}
    return found if y.shape[2] == 1 else {**found, "dq": dq, "dk": dk}


def decoding(
    mechanism: Attention, context: Inputs, *, in_place: bool = False
) -> Callable[[], tuple[Tensor, Any]]:
    """Call that decodes one token after a context, always from the same state.

    With `in_place`, the state may be overwritten, and is then that of the tokens before.
    """
    _, state = mechanism.attend(*context.qkv, output_final_state=True)
    state = state._replace(expendable=True) if in_place else state
    token = [t[:, :, -1:].contiguous() for t in context.qkv]  # (B, H, 1, d) each
    return lambda: mechanism.attend(*token, initial_state=state, output_final_state=True)


def timed_call(mechanism: Attention, mode: str, tokens: Inputs, *, in_place: bool = False) -> Call:
    """The timed call of a mechanism: a pass over all tokens, or "decode" of one more."""
    if mode == "decode":
        return decoding(mechanism, tokens, in_place=in_place)
    return passes(mode, mechanism.attend, tokens.qkv, tokens.g)
