"""Shared by all experiments: results, random streams, devices, mechanisms over heads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from slay.attention.layer import Attention, accepted
from slay.errors import SlayError
from slay.pipeline.record import Number, Status
from slay.registry import get_attention_class

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The measured part of a record."""

    metrics: dict[str, Number]
    curve: list[dict[str, Number]] = field(default_factory=list)
    status: Status = "ok"
    message: str = ""


def stream(seed: int, name: str) -> torch.Generator:
    """Random generator for one purpose; generators of different names are independent."""
    digest = hashlib.sha256(f"{name}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises `SlayError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SlayError("device 'cuda': torch sees no GPU here; use device 'cpu' or 'auto'")
    return torch.device(name)


def heads_only(
    attention: str, head_dim: int, n_heads: int, shared: dict[str, Any], asked: dict[str, Any]
) -> Attention:
    """Mechanism over heads, with the `shared` options that it accepts and all `asked` options."""
    cls = get_attention_class(attention)
    return cls.heads_only(head_dim, n_heads, **{**accepted(cls, shared), **asked})
