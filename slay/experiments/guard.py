"""Convert out-of-memory errors to `OutOfMemory`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SAID = ("out of memory", "not enough memory", "allocate memory")  # of GPUs, Windows and Linux


class OutOfMemory(Exception):
    """A call needed more memory than is available."""


@contextmanager
def memory_guard() -> Iterator[None]:
    """Convert every kind of out-of-memory error to `OutOfMemory`, with a one-line message."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        line = str(error).partition("\n")[0] or "out of memory"
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words in line for words in SAID):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemory(line) from error
