"""How each contestant is called, on tensors that lie as it wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from slay.attention.layer import Attention
from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError
from slay.experiments.kernels.inputs import Inputs
from slay.experiments.kernels.settings import KernelParams
from slay.experiments.measure import Call
from slay.experiments.result import heads_only

FUSED = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def mechanism_of(params: KernelParams, backend: str) -> Attention:
    """The mechanism over heads, with those of the options asked for that it knows."""
    shared = {"epsilon": params.epsilon, **params.options}
    asked = {"backend": backend}
    return heads_only(params.attention, params.head_dim, params.n_heads, shared, asked)


def by_kernels(params: KernelParams, tokens: Inputs) -> Attention:
    """The mechanism by our kernels, which have computed a few tokens.

    Raises `SlayError` where there are none, or where they cannot take such tokens.
    """
    mechanism = mechanism_of(params, "triton").to(tokens.q.device)
    mechanism.attend(*tokens.first(16).qkv)
    if mechanism.backend_used != "triton":
        raise SlayError(f"{params.attention} has no kernels")
    return mechanism


def call_of(params: KernelParams, tokens: Inputs) -> Call:
    """What is timed. Raises `SlayError` for what this contestant cannot do."""
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
    """The output, or the gradients of what went in."""
    if params.mode == "forward":
        return lambda: attend(*inputs)
    leaves = [t.detach().requires_grad_() for t in inputs]
    return lambda: torch.autograd.grad(attend(*leaves), leaves, g)


def _decoding(mechanism: Attention, context: Inputs) -> Call:
    """One token after a context, whose state is overwritten in place where it can be."""
    _, state = mechanism.attend(*context.qkv, output_final_state=True)
    state = state._replace(expendable=True)
    token = [t[:, :, -1:].contiguous() for t in context.qkv]
    return lambda: mechanism.attend(*token, initial_state=state, output_final_state=True)


def _fused(params: KernelParams, tokens: Inputs) -> Call:
    """PyTorch's softmax attention by one of its fused kernels; decoding reads a cache as it is."""
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
    """flash-linear-attention on features formed before the clock starts: (B, L, H, m)."""
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
    """phi of tokens (B, H, L, d), a piece after the other: (B, H, L, m), as they are stored."""
    size = 8192
    pieces = zip(u.split(size, dim=2), position.split(size, dim=2), strict=True)
    return torch.cat(
        [feature_map(mechanism.prepare(t.float()), i).expand().to(u.dtype) for t, i in pieces],
        dim=2,
    )


def _by_token(t: Tensor) -> Tensor:
    """(B, H, L, n) -> (B, L, H, n)."""
    return t.transpose(1, 2).contiguous()
