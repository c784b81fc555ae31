"""Linear attention: mechanisms whose kernel is the inner product of two feature vectors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slay.attention.layer import Attention, Compute, nothing
from slay.features.feature_map import Factors, FeatureMap
from slay.features.forms import Features, Product
from slay.features.spec import FeatureSpec
from slay.ops.groups import fold, unfold
from slay.ops.limits import WIDEST_DENSE, spec_limit, verification_limit
from slay.ops.linear import linear_attention, wants_gradient
from slay.ops.modes import undisturbed, without_autocast
from slay.ops.normalise import accumulation_dtype
from slay.ops.select import tensor_limit
from slay.ops.sequences import Memory, Sequences


class LinearAttention(Attention):
    """Base class of mechanisms given by a feature map phi: k(q, k) = <phi(q), phi(k)>.

    Attention weights are never formed, so they have no dropout.
    """

    complexity = "L"
    exact = False
    chunk_size = 128
    kernel_chunk_size = 0  # tokens per chunk in the kernels; 0: chosen by the state size

    def __init__(self, embed_dim: int, n_heads: int, **layer: Any):
        super().__init__(embed_dim, n_heads, **layer)
        self.feature_map = self._built()
        self.register_load_state_dict_pre_hook(_rename)

    @abstractmethod
    def features(self) -> FeatureMap:
        """Make phi, from the options and the seed alone: the same on every rank and device."""

    def _built(self) -> FeatureMap:
        """Return `features()`, unaffected by the caller's modes, on the caller's default device."""

        def drawn() -> tuple[FeatureMap, dict[int, Any]]:
            made = self.features()
            tensors = (*made.buffers(), *made.parameters())
            return made, {id(t): t.detach().numpy() for t in tensors}

        made, arrays = undisturbed(drawn)
        with torch.inference_mode(False):  # inference tensors cannot be used in training
            for module in made.modules():
                for name, t in module.named_buffers(recurse=False):
                    module._buffers[name] = torch.tensor(arrays[id(t)])
                for name, p in module.named_parameters(recurse=False):
                    value = torch.tensor(arrays[id(p)], dtype=torch.get_default_dtype())
                    module._parameters[name] = nn.Parameter(value, p.requires_grad)
        return made

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Redraw phi from the seed, for example after construction on the meta device."""
        drawn = self._built()
        for mine, new in (
            *zip(self.feature_map.buffers(), drawn.buffers(), strict=True),
            *zip(self.feature_map.parameters(), drawn.parameters(), strict=True),
        ):
            mine.copy_(new)

    def packs(self, sequences: Sequences) -> bool:
        return True

    def _by_torch(
        self, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        if not q.shape[2] or not k.shape[2]:
            y, state = nothing(q, v), sequences.state
            if state is None:
                state = self.empty_state(v) if sequences.final else None
            elif not sequences.overwrite:
                state = state.clone()  # the next call may overwrite the new state but not the old
        else:
            y, state = linear_attention(
                self.feature_map.prepare(q), self.feature_map.prepare(k), v, self.feature_map,
                sequences, causal=self.causal, chunk_size=self.chunk_size,
            )  # fmt: skip
        return y, (state,) if sequences.final else ()

    def kernels(self, q: Tensor, k: Tensor, v: Tensor) -> Compute | str:
        reason = tensor_limit(self.backend, q, v)
        if reason is not None:
            return reason
        d, e = self.feature_map.width(int(q.shape[-1])), int(v.shape[-1])
        spec, reason = self.feature_spec(d)
        if spec is None or reason is not None:
            return reason or ""
        if self.backend == "auto":
            reason = verification_limit(spec, d, e, v.dtype, v.device)
        return partial(self._by_kernels, spec) if reason is None else reason

    def feature_spec(self, d: int) -> tuple[FeatureSpec | None, str | None]:
        """Description of phi for the kernels, of heads d wide; and why they do not support it.

        Features without a description of their own are passed to the kernels, as one vector where
        the factors of a product are too wide.
        """
        spec = self.feature_map.spec()
        reason = spec_limit(spec, d)
        if reason is None:
            return spec, None
        phi = self._probe()
        if spec is None and isinstance(phi, Product):
            p, f = (part.expand().shape[-1] for part in (phi.a, phi.b))
            spec = FeatureSpec(p="given", p_width=p, f_width=f)
            reason = spec_limit(spec, d)
        m = phi.expand().shape[-1]
        if reason is not None and m <= WIDEST_DENSE:
            spec = FeatureSpec(f_width=m)
            reason = spec_limit(spec, d)
        return spec, reason

    def _by_kernels(
        self, spec: FeatureSpec, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        from slay.ops.triton.decode import decode_attention
        from slay.ops.triton.launch import kernel_attention

        state = sequences.state
        i, j = sequences.positions(q.shape[2], k.shape[2], q.device)
        with without_autocast(q.device):
            q, k = self.feature_map.prepare(q), self.feature_map.prepare(k)
            spec = self.with_given(spec, q, k, i, j)
            if state is not None and q.shape[2] == 1 and not wants_gradient(q, k, v, state):
                y, state = decode_attention(
                    q, k, v, spec, state,
                    key_padding_mask=sequences.padding, overwrite=sequences.overwrite,
                )  # fmt: skip
            else:
                y, state = kernel_attention(
                    q, k, v, spec,
                    causal=self.causal, chunk_size=self.kernel_chunk_size,
                    key_padding_mask=sequences.padding, lengths=sequences.lengths,
                    initial_state=state, output_final_state=sequences.final,
                )  # fmt: skip
        return y, (state,) if sequences.final else ()

    def with_given(
        self, spec: FeatureSpec, q: Tensor, k: Tensor, i: Tensor, j: Tensor
    ) -> FeatureSpec:
        """Compute the factors that a spec calls "given".

        q: (B, H, Lq, d) at positions i: (B or 1, 1, Lq), and k: (B, K, Lk, d) at j, prepared.
        """
        if "given" not in (spec.p, spec.f):
            return spec
        groups, dtype = q.shape[1] // k.shape[1], accumulation_dtype(q.dtype)
        of_q = self._given(spec, fold(q.to(dtype), groups), i.repeat(1, 1, groups), query=True)
        of_k = self._given(spec, k.to(dtype), j, query=False)
        (p_q, f_q), (p_k, f_k) = [None if t is None else unfold(t, groups) for t in of_q], of_k
        return replace(
            spec,
            given_p=None if p_q is None or p_k is None else (p_q, p_k),
            given_f=None if f_q is None or f_k is None else (f_q, f_k),
        )

    def _given(self, spec: FeatureSpec, u: Tensor, position: Tensor, *, query: bool) -> Factors:
        if spec.f != "given":
            return self.feature_map.given(u, position)
        phi: Features = (self.feature_map.queries if query else self.feature_map)(u, position)
        if isinstance(phi, Product) and spec.p == "given":
            return phi.a.expand(), phi.b.expand()
        return None, phi.expand()

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k = (self.feature_map.prepare(u.to(accumulation_dtype(u.dtype))) for u in (q, k))
        i, j = (torch.arange(t.shape[2], device=t.device).view(1, 1, -1) for t in (q, k))
        phi_q: Features = self.feature_map(fold(q, groups), i.repeat(1, 1, groups))
        return unfold(phi_q.scores(self.feature_map(k, j)), groups)

    def _probe(self) -> Features:
        """phi of one token."""
        tensors = (*self.buffers(), *self.parameters(), torch.empty(0))
        token = tensors[0].new_zeros(1, self.n_kv_heads, 1, self.head_dim)
        position = torch.zeros(1, 1, 1, device=token.device, dtype=torch.long)
        with torch.no_grad():
            phi: Features = self.feature_map(self.feature_map.prepare(token), position)
        return phi

    @property
    def num_features(self) -> int:
        """m, the length of phi."""
        return self._probe().expand().shape[-1]

    def operations(self, length: int, *, backward: bool = False) -> int:
        # Forward pass: two products to write and read the state, two (scores and their product
        # with v) over half of a chunk's pairs. Backward pass: four and five.
        width = self.value_dim + 1
        factors = sum(factor.shape[-1] for factor in self._probe().factors())
        state = 4 * length * self.num_features * width
        inside = length * min(length, self.chunk_size) * (factors + width)
        return state * 3 + inside * 7 // 2 if backward else state + inside

    def empty_state(self, v: Tensor) -> Tensor:
        """S before any token, for values v: (B, K, L, e)."""
        shape = (*v.shape[:2], v.shape[-1] + 1, self.num_features)
        return v.new_zeros(shape, dtype=torch.promote_types(v.dtype, torch.float32))

    def state_size(self, value_dim: int) -> int:
        return self.num_features * (value_dim + 1)


def _rename(layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Accept state dicts in which the tensors of phi belonged to the layer itself."""
    for name in [*layer.state_dict()]:
        before = prefix + name.rpartition(".")[2]
        if name.startswith("feature_map.") and before in state:
            state[prefix + name] = state.pop(before)
