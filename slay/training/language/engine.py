"""Training backends with a common interface: a single process, or DeepSpeed over several."""

from __future__ import annotations

import json
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slay.errors import SlayError
from slay.models.gpt import GPT, load, save
from slay.training.language.config import OptimConfig, TrainConfig

BETAS = (0.9, 0.95)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """Model, optimiser and processes of a training."""

    kind: str
    rank: int
    world: int
    device: torch.device
    model: GPT

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats over the targets; tokens, targets: (B, L)."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate a piece's gradient; that of the step is the mean over its pieces."""

    def step(self, lr: float) -> float:
        """Update the weights; return the norm of the gradient before clipping."""

    def mean(self, value: float) -> float:
        """Mean of a number over the processes."""

    def save(self, folder: Path) -> None:
        """Write model and optimiser; called by every process."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""

    def barrier(self) -> None:
        """Wait for all processes."""


class WithLoss(nn.Module):
    """A model whose output is its loss, which DeepSpeed can wrap."""

    def __init__(self, model: GPT):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.model.loss(tokens, targets)


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: weight decay for matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class SingleProcess:
    """A single process: autocast, and loss scaling for fp16."""

    kind, rank, world = "plain", 0, 1

    def __init__(self, model: GPT, config: TrainConfig, device: torch.device):
        self.config, self.device = config, device
        self.model = model.to(device)
        self.wrapped: Any = WithLoss(self.model)
        if config.run.compile:
            self.wrapped = torch.compile(self.wrapped)
        parts = groups(self.model, config.optim.weight_decay)
        self.optimiser = torch.optim.AdamW(parts, betas=BETAS, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.optim.precision == "fp16")

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        half = self.config.optim.precision != "fp32"
        dtype = DTYPES[self.config.optim.precision]
        with torch.autocast(self.device.type, dtype=dtype) if half else nullcontext():
            return self.wrapped(tokens, targets)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss / self.config.optim.gradient_accumulation_steps).backward()

    def step(self, lr: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return norm.item()

    def mean(self, value: float) -> float:
        return value

    def save(self, folder: Path) -> None:
        save(self.model, folder)
        state = {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}
        torch.save(state, folder / "optimiser.pt")

    def load(self, folder: Path) -> None:
        self.model.load_state_dict(load(folder).state_dict())
        state = torch.load(folder / "optimiser.pt", weights_only=True, map_location=self.device)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])

    def barrier(self) -> None:
        pass


class DeepSpeed:
    """Data-parallel processes with ZeRO, started by the launcher `deepspeed`."""

    kind = "DeepSpeed"

    def __init__(self, model: GPT, config: TrainConfig, device: torch.device):
        import deepspeed

        self.config, self.model = config, model
        parts = groups(model, config.optim.weight_decay)
        self.rank, self.world = processes()
        self.engine, self.optimiser, _, _ = deepspeed.initialize(
            model=WithLoss(model),
            optimizer=torch.optim.AdamW(parts, lr=config.optim.lr, betas=BETAS),
            config=deepspeed_config(config.optim, self.world),
        )
        self.device = self.engine.device
        self.norm = math.nan

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.engine(tokens, targets)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        own = self.engine.zero_optimization() or self.config.optim.precision != "fp32"
        if not own and self.engine.is_gradient_accumulation_boundary():
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            self.norm = nn.utils.get_total_norm(grads).item()  # DeepSpeed does not keep it
        self.engine.step()  # does nothing before the step's last piece

    def step(self, lr: float) -> float:
        norm = self.engine.get_global_grad_norm()
        return self.norm if norm is None else float(norm)

    def set_rate(self, lr: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = lr

    def mean(self, value: float) -> float:
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.item() / self.world

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder / "deepspeed"), tag="state")
        if self.engine.zero_optimization_partition_weights():  # ZeRO-3: every process has a part
            weights = self.engine._zero3_consolidated_16bit_state_dict()
        else:
            weights = self.engine.module.state_dict()
        if self.rank == 0:
            save(
                self.model,
                folder,
                weights={k.removeprefix("model."): v for k, v in weights.items()},
            )

    def load(self, folder: Path) -> None:
        path, _ = self.engine.load_checkpoint(str(folder / "deepspeed"), tag="state")
        if path is None:
            raise SlayError(f"{folder}: DeepSpeed cannot read it")

    def barrier(self) -> None:
        torch.distributed.barrier()


def deepspeed_config(optim: OptimConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration: that of the file, overridden by the optimisation's."""
    config: dict[str, Any] = {"zero_optimization": {"stage": 2}}
    if optim.deepspeed_config:
        try:
            config |= json.loads(Path(optim.deepspeed_config).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError) as error:
            raise SlayError(f"deepspeed_config {optim.deepspeed_config!r}: {error}") from error
    pieces = optim.gradient_accumulation_steps
    config |= {
        "train_micro_batch_size_per_gpu": optim.batch_size // (world * pieces),
        "gradient_accumulation_steps": pieces,
        "gradient_clipping": optim.clip,
        "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    for name in ("bf16", "fp16"):
        config[name] = {**config.get(name, {}), "enabled": optim.precision == name}
    if optim.zero_stage is not None:
        config["zero_optimization"] = {
            **config.get("zero_optimization", {}),
            "stage": optim.zero_stage,
        }
    return config


def processes() -> tuple[int, int]:
    """(rank, world size) as set by a launcher; (0, 1) without one."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
