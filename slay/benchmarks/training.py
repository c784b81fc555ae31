"""The training step of a GPT that is timed: forward, backward and AdamW."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from slay.attention.layer import accepted
from slay.benchmarks.settings import MODEL_HEAD_DIM, MODEL_HEADS, ModelParams
from slay.errors import SlayError
from slay.experiments.result import stream
from slay.models.gpt import GPT, Block, GPTConfig
from slay.registry import get_attention_class

PIECE = 16_384  # tokens whose logits are held at once
LEARNING_RATE = 3e-4
STD = 0.02
DRAWS = ("normal_", "uniform_", "kaiming_uniform_")


class TrainingStep:
    """Callable training step of GPT-2 small on random tokens, with any of its mechanisms.

    Attention is computed by `params.backend`, or PyTorch's flash kernel. With more than `PIECE`
    tokens, logits are computed piece by piece, and recomputed in the backward pass.
    """

    def __init__(self, params: ModelParams, device: torch.device):
        self.params, self.device = params, device
        model = _model(params, device)
        assert model.position is not None
        self.n_parameters = model.num_parameters - model.position.weight.numel()
        self.head = model.head
        model.add_module("head", nn.Identity())  # the model returns the head's input
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
        shape = (params.batch_size, params.seq_len + 1)
        drawn = torch.randint(params.vocab_size, shape, generator=stream(0, "training step"))
        self.tokens, self.targets = drawn[:, :-1].to(device), drawn[:, 1:].to(device)

    def __call__(self) -> Tensor:
        """Take one step; return the loss before it."""
        precision = getattr(torch, self.params.dtype)
        autocast = torch.autocast(
            self.device.type, dtype=precision, enabled=precision != torch.float32
        )
        flash = self.params.backend == "flash"
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if flash else nullcontext(), autocast:
            loss = self._loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def check(self) -> None:
        """Raise `SlayError` if the last step's attention was not computed as asked."""
        block = self.model.blocks[0]
        assert isinstance(block, Block)
        used = block.attention.backend_used
        if self.params.backend == "triton" and used != "triton":
            raise SlayError(f"the model's {self.params.attention} was computed by {used}")

    def _loss(self) -> Tensor:
        """Mean cross-entropy of the next tokens."""
        h = self.model(self.tokens).flatten(0, 1)  # (B L, E)
        targets = self.targets.flatten()
        if len(h) <= PIECE:
            return self._sum(h, targets) / len(h)
        pieces = zip(h.split(PIECE), targets.split(PIECE), strict=True)
        sums = [checkpoint(self._sum, *piece, use_reentrant=False) for piece in pieces]
        return torch.stack(sums).sum() / len(h)

    def _sum(self, h: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropies of some tokens: h: (n, E), targets: (n,)."""
        return F.cross_entropy(self.head(h).float(), targets, reduction="sum")


class _Undrawn(TorchFunctionMode):
    """Skip random initialisation of parameters, which takes seconds per model on a CPU."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if function.__name__ in DRAWS and isinstance(target, nn.Parameter):
            return target
        return function(*args, **kwargs)


def _model(params: ModelParams, device: torch.device) -> GPT:
    """A model whose matrices are initialised on the device, all from one distribution."""
    with _Undrawn():
        model = GPT(_config(params)).to(device)
    draw = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=STD, generator=draw)
    return model


def _config(params: ModelParams) -> GPTConfig:
    cls = get_attention_class(params.attention)
    backend = params.backend if params.backend in ("triton", "torch") else "torch"
    asked = {"epsilon": params.epsilon, "backend": backend, **params.options}
    return GPTConfig(
        vocab_size=params.vocab_size,
        context_len=params.seq_len,
        n_layers=params.n_layers,
        n_heads=MODEL_HEADS,
        embed_dim=MODEL_HEADS * MODEL_HEAD_DIM,
        attention=params.attention,
        options=accepted(cls, asked),
    )
