"""The optimiser is PyTorch's."""

from __future__ import annotations

import subprocess
import sys

import torch

from slay.training.adamw import AdamW


def test_same_steps_as_torch():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    optimiser = AdamW([ours], weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(4, 3)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimiser.step(lr=0.05)
        reference.step()
    torch.testing.assert_close(ours, theirs)
    assert ours.grad is None


def test_the_compiler_stays_unloaded():
    program = """
import sys, torch
from slay.training.adamw import AdamW
p = torch.nn.Parameter(torch.ones(3))
p.sum().backward()
AdamW([p]).step(lr=0.1)
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
