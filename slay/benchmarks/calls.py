"""The timed call of each contestant, on tensors in the memory layout that it expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from slay.attention.layer import Attention
from slay.attention.linearised import FeatureAttention
from slay.benchmarks.inputs import Inputs
from slay.benchmarks.settings import KernelParams
from slay.benchmarks.timing import Call
from slay.errors import SlayError
from slay.experiments.result import heads_only

FUSED = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


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
    if params.mode == "decode":
        return _decoding(mechanism, tokens)
    return _timed(params, mechanism.attend, tokens.qkv, tokens.g)


def _timed(
    params: KernelParams, attend: Callable[..., Any], inputs: Sequence[Tensor], g: Tensor
) -> Call:
    """Call that computes the output, or the gradients of the inputs."""
    if params.mode == "forward":
        return lambda: attend(*inputs)
    leaves = [t.detach().requires_grad_() for t in inputs]
    return lambda: torch.autograd.grad(attend(*leaves), leaves, g)


def _decoding(mechanism: Attention, context: Inputs) -> Call:
    """Call that decodes one token after a context, updating its state in place where possible."""
    _, state = mechanism.attend(*context.qkv, output_final_state=True)
    state = state._replace(expendable=True)
    token = [t[:, :, -1:].contiguous() for t in context.qkv]
    return lambda: mechanism.attend(*token, initial_state=state, output_final_state=True)


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
    return _timed(params, attend, tokens.qkv, tokens.g)


def _flash_linear(params: KernelParams, tokens: Inputs) -> Call:
    """flash-linear-attention on features that are computed outside the timed call: (B, L, H, m)."""
    try:
        from fla.ops.linear_attn import chunk_linear_attn
    except ImportError as error:
        raise SlayError(f"flash-linear-attention is not installed ({error})") from error
    mechanism = mechanism_of(params, "torch").to(tokens.q.device)
    if not isinstance(mechanism, FeatureAttention):
        raise SlayError(f"{params.attention} has no features")
    position = torch.arange(params.seq_len, device=tokens.q.device).view(1, 1, -1)
    maps = (mechanism.query_map, mechanism.feature_map)
    with torch.no_grad():
        phi_q, phi_k = (
            _by_token(_features(mechanism, feature_map, t, position).to(t.dtype))
            for feature_map, t in zip(maps, tokens.qkv[:2], strict=True)
        )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return chunk_linear_attn(q, k, v, scale=1.0, normalize=True)[0]

    return _timed(params, attend, (phi_q, phi_k, _by_token(tokens.v)), _by_token(tokens.g))


def _features(mechanism: FeatureAttention, feature_map: Any, u: Tensor, position: Tensor) -> Tensor:
    """Features of tokens (B, H, L, d), computed in pieces: (B, H, L, m), in the dtype of u."""
    size = 8192
    pieces = zip(u.split(size, dim=2), position.split(size, dim=2), strict=True)
    return torch.cat(
        [feature_map(mechanism.prepare(t.float()), i).expand().to(u.dtype) for t, i in pieces],
        dim=2,
    )


def _by_token(t: Tensor) -> Tensor:
    """(B, H, L, n) -> (B, L, H, n)."""
    return t.transpose(1, 2).contiguous()
