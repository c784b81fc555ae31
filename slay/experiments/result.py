"""What an experiment gives back, and how randomness and devices are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from slay.errors import SlayError
from slay.record import Status

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The measured part of a record."""

    metrics: dict[str, float | int | None]
    curve: list[dict[str, float | int | None]] = field(default_factory=list)
    status: Status = "ok"
    message: str = ""


def stream(seed: int, name: str) -> torch.Generator:
    """A random stream of its own for every purpose: streams of different names are unrelated."""
    digest = hashlib.sha256(f"{name}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises `SlayError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SlayError("device 'cuda': torch sees no GPU here; use device 'cpu' or 'auto'")
    return torch.device(name)
