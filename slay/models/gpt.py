"""A GPT with any attention mechanism: the whole model, from tokens to text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slay import files
from slay.activations import YatLinear
from slay.attention.layer import accepted
from slay.attention.packing import Boundaries, lengths_of, positions
from slay.attention.state import State
from slay.errors import SlayError, unknown
from slay.registry import ATTENTION, get_attention_class

ROTARY_BASE = 10000.0
STD = 0.02
IGNORE = -100  # the target where nothing is asked
States = tuple[State, ...]  # one a layer


@dataclass(frozen=True)
class GPTConfig:
    """What a GPT is made of.

    `block_size`: how many positions there are to learn. Rotary positions have no end: there it
    only tells a mechanism with a `max_len` how far it must reach. `options`: of the mechanism
    itself (see `slay.attention`). `seed`: of its random features; weights come from PyTorch's
    default generator.
    """

    vocab_size: int
    block_size: int = 1024
    n_layers: int = 12
    n_heads: int = 12
    embed_dim: int = 768
    attention: str = "standard"
    positions: Literal["learned", "rotary"] = "learned"
    mlp: Literal["gelu", "yat"] = "gelu"
    mlp_ratio: int = 4
    dropout: float = 0.0
    checkpoint: bool = False  # keep a block's input alone, and compute the rest again
    tie_head: bool = True
    bias: bool = False
    short_conv: int = 0
    n_kv_heads: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layers", "n_heads", "embed_dim", "mlp_ratio"):
            _at_least(1, name, getattr(self, name))
        _at_least(0, "short_conv", self.short_conv)
        _at_least(0, "seed", self.seed)
        if self.n_kv_heads is not None:
            _at_least(1, "n_kv_heads", self.n_kv_heads)
        if not 0 <= self.dropout < 1:
            raise SlayError(f"dropout = {self.dropout}: must be at least 0 and below 1")
        for name, allowed in (("positions", ("learned", "rotary")), ("mlp", ("gelu", "yat"))):
            if getattr(self, name) not in allowed:
                raise unknown(f"kind of {name}", getattr(self, name), allowed)
        ATTENTION.canonical(self.attention)
        for name in self.options:
            if name in {"causal", "project", "rotary"} or name in self.__dataclass_fields__:
                raise SlayError(f"options give {name!r}, which GPTConfig itself sets")

    def attention_options(self, layer: int) -> dict[str, Any]:
        """What the mechanism of a layer is built with."""
        known = {"dropout": self.dropout, "max_len": self.block_size}
        return {
            "n_kv_heads": self.n_kv_heads,
            "bias": self.bias,
            "rotary": ROTARY_BASE if self.positions == "rotary" else None,
            "short_conv": self.short_conv,
            "seed": self.seed + layer,
            **accepted(get_attention_class(self.attention), known),
            **self.options,
        }


class MLP(nn.Module):
    """W_down gelu(W_up x), or W_down of Yat neurons: (B, L, E) -> (B, L, E)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        width, hidden = config.embed_dim, config.mlp_ratio * config.embed_dim
        self.up: nn.Module
        self.activation: nn.Module
        if config.mlp == "yat":
            self.up, self.activation = YatLinear(width, hidden, bias=config.bias), nn.Identity()
        else:
            self.up, self.activation = nn.Linear(width, hidden, bias=config.bias), nn.GELU()
        self.down = nn.Linear(hidden, width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """x = x + attention(norm(x)), then x = x + mlp(norm(x))."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        cls = get_attention_class(config.attention)
        self.norm_1 = nn.LayerNorm(config.embed_dim, bias=config.bias)
        self.attention = cls(config.embed_dim, config.n_heads, **config.attention_options(layer))
        self.norm_2 = nn.LayerNorm(config.embed_dim, bias=config.bias)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        state: State | None,
        final: bool,
        key_padding_mask: Tensor | None,
        cu_seqlens: Boundaries | None,
    ) -> tuple[Tensor, State | None]:
        """x: (B, L, E). Returns (B, L, E), and the state left behind if `final`."""
        y = self.attention(
            self.norm_1(x),
            key_padding_mask=key_padding_mask,
            cu_seqlens=cu_seqlens,
            initial_state=state,
            output_final_state=final,
        )
        y, state = y if final else (y, None)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.norm_2(x))), state


class GPT(nn.Module):
    """logits = W norm(blocks(token + position)): tokens (B, L) -> (B, L, V).

    Rotary positions are turned into queries and keys by the attention layers instead. Layer l
    draws its random features from seed + l.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocab_size, config.embed_dim)
        self.position: nn.Embedding | None = None
        if config.positions == "learned":
            self.position = nn.Embedding(config.block_size, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.LayerNorm(config.embed_dim, bias=config.bias)
        self.head = nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        if config.tie_head:
            self.head.weight = self.token.weight
        self.initialise()

    def initialise(self) -> None:
        """Draw weights as GPT-2 does: N(0, 0.02^2), less where 2 n_layers branches add up."""
        branch = STD / math.sqrt(2 * self.config.n_layers)
        for module in (self.token, self.position, self.head):
            draw(module, STD)
        for block in self.blocks:
            assert isinstance(block, Block)
            draw(block.attention.qkv, STD)
            draw(block.attention.out, branch)
            draw(block.mlp.up, STD)
            draw(block.mlp.down, branch)

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained; a tied head counts once."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self,
        tokens: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        cu_seqlens: Boundaries | None = None,
        state: States | None = None,
        output_final_state: bool = False,
    ) -> Any:
        """tokens: (B, L), int64. Returns logits: (B, L, V).

        `key_padding_mask`: (B, L), True for tokens that are padding, which take up positions all
        the same. `cu_seqlens`: boundaries (N + 1,) of N sequences packed into one row. `state` is
        what an earlier call left behind, a `State` a layer; with `output_final_state` the result
        is (logits, state). Raises ValueError for what does not fit, and for more than `block_size`
        learned positions.
        """
        h, state = self._hidden(tokens, state, output_final_state, key_padding_mask, cu_seqlens)
        logits = self.head(h)
        return (logits, state) if output_final_state else logits

    def loss(self, tokens: Tensor, targets: Tensor, **packing: Any) -> Tensor:
        """Mean cross-entropy of targets: (B, L), -100 where nothing is asked."""
        if targets.shape != tokens.shape:
            raise SlayError(
                f"targets have shape {tuple(targets.shape)}; expected that of the tokens, "
                f"{tuple(tokens.shape)}"
            )
        logits = self(tokens, **packing).flatten(0, 1)  # (B L, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE)

    def step(self, tokens: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """The next token of each sequence: (B,). Returns logits: (B, V), and the state after it."""
        if tokens.ndim != 1:
            raise SlayError(f"tokens have shape {tuple(tokens.shape)}; expected (B,)")
        h, after = self._hidden(tokens.unsqueeze(1), state, True)
        assert after is not None
        return self.head(h.squeeze(1)), after

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Continue tokens: (B, L) by n <= max_new_tokens each. Returns (B, L + n).

        The prompt is read once; from then on a token costs what `step` does. See `sample` for
        `temperature`, `top_k` and `top_p`. A sequence that reached the token `stop` is filled up
        with it, and all end when the last one did.
        """
        self._check_generation(tokens, max_new_tokens, stop)
        check_sampling(temperature, top_k, top_p)
        was_training = self.training
        self.eval()
        try:
            h, state = self._hidden(tokens, None, True)
            logits = self.head(h[:, -1])  # (B, V)
            done = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
            parts = [tokens]
            while len(parts) <= max_new_tokens:
                if len(parts) > 1:
                    assert state is not None
                    spent = tuple(own._replace(expendable=True) for own in state)
                    logits, state = self.step(parts[-1].squeeze(1), spent)
                new = sample(logits, temperature, top_k, top_p, generator)  # (B,)
                if stop is not None:
                    new = new.masked_fill(done, stop)
                    done = new == stop
                parts.append(new.unsqueeze(1))
                if stop is not None and done.all():
                    break
        finally:
            self.train(was_training)
        return torch.cat(parts, dim=1)

    def _hidden(
        self,
        tokens: Tensor,
        state: States | None,
        final: bool,
        key_padding_mask: Tensor | None = None,
        cu_seqlens: Boundaries | None = None,
    ) -> tuple[Tensor, States | None]:
        """What the head reads: (B, L, E), and the layers' states if `final`."""
        self._check_tokens(tokens)
        batch, length = tokens.shape
        lengths = None
        if cu_seqlens is not None:
            lengths = lengths_of(cu_seqlens, batch, length)
            cu_seqlens = [0, *accumulate(lengths)]
        self._check_state(state, batch if lengths is None else len(lengths))
        x = self.token(tokens)  # (B, L, E)
        if self.position is not None:
            start = None if state is None else state[0].length
            place = positions(length, lengths, start, tokens.device)  # (B or 1, L)
            self._check_reach(place if start is not None else None, max(lengths or [length]))
            x = x + self.position(place)
        x = self.dropout(x)
        states = []
        for layer, block in enumerate(self.blocks):
            before = None if state is None else state[layer]
            arguments = (x, before, final, key_padding_mask, cu_seqlens)
            if self.config.checkpoint and torch.is_grad_enabled():
                x, after = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x, after = block(*arguments)
            states.append(after)
        return self.norm(x), tuple(states) if final else None

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise SlayError(
                f"tokens have shape {tuple(tokens.shape)} and dtype {tokens.dtype}; "
                "expected (B, L) in torch.int64"
            )
        if tokens.is_cuda or not tokens.numel() or torch.compiler.is_compiling():
            return  # looking at them would wait for the device
        low, high = tokens.aminmax()
        if low < 0 or high >= self.config.vocab_size:
            raise SlayError(
                f"tokens lie between {int(low)} and {int(high)}; "
                f"the vocabulary has 0 to {self.config.vocab_size - 1}"
            )

    def _check_state(self, state: States | None, batch: int) -> None:
        if state is None:
            return
        if len(state) != len(self.blocks):
            raise SlayError(f"the state is of {len(state)} layers, not {len(self.blocks)}")
        if state[0].length.shape != (batch,):
            raise SlayError(f"the state is of {len(state[0].length)} sequences, but {batch} follow")

    def _check_reach(self, place: Tensor | None, reach: int) -> None:
        """Refuse positions that were not learnt; without a state they count from 0."""
        if place is not None and place.numel() and not torch.compiler.is_compiling():
            reach = int(place.max()) + 1
        if reach > self.config.block_size:
            raise SlayError(
                f"{reach} tokens are more than block_size = {self.config.block_size} learned "
                "positions; give a larger one, or positions='rotary'"
            )

    def _check_generation(self, tokens: Tensor, max_new_tokens: int, stop: int | None) -> None:
        self._check_tokens(tokens)
        if not tokens.numel():
            raise SlayError(
                f"tokens have shape {tuple(tokens.shape)}; there is nothing to continue"
            )
        _at_least(0, "max_new_tokens", max_new_tokens)
        if stop is not None and not 0 <= stop < self.config.vocab_size:
            raise SlayError(
                f"stop = {stop}: must be a token, 0 to {self.config.vocab_size - 1}, or None"
            )
        if self.position is not None:
            self._check_reach(None, tokens.shape[1] + max(0, max_new_tokens - 1))


def draw(module: nn.Module | None, std: float) -> None:
    """Weights from N(0, std^2), without bias; Yat neurons keep their own."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw from p = softmax(logits / temperature): (B, V) -> (B,); the likeliest at temperature 0.

    `top_k` keeps the k likeliest tokens; `top_p` the fewest of the likeliest whose p adds up to
    that much (Holtzman et al. 2020).
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits, token = logits.float().sort(dim=-1, descending=True)  # (B, V)
    logits = (logits - logits[:, :1]) / temperature
    if top_k is not None:
        logits = logits[:, :top_k]
    p = logits.softmax(-1)
    if top_p is not None:
        p = p.masked_fill(p.cumsum(-1) - p >= top_p, 0.0)
    chosen = torch.multinomial(p, 1, generator=generator)
    return token.gather(-1, chosen).squeeze(-1)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError for arguments that leave nothing to draw from."""
    if not 0 <= temperature < math.inf:
        raise SlayError(f"temperature = {temperature}: must be a number, 0 (greedy) or more")
    if top_k is not None:
        _at_least(1, "top_k", top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise SlayError(f"top_p = {top_p}: must be above 0 and at most 1")


def _at_least(least: int, name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SlayError(f"{name} = {value!r}: must be a whole number, at least {least}")


def save(model: GPT, folder: Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write model.safetensors and config.json to a folder; `weights` if not the model's own."""
    from safetensors.torch import save as safetensors

    tensors, seen = {}, set()
    for name, tensor in (weights or model.state_dict()).items():
        if name == "head.weight" and model.config.tie_head:
            continue  # it is token.weight
        tensor = tensor.detach().contiguous().cpu()
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    files.write(folder / "model.safetensors", safetensors(tensors))  # save_file ignores the umask
    config = {**asdict(model.config), "options": dict(model.config.options)}
    files.write(folder / "config.json", json.dumps(config, indent=1) + "\n")


def load(folder: str | Path, device: str | torch.device = "cpu") -> GPT:
    """The model that `save` or `slay export` wrote; nothing in the files is executed.

    Raises `SlayError` for a folder without a model, and for weights that do not fit it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        model = GPT(GPTConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8"))))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise SlayError(f"{folder}: has no model that can be read ({error})") from error
    if model.config.tie_head:
        weights["head.weight"] = weights["token.weight"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise SlayError(f"{folder}: the weights do not fit the model ({line})") from error
    return model.to(device).eval()
