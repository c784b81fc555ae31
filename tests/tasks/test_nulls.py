"""Null predictors find what needs no context, and nothing else."""

from __future__ import annotations

import pytest
import torch

from slay.tasks.base import IGNORE
from slay.tasks.nulls import null_accuracies

RULES = {
    "constant": lambda token, position: torch.full_like(token, 3),
    "position": lambda token, position: position,
    "token": lambda token, position: (token + 1) % 8,
    "position_token": lambda token, position: (token + position) % 8,
    "chance": lambda token, position: torch.randint_like(token, 8),
}
SOLVED_BY = {
    "constant": {"constant", "position", "token", "position_token"},
    "position": {"position", "position_token"},
    "token": {"token", "position_token"},
    "position_token": {"position_token"},
    "chance": set(),
}


class Rule:
    """Targets are a function of the token and its position; the first position asks nothing."""

    def __init__(self, rule):
        self.rule = rule

    def sample(self, generator, batch, seq_len):
        inputs = torch.randint(8, (batch, seq_len), generator=generator)
        targets = self.rule(inputs, torch.arange(seq_len).expand_as(inputs)).clone()
        targets[:, 0] = IGNORE
        return inputs, targets


@pytest.mark.parametrize("rule", RULES)
def test_nulls_solve_exactly_what_they_may_know(rule):
    torch.manual_seed(1)  # chance is unrelated to the inputs
    found = null_accuracies(Rule(RULES[rule]), 8, seed=0, batch=512)
    assert {name for name, value in found.items() if value == 1.0} == SOLVED_BY[rule]
    assert all(value < 0.3 for name, value in found.items() if name not in SOLVED_BY[rule])
