"""Train a small attention-only model on a synthetic task; score it on data of its own stream."""

from __future__ import annotations

import torch

from slay.attention.layer import accepted
from slay.experiments.result import Progress, Result, choose_device, stream
from slay.models.attention_only import AttentionOnly
from slay.params import TaskParams
from slay.record import Number
from slay.registry import get_attention_class
from slay.tasks import get_task
from slay.tasks.base import IGNORE
from slay.tasks.nulls import null_accuracies
from slay.training.loop import accuracy, train

ANSWERS = 4096  # scored in a test, at least


def run(params: TaskParams, progress: Progress) -> Result:
    """Metrics: test accuracy, the best null, the ceiling, steps taken, answers scored.

    Training, validation and test data come from three unrelated streams, the same for every
    mechanism at a seed.
    """
    device = choose_device(params.device)
    task = get_task(params.task)
    length = params.seq_len
    train_stream = stream(params.seed, "train")

    def draw(
        generator: torch.Generator = train_stream, batch: int = params.batch_size
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = task.sample(generator, batch, length)
        return inputs.to(device), targets.to(device)

    asked = int((task.sample(stream(0, "count"), 1, length)[1] != IGNORE).sum())
    validation = draw(stream(params.seed, "validation"), -(-1024 // asked))
    test = draw(stream(params.seed, "test"), -(-ANSWERS // asked))

    torch.manual_seed(params.seed)
    shared = accepted(get_attention_class(params.attention), {"epsilon": params.epsilon})
    model = AttentionOnly(
        task.vocab_size(length),
        length,
        attention=params.attention,
        embed_dim=params.embed_dim,
        n_heads=params.n_heads,
        n_layers=params.n_layers,
        seed=params.seed,
        **{**shared, **params.options},
    ).to(device)
    outcome = train(
        model,
        draw,
        validation,
        steps=params.steps,
        lr=params.lr,
        warmup=params.warmup,
        progress=progress,
    )
    nulls = null_accuracies(task, length, seed=params.seed)
    metrics: dict[str, Number] = {
        "null": max(nulls.values()),
        **{f"null_{name}": value for name, value in nulls.items()},
        "ceiling": 1.0,
        "steps": outcome.steps,
        "answers": int((test[1] != IGNORE).sum()),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if outcome.diverged:
        message = f"loss or gradient not finite at step {outcome.steps}"
        return Result(metrics | {"accuracy": None}, outcome.curve, "diverged", message)
    return Result(metrics | {"accuracy": accuracy(model, *test)}, outcome.curve)
