"""Base class of attention mechanisms: projections, heads, packing, recurrent state, options.

A mechanism is a class that declares its properties and implements either a pairwise kernel
(`slay.attention.exact`) or a feature map (`slay.attention.linear`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import accumulate
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from slay.attention.rotary import rotate
from slay.attention.short_conv import ShortConvolution
from slay.attention.state import State
from slay.errors import SlayError, UnknownOptionError, positive, shown, unknown, whole
from slay.ops.modes import in_one_dtype
from slay.ops.select import Backend, check_backend, choose
from slay.ops.sequences import Boundaries, Memory, Sequences, lengths_of, positions

Compute = Callable[[Tensor, Tensor, Tensor, Sequences], tuple[Tensor, Memory]]


class Attention(nn.Module, ABC):
    """y = W_o concat_h attend(W_q x, W_k x, W_v x): (B, L, E) -> (B, L, E).

    Options of every mechanism:

    - `n_kv_heads`: number of key and value heads, shared by groups of query heads (all heads).
    - `value_dim`: dimension e of each value head (the head dimension d).
    - `causal`: a token attends to itself and to earlier tokens (True).
    - `bias`: the projections have a bias (False).
    - `rotary`: base of the rotary position embedding, such as 10000.0 (None: no rotary positions).
    - `short_conv`: width of a causal convolution over q, k and v (0: none).
    - `seed`: seed of a mechanism's random draws, head by head (0).
    - `backend`: "torch", "triton" (kernels for a CUDA GPU, or an error that says why not), or
      "auto", Triton where possible ("auto"). `backend_used` is the backend of the last call.

    `project=False` omits the projections; only `attend` and `scores` can then be called (see
    `heads_only`).
    """

    kernel: ClassVar[str]  # k(q, k), in LaTeX
    complexity: ClassVar[str]  # in the sequence length L
    exact: ClassVar[bool]  # evaluates its kernel without approximation
    nonnegative: ClassVar[bool]  # k(q, k) >= 0 for all q and k
    paper: ClassVar[str]  # citation key

    def __new__(cls, *args: Any, **options: Any) -> Self:
        sizes = dict(zip(("embed_dim", "n_heads"), args, strict=False))
        check_kinds(cls, sizes | options)
        return super().__new__(cls)

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        value_dim: int | None = None,
        causal: bool = True,
        bias: bool = False,
        rotary: float | None = None,
        short_conv: int = 0,
        seed: int = 0,
        backend: Backend = "auto",
        project: bool = True,
        **unknown: Any,
    ):
        if unknown:
            raise unknown_option(type(self), next(iter(unknown)))
        super().__init__()
        embed_dim, n_heads = whole("embed_dim", embed_dim), whole("n_heads", n_heads)
        if n_heads < 1 or embed_dim < 1 or embed_dim % n_heads:
            raise SlayError(
                f"embed_dim = {embed_dim} does not divide into n_heads = {n_heads} heads; "
                "choose a multiple"
            )
        self.n_kv_heads = n_heads if n_kv_heads is None else whole("n_kv_heads", n_kv_heads, 1)
        if n_heads % self.n_kv_heads:
            raise SlayError(
                f"n_heads = {n_heads} does not divide into n_kv_heads = {n_kv_heads} groups"
            )
        self.embed_dim, self.n_heads, self.head_dim = embed_dim, n_heads, embed_dim // n_heads
        self.value_dim = self.head_dim
        if value_dim is not None:
            self.value_dim = whole("value_dim", value_dim, 1)
        short_conv = whole("short_conv", short_conv, 0)
        if rotary is not None:
            rotary = positive("rotary", rotary)
        if rotary is not None and (rotary <= 1 or self.head_dim % 2):
            raise SlayError(
                f"rotary = {rotary} with heads of {self.head_dim}: the base must be a number above "
                "1 and heads even"
            )
        check_backend(backend)
        self.causal, self.rotary, self.seed = causal, rotary, whole("seed", seed)
        self.backend, self.backend_used = backend, "torch"
        self.short_conv: ShortConvolution | None = None
        if not project and (bias or short_conv or rotary is not None):
            raise SlayError("bias, rotary and short_conv belong to a layer with its projections")
        if project:
            self.widths = [
                n_heads * self.head_dim,
                self.n_kv_heads * self.head_dim,
                self.n_kv_heads * self.value_dim,
            ]
            self.qkv = nn.Linear(embed_dim, sum(self.widths), bias=bias)
            self.out = nn.Linear(n_heads * self.value_dim, embed_dim, bias=bias)
            if short_conv:
                self.short_conv = ShortConvolution(sum(self.widths), short_conv)

    @classmethod
    def heads_only(cls, head_dim: int, n_heads: int, **options: Any) -> Self:
        """Construct an instance without projections, for q, k and v already split into heads."""
        return cls(head_dim * n_heads, n_heads, project=False, **options)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        key_padding_mask: Tensor | None = None,
        cu_seqlens: Boundaries | None = None,
        initial_state: State | None = None,
        output_final_state: bool = False,
    ) -> Any:
        """Attend over x: (B, L, E), or across to a `context`: (B, Lk, E). Returns (B, L, E).

        `key_padding_mask`: (B, Lk), True for padding, on either side or in between, whose values
        are ignored: padding takes up no position, is skipped by the convolution and is not counted
        by the state. `cu_seqlens`: boundaries (N + 1,) of N non-empty sequences packed into one
        row. `initial_state` is the state of an earlier call; with `output_final_state` the result
        is (y, State). Raises ValueError for shapes and combinations that do not fit.
        """
        self._check_layer(x, context)
        source = x if context is None else context
        lengths = None
        if cu_seqlens is not None:
            lengths = lengths_of(cu_seqlens, x.shape[0], x.shape[1])
        check_padding(key_padding_mask, source.shape[0], source.shape[1])
        start = initial_state.length if initial_state is not None else None
        padding = key_padding_mask
        if padding is not None:
            # Otherwise padding would contribute to the gradients of the weights.
            source = source.masked_fill(padding.unsqueeze(-1), 0.0)
            if context is None:
                x = source
            else:  # keys have no order here: padding is moved to the end
                order = padding.byte().argsort(dim=1, stable=True)
                context = source.gather(1, order.unsqueeze(-1).expand_as(source))
                padding = padding.gather(1, order)
        q, k, v, recent = self._project(x, context, padding, initial_state, lengths)
        if self.rotary is not None:
            own = padding if context is None else None
            place = positions(x.shape[1], lengths, start, x.device, own)
            q = rotate(q, place, self.rotary)
            if context is not None:
                place = positions(k.shape[2], None, None, x.device)
            k = rotate(k, place, self.rotary)
        carried = self.attend(
            q,
            k,
            v,
            key_padding_mask=padding,
            cu_seqlens=None if lengths is None else list(accumulate(lengths, initial=0)),
            initial_state=initial_state,
            output_final_state=output_final_state,
        )
        y, state = carried if output_final_state else (carried, None)
        y = self.out(y.transpose(1, 2).flatten(2))
        return y if state is None else (y, state._replace(recent=recent))

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode one token x: (B, E). Returns y: (B, E) and the state for the next token."""
        if x.ndim != 2:
            raise SlayError(f"x has shape {tuple(x.shape)}; expected (B, {self.embed_dim})")
        y, state = self(x.unsqueeze(1), initial_state=state, output_final_state=True)
        return y.squeeze(1), state

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        cu_seqlens: Boundaries | None = None,
        initial_state: State | None = None,
        output_final_state: bool = False,
    ) -> Any:
        """Attention over heads: q: (B, H, L, d), k: (B, K, Lk, d), v: (B, K, Lk, e).

        Returns (B, H, L, e), or (y, `State`) with `output_final_state`; the other arguments are as
        in `forward`. Under autocast, mixed dtypes are cast to one, as in PyTorch's attention.
        """
        q, k, v = in_one_dtype(q, k, v)
        self.check_heads(q, k, v)
        check_padding(key_padding_mask, k.shape[0], k.shape[2])
        carried = initial_state is not None or output_final_state
        if carried and not self.causal:
            raise SlayError("a state is carried from token to token; it needs causal=True")
        if self.causal and q.shape[2] != k.shape[2]:
            raise SlayError(
                f"{q.shape[2]} queries and {k.shape[2]} keys: cross-attention has no order "
                "between them; it needs causal=False"
            )
        lengths = None
        if cu_seqlens is not None:
            if key_padding_mask is not None:
                raise SlayError("key_padding_mask and cu_seqlens exclude each other")
            if q.shape[2] != k.shape[2]:
                raise SlayError(
                    f"cu_seqlens needs as many keys as queries, not {k.shape[2]} and {q.shape[2]}"
                )
            lengths = lengths_of(cu_seqlens, q.shape[0], q.shape[2])
        if key_padding_mask is not None:
            q, k, v = without_padding(q, k, v, key_padding_mask)
        batch = q.shape[0] if lengths is None else len(lengths)
        start, before, overwrite = None, None, False
        if initial_state is not None:
            before, start, _, overwrite = initial_state
            if start.shape != (batch,):
                raise SlayError(f"the state is of {len(start)} sequences, but {batch} follow")
        sequences = Sequences(
            key_padding_mask, lengths, start, before, carried, overwrite and lengths is None
        )
        self.check_sequences(sequences, q.shape[2], k.shape[2])
        y, memory = self._computed(q, k, v, sequences)
        if not output_final_state:
            return y
        seen = torch.full((batch,), q.shape[2], device=q.device)
        if lengths is not None:
            seen = torch.tensor(lengths, device=q.device)
        if key_padding_mask is not None:
            seen = seen - key_padding_mask.sum(1)
        return y, State(memory, seen if start is None else start + seen)

    def _computed(
        self, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        """Choose the backend, and compute y and, if `sequences.final`, the final memory."""
        compute: Compute = self._by_torch
        self.backend_used = "torch"
        if self.backend != "torch" and q.shape[2] and k.shape[2]:
            kernels = self.kernels(q, k, v)
            self.backend_used = choose(self.backend, kernels if isinstance(kernels, str) else None)
            if not isinstance(kernels, str):
                compute = kernels
        lengths = sequences.lengths
        if lengths is None or (self.backend_used == "triton" and self.packs(sequences)):
            return compute(q, k, v, sequences)
        parts = zip(*(t.split(lengths, dim=2) for t in (q, k, v)), strict=True)
        each = zip(parts, sequences.unpacked(), strict=True)
        found = [compute(q, k, v, one) for (q, k, v), one in each]
        memory = self.stack([memory for _, memory in found]) if sequences.final else ()
        return torch.cat([y for y, _ in found], dim=2), memory

    def check_sequences(self, sequences: Sequences, lq: int, lk: int) -> None:
        """Raise ValueError if the mechanism does not support sequences of these lengths."""

    def packs(self, sequences: Sequences) -> bool:
        """Return True if the kernels take these packed sequences in one call."""
        return False

    @abstractmethod
    def _by_torch(
        self, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        """`attend` in PyTorch, for validated arguments and sequences that are not packed."""

    def kernels(self, q: Tensor, k: Tensor, v: Tensor) -> Compute | str:
        """Return what computes a call by Triton kernels, or why nothing does."""
        return "kernels compute mechanisms that have features, and yat-spherical"

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """k(q_i, k_j), unnormalised: (B, H, Lq, Lk) from (B, H, Lq, d), (B, H, Lk, d).

        The reference definition of the mechanism, for tokens at positions 0, 1, 2, ...; in float32
        or better, because scores may need its range.
        """

    def stack(self, memories: list[Memory]) -> Memory:
        """Concatenate the memories of several sequences into that of a batch."""
        return tuple(torch.cat(parts) for parts in zip(*memories, strict=True))

    def state_size(self, value_dim: int) -> int | None:
        """Elements of the recurrent state per head; None if it grows with the context."""
        return None

    @abstractmethod
    def operations(self, length: int, *, backward: bool = False) -> int:
        """FLOPs of one head's matrix products over a causal sequence.

        With `backward`, of the forward and backward pass together. A multiply-add counts as two.
        Feature maps are left out, so this is a lower bound.
        """

    def generator(self, stream: int = 0) -> torch.Generator:
        """Return a generator seeded by `seed`: buffers are the same on every rank and device.

        Each kind of draw uses its own `stream`.
        """
        return torch.Generator().manual_seed(self.seed + (stream << 32))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project x: (B, L, E) to q: (B, H, L, d), k: (B, K, L, d), v: (B, K, L, e) for `attend`.

        Without rotary positions, which `forward` applies after the projection.
        """
        q, k, v, _ = self._project(x, None, None, None, None)
        return q, k, v

    def _project(
        self,
        x: Tensor,
        context: Tensor | None,
        padding: Tensor | None,
        state: State | None,
        lengths: list[int] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q: (B, H, L, d), k: (B, K, Lk, d), v: (B, K, Lk, e), the convolution's last inputs."""
        recent = None
        if context is None:
            qkv = self.qkv(x)  # (B, L, H d + K d + K e)
            if self.short_conv is not None:
                before = state.recent if state is not None else None
                qkv, recent = self.short_conv(qkv, before, lengths, padding)
            q, k, v = qkv.split(self.widths, dim=-1)
        else:
            if self.short_conv is not None:
                raise SlayError("short_conv is for a sequence by itself, not for cross-attention")
            # The whole layer is called for both, so that its hooks and wrappers apply.
            q, _, _ = self.qkv(x).split(self.widths, dim=-1)
            _, k, v = self.qkv(context).split(self.widths, dim=-1)
        return (
            split_heads(q, self.n_heads),
            split_heads(k, self.n_kv_heads),
            split_heads(v, self.n_kv_heads),
            recent,
        )

    def _check_layer(self, x: Tensor, context: Tensor | None) -> None:
        for name, t in (("x", x), ("context", context)):
            if t is not None and (t.ndim != 3 or t.shape[-1] != self.embed_dim):
                raise SlayError(
                    f"{name} has shape {tuple(t.shape)}; expected (B, L, {self.embed_dim})"
                )
        if context is not None:
            if self.causal:
                raise SlayError(
                    "cross-attention has no order between queries and keys; it needs causal=False"
                )
            if context.shape[0] != x.shape[0]:
                raise SlayError(
                    f"x has {x.shape[0]} sequences and context {context.shape[0]}; expected as many"
                )

    def check_heads(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raise ValueError unless q is (B, H, L, d), k (B, K, Lk, d) and v (B, K, Lk, e)."""
        shapes = [tuple(t.shape) for t in (q, k, v)]
        if (
            any(t.ndim != 4 for t in (q, k, v))
            or q.shape[0] != k.shape[0]
            or v.shape[:3] != k.shape[:3]
            or (q.shape[1], k.shape[1]) != (self.n_heads, self.n_kv_heads)
            or (q.shape[3], k.shape[3]) != (self.head_dim, self.head_dim)
        ):
            raise SlayError(
                f"q, k, v have shapes {shapes}; expected (B, {self.n_heads}, L, {self.head_dim}), "
                f"(B, {self.n_kv_heads}, Lk, {self.head_dim}) and (B, {self.n_kv_heads}, Lk, e)"
            )
        dtypes = {t.dtype for t in (q, k, v)}
        if len(dtypes) > 1 or not q.dtype.is_floating_point:
            raise SlayError(
                f"q, k, v have dtypes {[str(t.dtype) for t in (q, k, v)]}; "
                "expected one floating-point dtype"
            )

    def extra_repr(self) -> str:
        heads = f"{self.n_heads} heads of {self.head_dim}"
        return heads + (", causal" if self.causal else "")


def nothing(q: Tensor, v: Tensor) -> Tensor:
    """Zeros for queries without keys, still part of the autograd graph: (B, H, L, e)."""
    empty = q[..., :0].sum(-1, keepdim=True)  # zero even where q is NaN
    return empty.expand(*q.shape[:3], v.shape[-1])


def without_padding(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zero the keys and values at padding, whatever they hold.

    With as many queries as keys, only non-finite values of padded queries are zeroed: padded
    queries still have outputs.
    """
    padding = mask[:, None, :, None]  # (B, 1, Lk, 1)
    k, v = k.masked_fill(padding, 0.0), v.masked_fill(padding, 0.0)
    if q.shape[2] == k.shape[2]:
        q = q.masked_fill(padding & ~q.isfinite(), 0.0)
    return q, k, v


def split_heads(u: Tensor, n_heads: int) -> Tensor:
    """(B, L, H d) -> (B, H, L, d)."""
    return u.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def check_padding(mask: Tensor | None, batch: int, length: int) -> None:
    """Raise ValueError unless a key padding mask is bool and (B, Lk)."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (batch, length):
        kind = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
        raise SlayError(
            f"key_padding_mask is {kind}; expected torch.bool ({batch}, {length}), "
            "True for keys that are padding"
        )


def options_of(cls: type[Attention]) -> dict[str, Any]:
    """Return a mechanism's options with their defaults, without `embed_dim` and `n_heads`."""
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


KINDS: dict[str, tuple[type, str]] = {
    "bool": (Integral, "True or False"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
}


def check_kinds(cls: type[Attention], options: Mapping[str, Any]) -> None:
    """Raise ValueError if a numeric or boolean option has a value of another type.

    Strings such as "1e-3", as which YAML reads 1e-3, are rejected too.
    """
    for parent in cls.__mro__:
        annotations = getattr(parent.__dict__.get("__init__"), "__annotations__", {})
        for name in annotations.keys() & options.keys():
            kind, _, optional = str(annotations[name]).partition(" | ")
            value = options[name]
            if kind not in KINDS or (optional == "None" and value is None):
                continue
            expected, words = KINDS[kind]
            fits = value in (0, 1) if kind == "bool" else not isinstance(value, bool)
            if not isinstance(value, expected) or not fits:
                raise SlayError(f"{name} = {shown(value)}: must be {words}")


def unknown_option(cls: type[Attention], name: str) -> UnknownOptionError:
    """The error for an option that a mechanism does not have."""
    return UnknownOptionError(str(unknown(f"option of {cls.__name__}", name, options_of(cls))))


def accepted(cls: type[Attention], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a mechanism accepts, from settings shared by a whole experiment."""
    known = options_of(cls)
    return {name: value for name, value in options.items() if name in known}
