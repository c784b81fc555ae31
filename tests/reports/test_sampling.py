"""Sampling at the edges: temperatures next to zero, logits that are no numbers."""

from __future__ import annotations

import math

import pytest
import torch

from slay.errors import SlayError
from slay.models.gpt import sample


@pytest.mark.parametrize("temperature", [1e-46, 5e-324, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_temperature_next_to_zero_is_greedy(temperature, dtype):
    """multinomial: probability tensor contains either inf, nan or element < 0."""
    logits = torch.tensor([[0.0, 3.0, 1.0], [-math.inf, 2.0, -1.0]], dtype=dtype)
    for more in ({}, {"top_k": 2}, {"top_p": 0.9}):
        assert sample(logits, temperature, **more).tolist() == [1, 1]
    assert sample(torch.tensor([[0.0, math.inf]]), 1.0).tolist() == [1]


@pytest.mark.parametrize("temperature", [0.0, 1e-46, 1.0])
def test_logits_that_are_no_numbers_are_one_line(temperature):
    """A model that diverged gives PyTorch's error, or a token all the same."""
    for bad in ([1.0, math.nan], [-math.inf, -math.inf]):
        with pytest.raises(SlayError, match="NaN or all -inf") as caught:
            sample(torch.tensor([[0.0, 1.0], bad]), temperature)
        assert "\n" not in str(caught.value)
