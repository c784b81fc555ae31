"""Built-in corpus: sources of the running Python's standard library, as bytes."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from slay.training.language.tokens import Tokens, pack

Split = Literal["train", "validation", "test"]
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idlelib", "lib2to3"}
VOCAB = 257  # every byte, and the end token


@cache
def stdlib(split: Split) -> Tokens:
    """One split of the files: a hash of a file's name assigns it to one of twenty parts.

    Part 0 is for testing, part 1 for validation. The facts hold a hash of the contents, which
    differ between Python versions.
    """
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in _sources(root):
        if _split(path.relative_to(root).as_posix()) == split:
            documents.append(np.frombuffer(path.read_bytes(), dtype=np.uint8))
    return pack(
        [document for document in documents if len(document)],
        name=f"stdlib/{split}",
        tokenizer="bytes",
        vocab_size=VOCAB,
        end=VOCAB - 1,
        size=sum(map(len, documents)),
    )


@cache
def _sources(root: Path) -> list[Path]:
    """Return the Python files below a folder, without looking into the folders left out."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


def _split(name: str) -> Split:
    part = hashlib.sha256(name.encode()).digest()[0] % 20
    return "test" if part == 0 else "validation" if part == 1 else "train"
