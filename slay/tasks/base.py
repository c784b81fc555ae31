"""What a task is: a pure function from a generator to questions whose answers lie in the past."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from slay.errors import SlayError

IGNORE = -100  # the target where nothing is asked


class Task(ABC):
    """A synthetic task for causal models.

    The answer asked at a position follows from the tokens up to and including it.
    """

    name: ClassVar[str]
    category: ClassVar[str]
    attention_critical: ClassVar[bool]
    lengths: ClassVar[str]  # which sequence lengths the task allows, in words

    @abstractmethod
    def allows(self, seq_len: int) -> bool:
        """Whether the task exists at this sequence length."""

    @abstractmethod
    def vocab_size(self, seq_len: int) -> int:
        """Number of different tokens, inputs and answers together."""

    @abstractmethod
    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        """`sample` for a length that is known to be allowed."""

    @abstractmethod
    def oracle(self, prefix: Sequence[int], position: int) -> int:
        """The answer asked at `position`, from prefix[0], ..., prefix[position] alone."""

    def sample(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        """Draw inputs and targets: (batch, seq_len), int64, targets -100 where nothing is asked.

        Raises `SlayError` for a length that the task does not allow.
        """
        if not self.allows(seq_len):
            raise SlayError(
                f"task {self.name!r} takes no seq_len = {seq_len}; allowed: {self.lengths}"
            )
        return self.draw(generator, batch, seq_len)


def distinct(generator: torch.Generator, batch: int, count: int, among: int) -> Tensor:
    """`count` different numbers below `among` in random order a row: (batch, count)."""
    return torch.rand(batch, among, generator=generator).argsort(dim=-1)[:, :count]


def nothing_asked(inputs: Tensor) -> Tensor:
    """Targets that ask nothing yet, shaped like the inputs."""
    return torch.full_like(inputs, IGNORE)
