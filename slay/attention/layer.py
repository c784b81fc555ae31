"""What every attention mechanism shares: projections, heads and options.

A mechanism is a class that states its facts and gives either a kernel of two tokens
(`slay.attention.exact`) or a feature map (`slay.attention.linearised`).
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from slay.errors import SlayError, UnknownOptionError, unknown

DEFAULT_EPSILON = 1e-6


class Attention(nn.Module):
    """y = W_o concat_h attend(W_q x, W_k x, W_v x): (B, L, E) -> (B, L, E).

    Options of every mechanism: `causal` (default True), `bias` of the projections (False), and
    `seed` of what a mechanism draws at random, head by head. `project=False` leaves the four
    projections out; such an instance has `attend` and `scores` alone (see `heads_only`).
    """

    kernel: ClassVar[str]  # k(q, k), in LaTeX
    complexity: ClassVar[str]  # in the sequence length L
    exact: ClassVar[bool]  # evaluates its kernel without approximation
    nonnegative: ClassVar[bool]  # k(q, k) >= 0 for all q and k
    paper: ClassVar[str]  # citation key

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        causal: bool = True,
        bias: bool = False,
        seed: int = 0,
        project: bool = True,
        **unknown: Any,
    ):
        if unknown:
            raise unknown_option(type(self), next(iter(unknown)))
        super().__init__()
        if n_heads < 1 or embed_dim < 1 or embed_dim % n_heads:
            raise SlayError(
                f"embed_dim = {embed_dim} does not divide into n_heads = {n_heads} heads; "
                "choose a multiple"
            )
        self.embed_dim, self.n_heads, self.head_dim = embed_dim, n_heads, embed_dim // n_heads
        self.causal = causal
        self.seed = seed
        if project:
            self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=bias)
            self.out = nn.Linear(embed_dim, embed_dim, bias=bias)

    @classmethod
    def heads_only(cls, head_dim: int, n_heads: int, **options: Any) -> Self:
        """An instance without projections, for queries, keys and values that are split already."""
        return cls(head_dim * n_heads, n_heads, project=False, **options)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, L, E). Returns (B, L, E)."""
        if x.ndim != 3 or x.shape[-1] != self.embed_dim:
            raise SlayError(f"x has shape {tuple(x.shape)}; expected (B, L, {self.embed_dim})")
        b, length, _ = x.shape
        heads = self.qkv(x).view(b, length, 3, self.n_heads, self.head_dim)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # 3 x (B, H, L, d)
        y = self.attend(q, k, v)  # (B, H, L, d)
        return self.out(y.transpose(1, 2).reshape(b, length, self.embed_dim))

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k: (B, H, L, d); v: (B, H, L, e). Returns (B, H, L, e)."""

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """k(q_i, k_j), unnormalised: (B, H, Lq, Lk). The specification of the mechanism."""

    def state_size(self, value_dim: int) -> int | None:
        """Numbers a head carries from token to token; None where that grows with the context."""
        return None

    def generator(self) -> torch.Generator:
        """A generator from the mechanism's seed: the same buffers on every rank and device."""
        return torch.Generator().manual_seed(self.seed)

    def check_heads(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raise ValueError unless q, k are (B, H, L, d) and v is (B, H, L, e)."""
        shapes = [tuple(t.shape) for t in (q, k, v)]
        if (
            any(t.ndim != 4 for t in (q, k, v))
            or q.shape != k.shape
            or v.shape[:3] != k.shape[:3]
            or q.shape[1] != self.n_heads
            or q.shape[3] != self.head_dim
            or q.shape[2] < 1
        ):
            raise SlayError(
                f"q, k, v have shapes {shapes}; expected (B, {self.n_heads}, L, {self.head_dim}) "
                f"for q and k and (B, {self.n_heads}, L, e) for v, with L at least 1"
            )


def options_of(cls: type[Attention]) -> dict[str, Any]:
    """Options of a mechanism with their defaults, `embed_dim` and `n_heads` left out."""
    options: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        init = parent.__dict__.get("__init__")
        if init is None or not issubclass(parent, Attention):
            continue
        for name, parameter in inspect.signature(init).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                options[name] = parameter.default
    del options["project"]
    return options


def unknown_option(cls: type[Attention], name: str) -> UnknownOptionError:
    """The error for an option that a mechanism does not have."""
    return UnknownOptionError(str(unknown(f"option of {cls.__name__}", name, options_of(cls))))


def accepted(cls: type[Attention], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that a mechanism knows: for settings shared by a whole experiment."""
    known = options_of(cls)
    return {name: value for name, value in options.items() if name in known}
