"""slay's mechanisms as the attention of Hugging Face models.

    import slay.integrations.transformers
    model = AutoModelForCausalLM.from_config(config, attn_implementation="slay:yat-quadratic")

registers every mechanism as `slay:<name>`, with its default options. Use `register` for options,
and for mechanisms that were added with `slay.register_attention`.

- Padding, grouped keys, packed sequences, non-causal and cross-attention work as they do with
  PyTorch's own attention. Unsupported features raise `SlayError`: sliding windows shorter than the
  input of a call, soft caps, sinks, position biases, 4-D masks, attention weights as an output, and
  attention dropout in mechanisms that never form weights (those without a `dropout` option).
- `scaling` multiplies queries by scaling sqrt(d), 1 in most models, so that the exp(q·k / sqrt d)
  of `slay:standard` is the model's exp(scaling q·k). Kernels on the sphere have no scale and
  ignore it.
- Layer l draws random features from seed + l once, and caches them. They are not in the model's
  state dict: the seed determines them. A module without `layer_idx` counts as layer 0.
- transformers' cache keeps all keys, from which a linear mechanism recomputes its state at every
  call: O(L) per token. `slay.models.gpt` carries the state instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from slay.attention.exact import PairwiseAttention
from slay.attention.layer import Attention, options_of, unknown_option
from slay.attention.state import State
from slay.errors import SlayError
from slay.registry import get_attention_class, list_attention_types

try:
    from transformers import AttentionInterface, AttentionMaskInterface

    from slay.integrations.masks import mask
except ImportError as error:
    raise ImportError(
        "slay.integrations.transformers needs transformers 5.6 or newer; "
        "install it with: pip install 'slay-attention[transformers]'"
    ) from error

OF_THE_MODEL = {"bias", "causal", "dropout", "n_kv_heads", "rotary", "short_conv", "value_dim"}
# Keywords of models that have no effect here: masks and boundaries carry the same information.
OF_NO_EFFECT = {
    "cache_position",
    "cu_seq_lens_k",
    "deterministic",
    "max_length_k",
    "max_length_q",
    "num_items_in_batch",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "sliding_window",
    "use_cache",
}


def register(attention: str, *, name: str | None = None, **options: Any) -> str:
    """Register a mechanism with transformers as `slay:<name>`, by default its own name.

    `options` are the mechanism's. Returns the value for `attn_implementation`:

        register("yat-performer-anchor", name="small-anchor", poly_dim=8)

    A later call with the same name replaces the earlier one. Raises `UnknownNameError`, TypeError
    for an option that the mechanism does not have, and `SlayError` for one that follows from the
    model.
    """
    cls = get_attention_class(attention)
    for option in options:
        if option not in options_of(cls):
            raise unknown_option(cls, option)
        if option in OF_THE_MODEL:
            raise SlayError(f"{option} follows from the model; it is no option to register")
    implementation = f"slay:{attention if name is None else name}"
    AttentionInterface.register(implementation, _attention(cls, options))
    AttentionMaskInterface.register(implementation, mask)
    return implementation


def _attention(cls: type[Attention], options: dict[str, Any]) -> Callable[..., tuple[Tensor, None]]:
    """Return a mechanism as a function that transformers can call."""
    drawn = cache(partial(_heads, cls, options))  # one instance per layer, device and mode

    def forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        *,
        scaling: float | None = None,
        dropout: float = 0.0,
        is_causal: bool | None = None,
        cu_seq_lens_q: Tensor | None = None,
        **keywords: Any,
    ) -> tuple[Tensor, None]:
        """query: (B, H, L, d); key: (B, K, Lk, d); value: (B, K, Lk, e). Returns (B, L, H, e).

        Where L < Lk and `is_causal`, the queries are the last L of Lk tokens.
        """
        _refuse(keywords)
        query, key, value = _in_one_dtype(_scaled(query, scaling), key, value)
        sizes = (query.shape[3], query.shape[1], key.shape[1])
        layer = getattr(module, "layer_idx", None) or 0
        heads = drawn(*sizes, query.device, _causal(module, is_causal), dropout, layer)
        padding, bounds = _marks(attention_mask, cu_seq_lens_q, keywords.get("cu_seq_lens_k"))
        if bounds is not None:
            return _packed(heads, query, key, value, bounds), None
        if padding is not None:
            key, value = (t[:, :, : padding.shape[1]] for t in (key, value))
        return _last(heads, query, key, value, padding), None

    return forward


def _refuse(keywords: dict[str, Any]) -> None:
    """Raise `SlayError` for keywords that no mechanism supports."""
    for name, value in keywords.items():
        if name not in OF_NO_EFFECT and value is not None and value is not False:
            raise SlayError(f"slay's attention cannot honour {name}; leave it out of the model")


def _in_one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, cast to the dtype that PyTorch's own attention would get."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(t.to(torch.get_autocast_dtype(device)) for t in tensors)


def _scaled(query: Tensor, scaling: float | None) -> Tensor:
    """Scale queries so that q·k / sqrt d equals the model's scaling q·k."""
    factor = 1.0 if scaling is None else scaling * math.sqrt(query.shape[3])
    return query if math.isclose(factor, 1.0) else query * factor


