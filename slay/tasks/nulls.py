"""Null predictors: the accuracy attainable without looking at the context."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slay.tasks.base import IGNORE, Task

Ints = NDArray[np.int64]


def null_accuracies(task: Task, seq_len: int, seed: int, batch: int = 2048) -> dict[str, float]:
    """Accuracy of the best constant and of the best look-up by position, own token, and both.

    Each is fitted on one sample and scored on another.
    """
    generator = torch.Generator().manual_seed(seed)
    fit, score = (_asked(*task.sample(generator, batch, seq_len)) for _ in range(2))
    accuracies = {}
    for name in ("constant", "position", "token", "position_token"):
        guesses = _lookup(fit[name], fit["target"], score[name])
        accuracies[name] = float((guesses == score["target"]).mean())
    return accuracies


def _asked(inputs: Tensor, targets: Tensor) -> dict[str, Ints]:
    """Scored positions as flat arrays: the key of each null predictor, and the target."""
    asked = targets != IGNORE
    position = torch.arange(inputs.shape[1]).expand_as(inputs)[asked]
    token = inputs[asked]
    return {
        "constant": torch.zeros_like(token).numpy(),
        "position": position.numpy(),
        "token": token.numpy(),
        "position_token": (position * (int(inputs.max()) + 1) + token).numpy(),
        "target": targets[asked].numpy(),
    }


def _lookup(key: Ints, target: Ints, asked: Ints) -> Ints:
    """Predict the most frequent target of each key; for unseen keys, of all."""
    pairs, counts = np.unique(np.stack((key, target)), axis=1, return_counts=True)
    order = np.argsort(counts, kind="stable")  # a later, more frequent pair overwrites
    best = dict(zip(pairs[0, order].tolist(), pairs[1, order].tolist(), strict=True))
    fallback = int(np.bincount(target).argmax())
    return np.array([best.get(k, fallback) for k in asked.tolist()])
