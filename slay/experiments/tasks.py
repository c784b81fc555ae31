"""Train a small attention-only model on a synthetic task; score it on separate test data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slay.attention.layer import accepted
from slay.experiments.result import Progress, Result, choose_device, stream
from slay.models.attention_only import AttentionOnly
from slay.pipeline.params import TaskParams
from slay.pipeline.record import Number
from slay.registry import get_attention_class
from slay.tasks import get_task
from slay.tasks.base import IGNORE
from slay.tasks.nulls import null_accuracies
from slay.training.loop import Batch, Outcome, accuracy, train

ANSWERS = 4096  # scored in a test, at least this many


@dataclass(frozen=True)
class Attempt:
    """A model trained at one learning rate."""

    lr: float
    model: AttentionOnly
    outcome: Outcome

    @property
    def merit(self) -> tuple[bool, float, int]:
        """Selection key: not diverged, then higher validation accuracy, then fewer steps."""
        curve = self.outcome.curve
        reached = curve[-1]["accuracy"] if curve else None
        return not self.outcome.diverged, float(reached or 0.0), -self.outcome.steps


def run(params: TaskParams, progress: Progress) -> Result:
    """Metrics: test accuracy, the best null, the ceiling, learning rate, steps, answers scored.

    Training, validation and test data come from three independent streams, the same for every
    mechanism at a seed. In a sweep, every learning rate starts from the same weights and sees the
    same data; the best validation accuracy is chosen and scored once on the test data.
    """
    device = choose_device(params.device)
    task = get_task(params.task)
    length = params.seq_len

    def draw(generator: torch.Generator, batch: int) -> Batch:
        inputs, targets = task.sample(generator, batch, length)
        return inputs.to(device), targets.to(device)

    asked = int((task.sample(stream(0, "count"), 1, length)[1] != IGNORE).sum())
    validation = draw(stream(params.seed, "validation"), -(-1024 // asked))
    test = draw(stream(params.seed, "test"), -(-ANSWERS // asked))

    def attempt(lr: float) -> Attempt:
        if params.sweep > 1:
            progress(f"learning rate {lr:.2g}")
        model = _model(params, task.vocab_size(length)).to(device)
        train_stream = stream(params.seed, "train")
        outcome = train(
            model,
            lambda: draw(train_stream, params.batch_size),
            validation,
            steps=params.steps,
            lr=lr,
            warmup=params.warmup,
            progress=progress,
        )
        return Attempt(lr, model, outcome)

    best = max(map(attempt, learning_rates(params.lr, params.sweep)), key=lambda a: a.merit)
    outcome = best.outcome
    nulls = null_accuracies(task, length, seed=params.seed)
    metrics: dict[str, Number] = {
        "null": max(nulls.values()),
        **{f"null_{name}": value for name, value in nulls.items()},
        "ceiling": 1.0,
        "lr": best.lr,
        "steps": outcome.steps,
        "answers": int((test[1] != IGNORE).sum()),
        "parameters": sum(p.numel() for p in best.model.parameters()),
    }
    if outcome.diverged:
        message = f"loss or gradient not finite at step {outcome.steps}"
        return Result(metrics | {"accuracy": None}, outcome.curve, "diverged", message)
    return Result(metrics | {"accuracy": accuracy(best.model, *test)}, outcome.curve)


def learning_rates(lr: float, number: int) -> list[float]:
    """`number` rates around `lr`, each three times the one before: lr alone, lr/3 to 3 lr, ..."""
    return [lr * 3.0 ** (i - (number - 1) / 2) for i in range(number)]


def _model(params: TaskParams, vocab_size: int) -> AttentionOnly:
    """The untrained model, with the same initial weights at every call."""
    torch.manual_seed(params.seed)
    shared = accepted(get_attention_class(params.attention), {"epsilon": params.epsilon})
    return AttentionOnly(
        vocab_size,
        params.seq_len,
        attention=params.attention,
        embed_dim=params.embed_dim,
        n_heads=params.n_heads,
        n_layers=params.n_layers,
        seed=params.seed,
        **{**shared, **params.options},
    )
