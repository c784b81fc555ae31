"""The loop learns what can be learnt, stops when it is done, and notices when it diverges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slay.tasks.base import IGNORE
from slay.training.loop import accuracy, learning_rate, train

SETTINGS = {"steps": 300, "lr": 0.05, "warmup": 5, "evaluate_every": 10}


@given(warmup=st.integers(1, 50), rest=st.integers(1, 500))
def test_learning_rate_rises_to_one_and_falls_to_zero(warmup, rest):
    shares = [learning_rate(step, warmup, warmup + rest) for step in range(warmup + rest + 1)]
    assert shares[0] == 1.0 / warmup
    assert max(shares) == shares[warmup] == 1.0
    assert shares[:warmup] == sorted(shares[:warmup])
    assert shares[warmup:] == sorted(shares[warmup:], reverse=True)
    assert shares[-1] == pytest.approx(0.0, abs=1e-12)


def identity(seed=0):
    """The answer is the token itself; every other position asks nothing."""
    draw = torch.Generator().manual_seed(seed)

    def batch():
        inputs = torch.randint(8, (16, 6), generator=draw)
        targets = inputs.clone()
        targets[:, ::2] = IGNORE
        return inputs, targets

    return batch


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 8))


def test_it_solves_a_trivial_task_and_stops_early():
    model, validation = tiny(), identity(1)()
    assert accuracy(model, *validation) < 0.5
    outcome = train(model, identity(), validation, **SETTINGS)
    assert not outcome.diverged
    assert outcome.steps < SETTINGS["steps"]
    assert [point["accuracy"] for point in outcome.curve[-2:]] == [1.0, 1.0]
    assert outcome.curve[-1]["step"] == outcome.steps
    assert accuracy(model, *identity(2)()) == 1.0


def test_what_cannot_be_learnt_takes_all_steps():
    def noise():
        return torch.randint(8, (4, 6)), torch.randint(8, (4, 6))

    outcome = train(tiny(), noise, noise(), steps=25, lr=0.01, warmup=5, evaluate_every=10)
    assert not outcome.diverged
    assert [point["step"] for point in outcome.curve] == [10, 20, 25]


def test_a_huge_learning_rate_diverges():
    outcome = train(tiny(), identity(), identity(1)(), **(SETTINGS | {"lr": 1e30}))
    assert outcome.diverged
    assert 1 < outcome.steps < SETTINGS["steps"]


def test_a_model_that_gives_no_number_diverges_at_once():
    model = tiny()
    nn.init.constant_(model[1].bias, float("nan"))
    outcome = train(model, identity(), identity(1)(), **SETTINGS)
    assert (outcome.diverged, outcome.steps, outcome.curve) == (True, 1, [])


def test_accuracy_counts_asked_positions_alone_in_any_batching():
    inputs = torch.arange(8).repeat(5, 1)
    model = nn.Embedding.from_pretrained(torch.eye(8))  # answers with the token
    targets = torch.where(inputs < 4, inputs, 0).index_fill(1, torch.tensor([0, 7]), IGNORE)
    assert accuracy(model, inputs, targets) == 0.5
    assert accuracy(model, inputs, targets, batch=2) == 0.5
