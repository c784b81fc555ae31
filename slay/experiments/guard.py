"""The end of memory, whichever way it comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SAID = ("out of memory", "not enough memory", "allocate memory")  # by GPUs, Windows and Linux


class OutOfMemory(Exception):
    """A call wanted more memory than there is."""


@contextmanager
def memory_guard() -> Iterator[None]:
    """Turn the several ways in which memory runs out into `OutOfMemory`, one line."""
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
