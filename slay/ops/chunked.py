"""Linear attention over features, chunk by chunk: O(L) time, O(chunk x m) memory.

With S = sum_j phi(k_j) [v_j, 1]^T over the chunks before, (m, e + 1), and inside a chunk
A = tril(<phi(q_i), phi(k_j)>):

    [o, z] = A [v, 1] + phi(q) S,    y = o / z.

The column of ones carries the normaliser through the same products.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.features.forms import Features
from slay.ops.normalise import accumulation_dtype, normalise


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Callable[[Tensor], Features],
    *,
    causal: bool,
    chunk_size: int = 128,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """y_i = sum_j <phi(q_i), phi(k_j)> v_j / sum_j <phi(q_i), phi(k_j)>, over j <= i when causal.

    q, k: (B, H, L, d); v: (B, H, L, e); feature_map: (..., c, d) -> `Features` of c tokens.
    A state is S: (B, H, m, e + 1), what all earlier tokens leave behind. Returns y: (B, H, L, e)
    in v's dtype, and the state after the last token if it is asked for.
    """
    dtype = accumulation_dtype(v.dtype)
    length = q.shape[-2]
    starts = range(0, length, chunk_size)
    state = initial_state

    def features(u: Tensor, start: int) -> Features:
        return feature_map(u[..., start : start + chunk_size, :].to(dtype))

    def values(start: int) -> Tensor:  # [v, 1]: (B, H, c, e + 1)
        return F.pad(v[..., start : start + chunk_size, :].to(dtype), (0, 1), value=1.0)

    blocks = []
    if causal:
        for start in starts:
            phi_q, phi_k, v1 = features(q, start), features(k, start), values(start)
            o = phi_q.scores(phi_k).tril() @ v1  # (B, H, c, e + 1)
            if state is not None:
                o = o + phi_q.expand() @ state
            if output_final_state or start + chunk_size < length:
                state = _add(state, phi_k, v1)
            blocks.append(normalise(o[..., :-1], o[..., -1:]).to(v.dtype))
    else:
        for start in starts:
            state = _add(state, features(k, start), values(start))
        assert state is not None  # there is a token
        for start in starts:
            o = features(q, start).expand() @ state  # (B, H, c, e + 1)
            blocks.append(normalise(o[..., :-1], o[..., -1:]).to(v.dtype))
    y = torch.cat(blocks, dim=-2) if len(blocks) > 1 else blocks[0]
    return y, state if output_final_state else None


def _add(state: Tensor | None, phi_k: Features, v1: Tensor) -> Tensor:
    """S + phi(k)^T [v, 1]."""
    update = phi_k.expand().mT @ v1  # (B, H, m, e + 1)
    return update if state is None else state + update
