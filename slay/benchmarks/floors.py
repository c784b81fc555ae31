"""Floors of a call's time: a copy of as many bytes, a matrix product of as many operations."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from slay.attention.layer import Attention
from slay.benchmarks.timing import Call

SIDE, ROWS = 4096, 65_536  # of the largest product; more work repeats it


class Work(NamedTuple):
    bytes: int
    operations: int


def operations_of(mechanism: Attention, mode: str, heads: int, length: int) -> int:
    """Operations of the matrix products in a pass over `heads` sequences of tokens."""
    return heads * mechanism.operations(length, backward=mode != "forward")


def copy_of(work: Work, device: torch.device) -> Call:
    """Copy that reads and writes `work.bytes` in total."""
    source = torch.empty(max(1, work.bytes // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def product_of(work: Work, dtype: torch.dtype, device: torch.device) -> Call:
    """Matrix product of `work.operations`, rounded up to whole rows; repeated if it is large."""
    side = min(SIDE, max(64, round((work.operations / 2) ** (1 / 3)) // 64 * 64))
    rows = math.ceil(work.operations / (2 * side * side))
    times = math.ceil(rows / ROWS)
    rows = math.ceil(rows / times)
    a = torch.randn(rows, side, dtype=dtype, device=device)
    b = torch.randn(side, side, dtype=dtype, device=device)
    c = torch.empty(rows, side, dtype=dtype, device=device)

    def call() -> None:
        for _ in range(times):
            torch.mm(a, b, out=c)

    return call
