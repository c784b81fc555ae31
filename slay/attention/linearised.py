"""Mechanisms whose kernel is the inner product of two feature vectors."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from slay.attention.layer import Attention, Memory, nothing
from slay.attention.packing import positions
from slay.features.forms import Dense, Features
from slay.ops.chunked import Places
from slay.ops.groups import fold, unfold
from slay.ops.limits import WIDEST_DENSE, spec_limit, verification_limit
from slay.ops.linear import linear_attention, wants_gradient
from slay.ops.modes import without_autocast
from slay.ops.normalise import accumulation_dtype
from slay.ops.select import choose, tensor_limit
from slay.ops.triton.spec import FeatureSpec, given


class FeatureAttention(Attention):
    """Base class of mechanisms given by a feature map phi: k(q, k) = <phi(q), phi(k)>.

    Attention weights are never formed, so they have no dropout.
    """

    complexity = "L"
    exact = False
    chunk_size = 128
    kernel_chunk_size = 0  # tokens per chunk in the kernels; 0: chosen by the state size

    @abstractmethod
    def feature_map(self, u: Tensor, position: Tensor) -> Features:
        """phi of queries or keys u: (B, K, n, d) at position: (B or 1, 1, n).

        K is the number of key heads; grouped queries share their key head's map.
        """

    def query_map(self, u: Tensor, position: Tensor) -> Features:
        """phi of queries, if different from that of keys.

        A per-query scale cancels in the normalisation.
        """
        return self.feature_map(u, position)

    def prepare(self, u: Tensor) -> Tensor:
        """Map applied once per token, before chunking: (B, H, L, d) -> (B, H, L, d')."""
        return u

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        padding: Tensor | None,
        start: Tensor | None,
        memory: Memory | None,
        final: bool,
        overwrite: bool = False,
    ) -> tuple[Tensor, Memory]:
        places = self._places(q, k, padding, start)
        state = memory[0] if memory is not None else None
        found = self._kernels(q, k, v, start, None, places) if q.shape[2] and k.shape[2] else None
        if found is not None:
            if state is not None and q.shape[2] == 1 and not wants_gradient(q, k, v, state):
                from slay.ops.triton.decode import decode_attention

                y, state = decode_attention(
                    *found[:2], v, found[2], state, key_padding_mask=padding, overwrite=overwrite
                )
            else:
                y, state = self._by_kernels(*found, v, padding, state, None, final)
            return y, (state,) if final else ()
        if not q.shape[2] or not k.shape[2]:
            y = nothing(q, v)
            if state is None:
                state = self.empty_state(v) if final else None
            elif not overwrite:
                state = state.clone()  # the next call may overwrite the new state but not the old
        else:
            y, state = linear_attention(
                self.prepare(q),
                self.prepare(k),
                v,
                self.query_map,
                self.feature_map,
                causal=self.causal,
                chunk_size=self.chunk_size,
                key_padding_mask=padding,
                start=start,
                places=places,
                initial_state=state,
                output_final_state=final,
                parameters=self.map_parameters(),
                overwrite=overwrite,
            )
        return y, (state,) if final else ()

    def _attend_packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: list[int],
        start: Tensor | None,
        memory: Memory | None,
        final: bool,
    ) -> tuple[Tensor, Memory]:
        found = self._kernels(q, k, v, start, lengths)
        if found is None:
            return super()._attend_packed(q, k, v, lengths, start, memory, final)
        self.check_length(max(lengths), start)
        state = memory[0] if memory is not None else None
        y, state = self._by_kernels(*found, v, None, state, lengths, final)
        return y, (state,) if final else ()

    def _places(self, q: Tensor, k: Tensor, padding: Tensor | None, start: Tensor | None) -> Places:
        """Positions of queries and keys if padding, which takes up none, shifts them; else None.

        With as many queries as keys, both are the same tokens.
        """
        if padding is None:
            self.check_length(max(q.shape[2], k.shape[2]), start)
            return None, None
        there = (~padding).sum(1)
        self.check_length(0, there if start is None else start + there)
        j = positions(k.shape[2], None, start, k.device, padding)  # (B, Lk)
        if q.shape[2] == k.shape[2]:
            return j, j
        self.check_length(q.shape[2], None)
        return None, j

    def _kernels(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        start: Tensor | None,
        lengths: list[int] | None,
        places: Places = (None, None),
    ) -> tuple[Tensor, Tensor, FeatureSpec] | None:
        """Return prepared q and k and their feature spec if kernels compute the call, else None.

        `lengths`: of packed sequences. Sets `backend_used`.
        """
        reason, found = tensor_limit(self.backend, q, v), None
        if self.backend != "torch" and reason is None:
            i = positions(q.shape[2], lengths, start, q.device).unsqueeze(1)  # (B or 1, 1, Lq)
            j = i
            if q.shape[2] != k.shape[2]:
                j = torch.arange(k.shape[2], device=k.device).view(1, 1, -1)
            i, j = (
                t if own is None else own.unsqueeze(1)
                for t, own in zip((i, j), places, strict=True)
            )
            with without_autocast(q.device):
                q, k = self.prepare(q), self.prepare(k)
                spec, reason = self.possible_spec(q, k, v, i, j)
            if spec is not None and reason is None:
                found = q, k, spec
                reason = verification_limit(self.backend, spec, q, v)
        self.backend_used = choose(self.backend, reason)
        return found if self.backend_used == "triton" else None

    def possible_spec(
        self, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor
    ) -> tuple[FeatureSpec | None, str | None]:
        """Return a feature spec, and the reason if kernels do not support it.

        Arguments are as in `feature_spec`. A product whose factors are too wide is tried as one
        dense feature vector.
        """
        spec = self.feature_spec(q, k, i, j)
        reason = spec_limit(spec, q, v)
        if reason is not None and self.num_features <= WIDEST_DENSE:
            phi_q, phi_k = self._features(q, k, i, j)
            spec = given(Dense(phi_q.expand()), Dense(phi_k.expand()))
            reason = spec_limit(spec, q, v)
        return spec, reason

    def _by_kernels(
        self,
        q: Tensor,
        k: Tensor,
        spec: FeatureSpec,
        v: Tensor,
        padding: Tensor | None,
        state: Tensor | None,
        lengths: list[int] | None,
        final: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention and the final state by Triton kernels; `lengths`: of packed sequences."""
        from slay.ops.triton.launch import kernel_attention

        with without_autocast(q.device):
            return kernel_attention(
                q,
                k,
                v,
                spec,
                causal=self.causal,
                chunk_size=self.kernel_chunk_size,
                key_padding_mask=padding,
                lengths=lengths,
                initial_state=state,
                output_final_state=final,
            )

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec | None:
        """Spec of the features of q: (B, H, Lq, d) at positions i: (B or 1, 1, Lq), and of k at j.

        By default the features are computed here and passed to the kernels. None if the kernels do
        not support their form.
        """
        return given(*self._features(q, k, i, j))

    def _features(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> tuple[Features, Features]:
        """phi of prepared queries, for all query heads, and of prepared keys."""
        groups = q.shape[1] // k.shape[1]
        dtype = accumulation_dtype(q.dtype)
        phi_q = self.query_map(fold(q.to(dtype), groups), i.repeat(1, 1, groups))
        phi_k = self.feature_map(k.to(dtype), j)
        return phi_q.at(lambda factor: unfold(factor, groups)), phi_k

    def check_length(self, length: int, start: Tensor | None) -> None:
        """Raise ValueError if a sequence is too long for the mechanism."""

    def map_parameters(self) -> list[Tensor]:
        """Trainable parameters of the feature map."""
        return [
            parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and name.split(".")[0] not in {"qkv", "out", "short_conv"}
        ]

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k = (self.prepare(u.to(accumulation_dtype(u.dtype))) for u in (q, k))
        i, j = (torch.arange(t.shape[2], device=t.device).view(1, 1, -1) for t in (q, k))
        phi_q = self.feature_map(fold(q, groups), i.repeat(1, 1, groups))
        return unfold(phi_q.scores(self.feature_map(k, j)), groups)

    def _probe(self) -> Features:
        """phi of one token."""
        tensors = (*self.buffers(), *self.parameters(), torch.empty(0))
        token = tensors[0].new_zeros(1, self.n_kv_heads, 1, self.head_dim)
        position = torch.zeros(1, 1, 1, device=token.device, dtype=torch.long)
        with torch.no_grad():
            return self.feature_map(self.prepare(token), position)

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