def _causal(module: nn.Module, is_causal: bool | None) -> bool:
    causal = getattr(module, "is_causal", None) if is_causal is None else is_causal
    if causal is None:
        raise SlayError(f"{type(module).__name__} does not say whether it is_causal")
    return causal


def _marks(
    mask: Tensor | None, bounds: Tensor | None, of_keys: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return padding, (B, n), True where a key is padding, and boundaries (N + 1,)."""
    if bounds is not None and of_keys is not None and not torch.equal(bounds, of_keys):
        raise SlayError("cu_seq_lens_q and cu_seq_lens_k differ; slay packs both alike")
    if mask is None:
        return None, bounds
    if mask.ndim == 1:
        if bounds is not None and bounds.tolist() != mask.tolist():
            raise SlayError(
                f"cu_seq_lens_q = {bounds.tolist()}, but position_ids begin anew at "
                f"{mask.tolist()}; give one of them"
            )
        return None, mask
    if mask.ndim != 2:
        raise SlayError(
            f"attention_mask has shape {tuple(mask.shape)}; expected (B, L), True for real tokens"
        )
    if bounds is not None:
        raise SlayError("cu_seq_lens_q and padding exclude each other")
    return ~mask.bool(), None


def _packed(heads: Attention, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    """Attention within sequences packed into the batch's concatenated rows: (B, L, H, e)."""
    batch = q.shape[0]
    q, k, v = (t.transpose(0, 1).flatten(1, 2).unsqueeze(0) for t in (q, k, v))  # (1, H, B L, d)
    y = heads.attend(q, k, v, cu_seqlens=bounds)
    return y[0].transpose(0, 1).unflatten(0, (batch, -1)).contiguous()


def _last(heads: Attention, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
    """Attention of q: (B, H, L, d), the last L of Lk tokens if causal: (B, L, H, e)."""
    past, state = k.shape[2] - q.shape[2], None
    if heads.causal and past > 0:
        earlier = None if padding is None else padding[:, :past]
        state = _state(heads, k[:, :, :past], v[:, :, :past], earlier)
        k, v = k[:, :, past:], v[:, :, past:]
        padding = None if padding is None else padding[:, past:]
    y = heads.attend(q, k, v, key_padding_mask=padding, initial_state=state)
    return y.transpose(1, 2).contiguous()


def _state(heads: Attention, k: Tensor, v: Tensor, padding: Tensor | None) -> State:
    """State after these tokens."""
    if isinstance(heads, PairwiseAttention):
        return State((k, v, padding), torch.full(k.shape[:1], k.shape[2], device=k.device))
    q = k.repeat_interleave(heads.n_heads // heads.n_kv_heads, dim=1)  # the values do not matter
    return heads.attend(q, k, v, key_padding_mask=padding, output_final_state=True)[1]


def _heads(
    cls: type[Attention],
    options: dict[str, Any],
    head_dim: int,
    n_heads: int,
    n_kv_heads: int,
    device: torch.device,
    causal: bool,
    dropout: float,
    layer: int,
) -> Attention:
    """Build a layer's mechanism. Raises `SlayError` if it has trainable parameters."""
    of_layer = {"n_kv_heads": n_kv_heads, "causal": causal, "seed": options.get("seed", 0) + layer}
    if dropout:
        if "dropout" not in options_of(cls):
            raise SlayError(
                f"attention dropout of {dropout}: {cls.__name__} forms no weights to drop; set it "
                "to 0 in the model's configuration"
            )
        of_layer["dropout"] = dropout
    with torch.inference_mode(False):  # inference tensors cannot be used in training
        heads = cls.heads_only(head_dim, n_heads, **{**options, **of_layer}).to(device)
    for path, _ in heads.named_parameters():
        name = path.rpartition(".")[2]
        raise SlayError(
            f"{cls.__name__} with these options trains its {name}, which the model would neither "
            "train nor save"
        )
    return heads


for _name in list_attention_types():
    register(_name)
