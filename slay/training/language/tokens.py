"""Tokens in one long row, in memory or in a file; the sequences that a model is trained on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slay.errors import SlayError

IGNORE = -100
Sequence = tuple[Tensor, Tensor]  # tokens and their successors: (L,) each


@dataclass(frozen=True)
class Facts:
    """What is known of some text: in the record of a training, and beside a file of tokens."""

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

    def sequences(self, length: int) -> int:
        """How many sequences of a length there are, the last one perhaps with padding."""
        return max(0, math.ceil((len(self.row) - 1) / length))

    def sequence(self, index: int, length: int) -> Sequence:
        """Tokens index L to (index + 1) L, and their successors; -100 follows the last token."""
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
    kind = smallest_type(vocab_size)
    parts: list[np.ndarray] = []
    for document in documents:
        parts += [document.astype(kind), np.array([end], dtype=kind)]
    row = np.concatenate(parts) if parts else np.zeros(0, dtype=kind)
    facts = Facts(
        name=name,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        end=end,
        documents=len(parts) // 2,
        tokens=len(row),
        bytes=size,
        hash=hashlib.sha256(row.tobytes()).hexdigest()[:16],
    )
    return Tokens(facts, row)


def smallest_type(vocab_size: int) -> np.dtype:
    """The smallest unsigned type that holds every token."""
    return np.dtype(np.min_scalar_type(vocab_size - 1))


def read(path: Path) -> Tokens:
    """A file of tokens, mapped into memory: NAME.bin with its facts in NAME.json beside it."""
    path = Path(path)
    beside = path.with_suffix(".json")
    try:
        facts = Facts(**json.loads(beside.read_text(encoding="utf-8")))
        row = np.memmap(path, dtype=smallest_type(facts.vocab_size), mode="r")
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
    """Writes a file of tokens a document at a time; nothing is there before all of it is."""

    def __init__(self, path: Path, *, name: str, tokenizer: str, vocab_size: int, end: int):
        self.path = path = path.resolve()  # a link stays
        self.facts = Facts(name, tokenizer, vocab_size, end, 0, 0, 0, "")
        self.kind = smallest_type(vocab_size)
        self.digest = hashlib.sha256()
        self.counts = [0, 0, 0]  # documents, tokens, bytes
        self.partial = path.with_name(f".{path.name}.partial")
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.partial.open("wb")

    def add(self, document: np.ndarray, size: int) -> None:
        """A document's tokens, without the end token, and its size in bytes."""
        row = np.append(document, self.facts.end).astype(self.kind).tobytes()
        self.file.write(row)
        self.digest.update(row)
        for place, more in enumerate((1, len(document) + 1, size)):
            self.counts[place] += more

    def close(self) -> Facts:
        """Put the file in its place, with its facts."""
        self.file.close()
        documents, tokens, size = self.counts
        given = asdict(self.facts)
        facts = Facts(
            **given | {"documents": documents, "tokens": tokens, "bytes": size}
            | {"hash": self.digest.hexdigest()[:16]}
        )  # fmt: skip
        beside = self.path.with_suffix(".json")
        self.partial.replace(self.path)
        beside.write_text(json.dumps(asdict(facts), indent=1) + "\n", encoding="utf-8")
        return facts


class Order:
    """Which of `number` sequences is the g-th of a training: shuffled anew every epoch."""

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


def refuse_existing(out: Path) -> None:
    """Raise `SlayError` for a folder to be written in which something lies already."""
    if out.exists() and not out.is_dir():
        raise SlayError(f"{out}: is no folder; give another")
    if out.exists() and any(out.iterdir()):
        raise SlayError(f"{out}: is not empty; give another folder, or remove it")
