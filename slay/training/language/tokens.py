"""Tokens in one long row, in memory or in a file, and the training sequences cut from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slay.errors import SlayError

IGNORE = -100
TOKENIZER = "tokenizer.json"  # the tokenizer, beside the token files that it made
Sequence = tuple[Tensor, Tensor]  # tokens and their successors: (L,) each


@dataclass(frozen=True)
class Facts:
    """Metadata of tokenised text, kept beside a token file and in the record of a training."""

    name: str
    tokenizer: str  # "bytes", or the path or name of one
    vocab_size: int
    end: int  # the token after every document
    documents: int
    tokens: int
    bytes: int  # of the text, as UTF-8
    hash: str  # of the tokens


@dataclass(frozen=True)
class Tokens:
    """Documents one after another, each followed by the end token."""

    facts: Facts
    row: np.ndarray  # (tokens,), an unsigned type

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a memory-mapped file by its path, so that another process maps it itself."""
        if isinstance(self.row, np.memmap) and len(self.row) == self.facts.tokens:
            return read, (self.row.filename,)
        return Tokens, (self.facts, self.row)

    def sequences(self, length: int) -> int:
        """Number of sequences of a length; the last one may be padded."""
        return max(0, math.ceil((len(self.row) - 1) / length))

    def sequence(self, index: int, length: int) -> Sequence:
        """Tokens index L to (index + 1) L, and their successors; -100 after the last token."""
        piece = self.row[index * length : (index + 1) * length + 1].astype(np.int64)
        tokens = torch.zeros(length, dtype=torch.int64)
        targets = torch.full((length,), IGNORE)
        tokens[: len(piece[:length])] = torch.from_numpy(piece[:length])
        targets[: len(piece) - 1] = torch.from_numpy(piece[1:])
        return tokens, targets


def pack(
    documents: Iterable[np.ndarray],
    *,
    name: str,
    tokenizer: str,
    vocab_size: int,
    end: int,
    size: int,
) -> Tokens:
    """Join documents of tokens, with the end token after each. `size`: of the text, in bytes."""
    parts = [with_end(document, end, vocab_size) for document in documents]
    row = np.concatenate([np.zeros(0, dtype=smallest_type(vocab_size)), *parts])
    facts = Facts(
        name=name,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        end=end,
        documents=len(parts),
        tokens=len(row),
        bytes=size,
        hash=hashlib.sha256(row.tobytes()).hexdigest()[:16],
    )
    return Tokens(facts, row)


def smallest_type(vocab_size: int) -> np.dtype:
    """The smallest unsigned type that holds every token."""
    return np.dtype(np.min_scalar_type(vocab_size - 1))


def with_end(document: np.ndarray, end: int, vocab_size: int) -> np.ndarray:
    """A document's tokens and the end token, in a type that holds them all."""
    row = np.append(document, end)
    if row.max() >= vocab_size:
        raise SlayError(f"token {row.max()}: the tokenizer has only {vocab_size} different ones")
    return row.astype(smallest_type(vocab_size))


def read(path: Path) -> Tokens:
    """Memory-map a token file: NAME.bin, with its facts in NAME.json."""
    path = Path(path)
    beside = path.with_suffix(".json")
    try:
        facts = Facts(**json.loads(beside.read_text(encoding="utf-8")))
        kind = smallest_type(facts.vocab_size)
        empty = not path.stat().st_size  # which cannot be mapped
        row = np.zeros(0, dtype=kind) if empty else np.memmap(path, dtype=kind, mode="r")
    except (OSError, ValueError, TypeError) as error:
        raise SlayError(
            f"{path}: cannot be read as tokens ({error}); `slay data prepare` makes such files"
        ) from error
    if len(row) != facts.tokens:
        raise SlayError(
            f"{path}: has {len(row)} tokens, but {beside.name} says {facts.tokens}; "
            "make it again with `slay data prepare`"
        )
    return Tokens(facts, row)


class Writer:
    """Writer of a token file, document by document, and at the end of its facts beside it."""

    def __init__(self, path: Path, *, name: str, tokenizer: str, vocab_size: int, end: int):
        self.path = path = path.resolve()  # a symbolic link is kept
        self.facts = Facts(name, tokenizer, vocab_size, end, 0, 0, 0, "")
        self.digest = hashlib.sha256()
        self.counts = [0, 0, 0]  # documents, tokens, bytes
        self.file = path.open("wb")

    def add(self, document: np.ndarray, size: int) -> None:
        """Append a document's tokens, without the end token; `size` is its length in bytes."""
        row = with_end(document, self.facts.end, self.facts.vocab_size).tobytes()
        self.file.write(row)
        self.digest.update(row)
        for place, more in enumerate((1, len(document) + 1, size)):
            self.counts[place] += more

    def close(self) -> Facts:
        """Write and return the facts of everything added."""
        self.file.close()
        documents, tokens, size = self.counts
        given = asdict(self.facts)
        facts = Facts(
            **given | {"documents": documents, "tokens": tokens, "bytes": size}
            | {"hash": self.digest.hexdigest()[:16]}
        )  # fmt: skip
        beside = self.path.with_suffix(".json")
        beside.write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")
        return facts


class Order:
    """Index of a training's g-th sequence among `number` ones, reshuffled every epoch."""

    def __init__(self, number: int, seed: int):
        self.number, self.seed = number, seed
        self.epoch, self.shuffled = -1, torch.zeros(0, dtype=torch.int64)

    def __call__(self, g: int) -> int:
        epoch, place = divmod(g, self.number)
        if epoch != self.epoch:
            digest = hashlib.sha256(f"order:{self.seed}:{epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            self.epoch, self.shuffled = epoch, torch.randperm(self.number, generator=generator)
        return int(self.shuffled[place])
