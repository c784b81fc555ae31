"""Base class of tasks: pure functions from a random generator to inputs and targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from slay.errors import SlayError

IGNORE = -100  # target at positions that are not scored


class Task(ABC):
    """A synthetic task for causal models.

    The answer asked at a position follows from the tokens up to and including it.
    """

    name: ClassVar[str]
    category: ClassVar[str]
    attention_critical: ClassVar[bool] = False
    minimum: ClassVar[int]  # the shortest sequence
    multiple: ClassVar[int] = 1  # lengths are multiples of this
    ceiling: ClassVar[float] = 1.0  # the best attainable accuracy

    @abstractmethod
    def vocabulary(self, seq_len: int) -> list[str]:
        """The names of all tokens, inputs and answers together; a token is an index into them."""

    @abstractmethod
    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        """`sample` for a length that is known to be allowed."""

    @abstractmethod
    def oracle(self, prefix: Sequence[int], position: int) -> int:
        """The answer asked at `position`, from prefix[0], ..., prefix[position] alone."""

    def sample(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        """Draw inputs and targets: (batch, seq_len), int64, targets -100 where not scored.

        Raises `SlayError` for a length that the task does not allow.
        """
        if not self.allows(seq_len):
            raise SlayError(
                f"task {self.name!r} takes no seq_len = {seq_len}; allowed: {self.lengths}"
            )
        return self.draw(generator, batch, seq_len)

    def vocab_size(self, seq_len: int) -> int:
        """Number of different tokens."""
        return len(self.vocabulary(seq_len))

    def allows(self, seq_len: int) -> bool:
        """Return True if the task supports this sequence length."""
        return seq_len >= self.minimum and seq_len % self.multiple == 0

    @property
    def lengths(self) -> str:
        """Supported sequence lengths, in words."""
        kind = {1: "any number", 2: "even numbers"}.get(
            self.multiple, f"multiples of {self.multiple}"
        )
        return f"{kind} from {self.minimum}"


def symbols(count: int, prefix: str = "") -> list[str]:
    """Names of `count` tokens: letters where they suffice, else the prefix and a number."""
    if not prefix and count <= 26:
        return [chr(ord("a") + i) for i in range(count)]
    return [f"{prefix or 'x'}{i}" for i in range(count)]


def distinct(generator: torch.Generator, batch: int, count: int, among: int) -> Tensor:
    """`count` different numbers below `among` per row, in random order: (batch, count)."""
    return torch.rand(batch, among, generator=generator).argsort(dim=-1)[:, :count]


def places(generator: torch.Generator, batch: int, count: int, among: int) -> Tensor:
    """`count` different numbers below `among` per row, in ascending order: (batch, count)."""
    return distinct(generator, batch, count, among).sort(dim=-1).values


def integers(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Uniform random integers in [low, high)."""
    return torch.randint(low, high, shape, generator=generator)


def column(batch: int, token: int) -> Tensor:
    """The same token in every row: (batch, 1)."""
    return torch.full((batch, 1), token)


def nothing_asked(inputs: Tensor) -> Tensor:
    """Targets of -100, shaped like the inputs."""
    return torch.full_like(inputs, IGNORE)


def then(context: Tensor, separator: int, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets of: context, separator, answer, each answer given those before it.

    context: (B, n); answer: (B, k). Returns (B, n + k) twice, the answer asked from the separator
    on.
    """
    inputs = torch.cat((context, column(len(context), separator), answer[:, :-1]), dim=1)
    targets = nothing_asked(inputs)
    targets[:, context.shape[1] :] = answer
    return inputs, targets


def ask(context: Tensor, questions: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets of: context, then questions, each answered at its own position."""
    inputs = torch.cat((context, questions), dim=1)
    targets = nothing_asked(inputs)
    targets[:, context.shape[1] :] = answers
    return inputs, targets
