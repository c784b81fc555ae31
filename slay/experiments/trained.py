"""Queries, keys and values of a small model that the job trains."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.errors import SlayError
from slay.experiments.inputs import Inputs
from slay.experiments.result import Progress, choose_device, stream
from slay.models.attention_only import AttentionOnly
from slay.pipeline.params import QualityParams
from slay.tasks import get_task
from slay.tasks.base import IGNORE
from slay.training.loop import Batch, train

TARGET = "yat-spherical"
TASK = "induction"  # its answer positions differ between sequences
STEPS, BATCH, SEQUENCES = 25, 32, 8  # STEPS: most steps, per token of the length
LEARNT = 0.5  # least accuracy on new sequences


def trained(params: QualityParams, progress: Progress) -> Inputs:
    """q, k, v of the last layer on new sequences: (8, H, L, d) each.

    The model has two layers of exact spherical Yat attention and learns induction. Raises
    `SlayError` if its accuracy is below one half: its queries would be meaningless.
    """
    device = choose_device(params.device)
    task = get_task(TASK)
    length = params.seq_len

    def draw(generator: torch.Generator, batch: int) -> Batch:
        inputs, targets = task.sample(generator, batch, length)
        return inputs.to(device), targets.to(device)

    train_stream = stream(params.seed, "train")
    torch.manual_seed(params.seed)
    model = AttentionOnly(
        task.vocab_size(length),
        length,
        attention=TARGET,
        embed_dim=params.n_heads * params.head_dim,
        n_heads=params.n_heads,
        epsilon=params.epsilon,
        seed=params.seed,
    ).to(device)
    asked = int((task.sample(stream(0, "count"), 1, length)[1] != IGNORE).sum())
    validation = draw(stream(params.seed, "validation"), -(-1024 // asked))
    outcome = train(
        model,
        lambda: draw(train_stream, BATCH),
        validation,
        steps=STEPS * length,
        lr=3e-3,
        warmup=50,
        progress=progress,
    )
    reached = 0.0 if outcome.diverged else outcome.curve[-1]["accuracy"] or 0.0
    if reached < LEARNT:
        raise SlayError(
            f"inputs = trained: the model reached an accuracy of {reached:.2f} on {TASK} at "
            f"seq_len = {length}, {LEARNT} is asked; use a shorter seq_len or a larger head_dim"
        )
    tokens, _ = draw(stream(params.seed, "test"), SEQUENCES)
    with torch.no_grad():
        *before, last = model.layers
        h: Tensor = model.embed(tokens)
        for layer in before:
            h = h + layer(h)
        return cast(Attention, last).project(h)
