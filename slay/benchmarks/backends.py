"""The timed call of each contestant, and the least work that it takes.

The work, memory traffic and operations of matrix products, depends on the method, not on its
implementation. Bytes are those of q, k, v, the output, their gradients and the state that decoding
keeps; features, chunk states and scores need not leave the chip. Operations are those of
`Attention.operations`. A model adds those of its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from slay.attention.layer import Attention
from slay.attention.linear import LinearAttention
from slay.benchmarks.calls import Inputs, passes, timed_call
from slay.benchmarks.floors import Work, operations_of
from slay.benchmarks.settings import KernelParams, ModelParams
from slay.benchmarks.timing import Call
from slay.errors import SlayError
from slay.experiments.result import heads_only

FUSED = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
# Per weight, in float32: read in the forward and the backward pass, and its gradient written; then
# AdamW reads weight, gradient and two moments, and writes weight and moments.
STEP_BYTES = 4 * (3 + 4 + 3)


def mechanism_of(params: KernelParams, backend: str) -> Attention:
    """The mechanism over heads, with the requested options that it accepts."""
    shared = {"epsilon": params.epsilon, **params.options}
    asked = {"backend": backend}
    return heads_only(params.attention, params.head_dim, params.n_heads, shared, asked)


def by_kernels(params: KernelParams, tokens: Inputs) -> Attention:
    """The mechanism with our kernels, after a call on a few tokens.

    Raises `SlayError` if it has no kernels, or none that support such inputs.
    """
    mechanism = mechanism_of(params, "triton").to(tokens.q.device)
    mechanism.attend(*tokens.first(16).qkv)
    if mechanism.backend_used != "triton":
        raise SlayError(f"{params.attention} has no kernels")
    return mechanism


def call_of(params: KernelParams, tokens: Inputs) -> Call:
    """The timed call. Raises `SlayError` if the contestant does not support it."""
    if params.backend in FUSED:
        return _fused(params, tokens)
    if params.backend == "fla":
        return _flash_linear(params, tokens)
    mechanism = mechanism_of(params, params.backend).to(tokens.q.device)
    return timed_call(mechanism, params.mode, tokens, in_place=True)


def _fused(params: KernelParams, tokens: Inputs) -> Call:
    """PyTorch's softmax attention by one of its fused kernels; decoding reads a given KV cache."""
    backend, decode = FUSED[params.backend], params.mode == "decode"

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        try:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=not decode)
        except RuntimeError as error:
            if "No available kernel" in str(error) or "No viable backend" in str(error):
                raise SlayError(f"PyTorch has no {params.backend} kernel for it here") from error
            raise

    if decode:
        last = tokens.q[:, :, -1:].contiguous()
        return lambda: attend(last, tokens.k, tokens.v)
    return passes(params.mode, attend, tokens.qkv, tokens.g)


def _flash_linear(params: KernelParams, tokens: Inputs) -> Call:
    """flash-linear-attention on features that are computed outside the timed call: (B, L, H, m)."""
    try:
        from fla.ops.linear_attn import chunk_linear_attn
    except ImportError as error:
        raise SlayError(f"flash-linear-attention is not installed ({error})") from error
    mechanism = mechanism_of(params, "torch").to(tokens.q.device)
    if not isinstance(mechanism, LinearAttention):
        raise SlayError(f"{params.attention} has no features")
    position = torch.arange(params.seq_len, device=tokens.q.device).view(1, 1, -1)
    maps = (mechanism.feature_map.queries, mechanism.feature_map)
    with torch.no_grad():
        phi_q, phi_k = (
            _by_token(_features(mechanism, feature_map, t, position).to(t.dtype))
            for feature_map, t in zip(maps, tokens.qkv[:2], strict=True)
        )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return chunk_linear_attn(q, k, v, scale=1.0, normalize=True)[0]

    return passes(params.mode, attend, (phi_q, phi_k, _by_token(tokens.v)), _by_token(tokens.g))


def _features(mechanism: LinearAttention, feature_map: Any, u: Tensor, position: Tensor) -> Tensor:
    """Features of tokens (B, H, L, d), computed in pieces: (B, H, L, m), in the dtype of u."""
    size, prepare = 8192, mechanism.feature_map.prepare
    pieces = zip(u.split(size, dim=2), position.split(size, dim=2), strict=True)
    return torch.cat(
        [feature_map(prepare(t.float()), i).expand().to(u.dtype) for t, i in pieces], dim=2
    )


def _by_token(t: Tensor) -> Tensor:
    """(B, H, L, n) -> (B, L, H, n)."""
    return t.transpose(1, 2).contiguous()


def work_of(params: KernelParams, mechanism: Attention, n_parameters: int = 0) -> Work:
    """Work of a call; `n_parameters` counts a model's weights that multiply every token."""
    if isinstance(params, ModelParams):
        return _step(params, mechanism, n_parameters)
    return Work(_bytes(params, mechanism), _operations(params, mechanism))


def _step(params: ModelParams, mechanism: Attention, n_parameters: int) -> Work:
    """Work of a training step: three products of every token with the weights, and attention."""
    tokens, heads = params.batch_size * params.seq_len, params.batch_size * params.n_heads
    attention = operations_of(mechanism, params.mode, heads, params.seq_len)
    operations = 6 * tokens * n_parameters + params.n_layers * attention
    return Work(STEP_BYTES * n_parameters, operations)


def _operations(params: KernelParams, mechanism: Attention) -> int:
    heads, L = params.batch_size * params.n_heads, params.seq_len
    if params.mode != "decode":
        return operations_of(mechanism, params.mode, heads, L)
    state = mechanism.state_size(params.head_dim)  # written and read, or the context's k and v read
    return 2 * heads * (2 * L * params.head_dim if state is None else 2 * state)


def _bytes(params: KernelParams, mechanism: Attention) -> int:
    heads = params.batch_size * params.n_heads
    token = params.head_dim * getattr(torch, params.dtype).itemsize
    if params.mode == "decode":
        state = mechanism.state_size(params.head_dim)
        held = 2 * params.seq_len * token if state is None else 8 * state  # float32, in and out
        return heads * (held + 4 * token)
    wide = token
    if params.backend == "fla":  # q and k are features
        wide = token * getattr(mechanism, "num_features", params.head_dim) // params.head_dim
    forward = 2 * wide + 2 * token  # q, k, v, y
    backward = 4 * wide + 4 * token  # those and dy are read, dq, dk and dv written
    both = forward + backward if params.mode == "forward_backward" else forward
    return heads * params.seq_len * both
