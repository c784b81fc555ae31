"""A GPT with any attention mechanism: model, loss, generation, saving and loading."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slay import files
from slay.activations import YatLinear
from slay.attention.layer import accepted, check_padding
from slay.attention.state import State
from slay.errors import SlayError, share, unknown, whole
from slay.fields import Mlp, Positions, with_former_names
from slay.ops.modes import readable, transformed
from slay.ops.sequences import Boundaries, lengths_of, positions
from slay.registry import ATTENTION, get_attention_class

ROTARY_BASE = 10000.0
STD = 0.02
IGNORE = -100  # target at positions without a loss
COUNTS = ["vocab_size", "context_len", "n_layers", "n_heads", "embed_dim", "mlp_ratio"]
States = tuple[State, ...]  # one per layer


@with_former_names
@dataclass(frozen=True)
class GPTConfig:
    """Configuration of a GPT.

    `context_len`: number of learned positions. Rotary positions are unlimited; there it only sets
    the `max_len` of mechanisms that have one. `options`: options of the mechanism (see
    `slay.attention`). `seed`: seed of its random features; weights are drawn from PyTorch's default
    generator.
    """

    vocab_size: int
    context_len: int = 1024
    n_layers: int = 12
    n_heads: int = 12
    embed_dim: int = 768
    attention: str = "standard"
    positions: Positions = "learned"
    mlp: Mlp = "gelu"
    mlp_ratio: int = 4
    dropout: float = 0.0
    gradient_checkpointing: bool = False  # keep only each block's input, and recompute the rest
    tie_head: bool = True
    bias: bool = False
    short_conv: int = 0
    n_kv_heads: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = dict.fromkeys([*COUNTS, "n_kv_heads"], 1) | {"short_conv": 0, "seed": 0}
        for name, number in least.items():
            if getattr(self, name) is not None or name != "n_kv_heads":
                object.__setattr__(self, name, whole(name, getattr(self, name), number))
        object.__setattr__(self, "dropout", share("dropout", self.dropout))
        for name, kinds in (("positions", Positions), ("mlp", Mlp)):
            if getattr(self, name) not in get_args(kinds):
                raise unknown(f"kind of {name}", getattr(self, name), get_args(kinds))
        ATTENTION.canonical(self.attention)
        for name in self.options:
            if name in {"causal", "project", "rotary"} or name in self.__dataclass_fields__:
                raise SlayError(f"options give {name!r}, which GPTConfig itself sets")

    def attention_options(self, layer: int) -> dict[str, Any]:
        """Options with which a layer's mechanism is built."""
        known = {"dropout": self.dropout, "max_len": self.context_len}
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
        """x: (B, L, E). Returns (B, L, E), and the final state if `final`."""
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

    Rotary positions are applied to queries and keys in the attention layers instead. Layer l draws
    its random features from seed + l.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocab_size, config.embed_dim)
        self.position: nn.Embedding | None = None
        if config.positions == "learned":
            self.position = nn.Embedding(config.context_len, config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.LayerNorm(config.embed_dim, bias=config.bias)
        self.head = nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        if config.tie_head:
            self.head.weight = self.token.weight
        self.register_load_state_dict_post_hook(_tie)
        self._draw()

    def initialise(self) -> None:
        """Reinitialise all weights, for example after construction on the meta device.

        With the same seed of PyTorch's generator they equal those of a new model.
        """
        for module in self.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        self._draw()

    def _draw(self) -> None:
        """Draw weights as in GPT-2: N(0, 0.02^2), over sqrt(2 n_layers) where branches add up."""
        branch = STD / math.sqrt(2 * self.config.n_layers)
        for module in (self.token, self.position, self.head):
            draw(module, STD)
        for block in self.blocks:
            assert isinstance(block, Block)
            draw(block.attention.qkv, STD)
            draw(block.attention.out, branch)
            draw(block.mlp.up, STD)
            draw(block.mlp.down, branch)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        _tie(self)  # leaving the meta device unties the weights
        return self

    @property
    def num_parameters(self) -> int:
        """Number of parameters; a tied head counts once."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self,
        tokens: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        cu_seqlens: Boundaries | None = None,
        state: States | None = None,
        output_final_state: bool = False,
        only: Tensor | None = None,
    ) -> Any:
        """tokens: (B, L), int64. Returns logits: (B, L, V).

        `key_padding_mask`: (B, L), True for padding, on either side or in between, which is ignored
        and takes up no position. `cu_seqlens`: boundaries (N + 1,) of N sequences packed into one
        row. `state` is the state of an earlier call, one `State` per layer; with
        `output_final_state` the result is (logits, state). `only`: (B,), the one position in each
        row whose logits are computed: (B, 1, V). Raises ValueError for what does not fit, and for
        more than `context_len` learned positions.
        """
        h, state = self._hidden(tokens, state, output_final_state, key_padding_mask, cu_seqlens)
        if only is not None:
            h = h.gather(1, only.view(-1, 1, 1).expand(-1, 1, h.shape[2]))
        logits = self.head(h)
        return (logits, state) if output_final_state else logits

    def loss(self, tokens: Tensor, targets: Tensor, **packing: Any) -> Tensor:
        """Mean cross-entropy of targets: (B, L), -100 at ignored positions."""
        if targets.shape != tokens.shape:
            raise SlayError(
                f"targets have shape {tuple(targets.shape)}; expected that of the tokens, "
                f"{tuple(tokens.shape)}"
            )
        logits = self(tokens, **packing).flatten(0, 1)  # (B L, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE)

    def step(self, tokens: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Feed the next token of each sequence: (B,). Returns logits: (B, V), and the new state."""
        if tokens.ndim != 1:
            raise SlayError(f"tokens have shape {tuple(tokens.shape)}; expected (B,)")
        logits, after = self(tokens.unsqueeze(1), state=state, output_final_state=True)
        return logits.squeeze(1), after

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
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Continue tokens: (B, L) by n <= max_new_tokens each. Returns (B, L + n).

        Prompts of different lengths are padded, on either side, and `key_padding_mask`, (B, L), is
        True for padding: each is continued as it would be alone, with either kind of positions. The
        padding stays where it is, and new tokens come after column L.

        The prompt is processed once; each further token costs one `step`. See `sample` for
        `temperature`, `top_k` and `top_p`. A sequence that has reached the token `stop` is filled
        up with it; generation ends when all have.
        """
        last = self._check_generation(tokens, max_new_tokens, stop, key_padding_mask)
        check_sampling(temperature, top_k, top_p)
        with evaluating(self):
            logits, state = self(
                tokens, key_padding_mask=key_padding_mask, output_final_state=True, only=last
            )
            logits = logits.squeeze(1)  # (B, V)
            done = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
            parts = [tokens]
            while len(parts) <= max_new_tokens:
                if len(parts) > 1:
                    spent = tuple(own._replace(expendable=True) for own in state)
                    logits, state = self.step(parts[-1].squeeze(1), spent)
                new = sample(logits, temperature, top_k, top_p, generator)  # (B,)
                if stop is not None:
                    new = new.masked_fill(done, stop)
                    done = new == stop
                parts.append(new.unsqueeze(1))
                if stop is not None and done.all():
                    break
        return torch.cat(parts, dim=1)

    def _hidden(
        self,
        tokens: Tensor,
        state: States | None,
        final: bool,
        key_padding_mask: Tensor | None = None,
        cu_seqlens: Boundaries | None = None,
    ) -> tuple[Tensor, States | None]:
        """Hidden states before the head: (B, L, E), and the layers' states if `final`."""
        self._check_tokens(tokens)
        check_padding(key_padding_mask, *tokens.shape)
        batch, length = tokens.shape
        lengths = None
        if cu_seqlens is not None:
            lengths = lengths_of(cu_seqlens, batch, length)
            cu_seqlens = [0, *accumulate(lengths)]
        self._check_state(state, batch if lengths is None else len(lengths))
        x = self.token(tokens)  # (B, L, E)
        if self.position is not None:
            start = None if state is None else state[0].length
            place = positions(
                length, lengths, start, tokens.device, key_padding_mask
            )  # (B or 1, L)
            if key_padding_mask is not None:
                place = place.masked_fill(key_padding_mask, 0)  # any valid position
            counted = start is not None or key_padding_mask is not None
            self._check_reach(place if counted else None, max(lengths or [length]))
            x = x + self.position(place)
        x = self.dropout(x)
        states = []
        for layer, block in enumerate(self.blocks):
            before = None if state is None else state[layer]
            arguments = (x, before, final, key_padding_mask, cu_seqlens)
            if self.config.gradient_checkpointing and torch.is_grad_enabled() and not transformed():
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
        if tokens.is_cuda or not tokens.numel() or not readable(tokens):
            return  # reading them would synchronise with the device
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
        """Raise ValueError for positions that are not learned; without a state they start at 0."""
        if place is not None and not readable(place):
            return
        if place is not None and place.numel():
            reach = int(place.max()) + 1
        if reach > self.config.context_len:
            raise SlayError(
                f"{reach} tokens are more than context_len = {self.config.context_len} learned "
                "positions; give a larger one, or positions='rotary'"
            )

    def _check_generation(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        stop: int | None,
        padding: Tensor | None,
    ) -> Tensor:
        """Check the arguments; returns the index of each prompt's last token: (B,)."""
        self._check_tokens(tokens)
        if not tokens.numel():
            raise SlayError(
                f"tokens have shape {tuple(tokens.shape)}; there is nothing to continue"
            )
        check_padding(padding, *tokens.shape)
        whole("max_new_tokens", max_new_tokens, 0)
        if stop is not None and not 0 <= stop < self.config.vocab_size:
            raise SlayError(
                f"stop = {stop}: must be a token, 0 to {self.config.vocab_size - 1}, or None"
            )
        longest = tokens.shape[1]
        last = torch.full(tokens.shape[:1], longest - 1, device=tokens.device)
        if padding is not None:
            lengths = (~padding).sum(1)
            if not lengths.all():
                raise SlayError("key_padding_mask leaves nothing to continue of some prompts")
            longest = int(lengths.max())
            last = last - padding.flip(1).byte().argmin(1)
        if self.position is not None:
            self._check_reach(None, longest + max(0, max_new_tokens - 1))
        return last


def draw(module: nn.Module | None, std: float) -> None:
    """Draw weights from N(0, std^2) and zero the bias; Yat neurons keep their own."""
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
    """Draw from p = softmax(logits / temperature): (B, V) -> (B,); greedy at temperature 0.

    `top_k` keeps the k likeliest tokens; `top_p` the smallest set of likeliest tokens whose p sums
    to at least that (Holtzman et al. 2020).
    """
    check_sampling(temperature, top_k, top_p)
    if logits.ndim != 2:
        raise SlayError(f"logits have shape {tuple(logits.shape)}; expected (B, V)")
    if logits.isnan().any() or (logits == -math.inf).all(-1).any():
        raise SlayError(
            "logits are NaN or all -inf: there is no likeliest token; the model's weights or its "
            "input are no numbers"
        )
    if temperature == 0:
        return logits.argmax(-1)
    logits, token = logits.float().sort(dim=-1, descending=True)  # (B, V)
    best = logits[:, :1]
    # The largest logit is 0 at any temperature: greedy in the limit.
    logits = torch.where(logits < best, (logits - best) / temperature, 0.0)
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
        whole("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise SlayError(f"top_p = {top_p}: must be above 0 and at most 1")


def _tie(model: nn.Module, *_: Any) -> None:
    """Tie the head's weight to the embedding's if the configuration says so."""
    assert isinstance(model, GPT)
    head, token = model.head._parameters, model.token._parameters
    if model.config.tie_head and "weight" in head and "weight" in token:
        head["weight"] = token["weight"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Context manager for evaluation mode; restores every module's mode on exit."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def save(model: GPT, folder: Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write model.safetensors and config.json to a folder; `weights` replace the model's own."""
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
    """Load a model written by `save` or `slay export`; nothing in the files is executed.

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
