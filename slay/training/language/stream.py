"""Text that is tokenised while it is read, from Hugging Face datasets or files of one's own.

Document i belongs to shard i mod 64, and sequence g comes from shard g mod 64, whatever the number
of processes and workers: each reads all documents but tokenises those of its own shards only.
"""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slay.errors import SlayError
from slay.training.language.tokens import Sequence, Tokens, pack

SHARDS = 64
END = "<|endoftext|>"
Cursor = tuple[int, int]  # document, and token of it, at which a shard goes on


@dataclass(frozen=True)
class Source:
    """Documents: where they are, what opens them."""

    name: str
    open: Callable[[], Any] = field(repr=False)  # a streaming `datasets.IterableDataset`
    column: str = "text"

    def documents(self) -> Iterator[str]:
        """Every document once; the empty ones are left out.

        By batches: one by one, the library would share documents out among PyTorch's workers in a
        way of its own.
        """
        for rows in self.open().iter(batch_size=64):
            if self.column not in rows:
                columns = ", ".join(rows)
                raise SlayError(f"{self.name}: has no column {self.column!r}, only {columns}")
            yield from filter(None, rows[self.column])


HUB = {  # path, configuration, split
    "fineweb": ("HuggingFaceFW/fineweb", "sample-10BT", "train"),
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "validation"),
}
FORMATS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def source(name: str) -> Source:
    """A data set of the hub by its short name, or local files by their path or pattern."""
    if name in HUB:
        path, configuration, split = HUB[name]
        return Source(name, lambda: _load(path, configuration, split=split))
    files = sorted(glob.glob(name)) or ([name] if Path(name).exists() else [])
    kind = FORMATS.get(Path(name).suffix)
    if kind is None:
        raise SlayError(
            f"data {name!r}: is neither stdlib, {', '.join(HUB)}, a folder of `slay data prepare` "
            f"nor files that end in {', '.join(FORMATS)}"
        )
    if not files:
        raise SlayError(f"data {name!r}: there is no such file")
    extra = {"sample_by": "document"} if kind == "text" else {}
    return Source(name, lambda: _load(kind, data_files=files, split="train", **extra))


def _load(*what: str, **how: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(*what, streaming=True, **how)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        line = str(error).partition("\n")[0]
        raise SlayError(f"data {'/'.join(what)}: cannot be opened ({line})") from error


class Tokenizer:
    """Text to tokens, by a file tokenizer.json or the name of one on the hub.

    Its end token is `<|endoftext|>`, added as the last one where it has none.
    """

    def __init__(self, name: str):
        import tokenizers

        self.name = name
        try:
            if Path(name).is_file():
                self.inner = tokenizers.Tokenizer.from_file(name)
            else:
                self.inner = tokenizers.Tokenizer.from_pretrained(name)
        except Exception as error:  # the library raises plain ones
            line = str(error).partition("\n")[0]
            raise SlayError(
                f"tokenizer {name!r}: cannot be opened ({line}); give a tokenizer.json, or a name "
                "on the Hugging Face hub where that can be reached"
            ) from error
        end = self.inner.token_to_id(END)
        self.vocab_size = self.inner.get_vocab_size() + (end is None)
        self.end = self.vocab_size - 1 if end is None else end

    def encode(self, text: str) -> np.ndarray:
        """Tokens of a text, without the end token."""
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: list[int]) -> str:
        """The text of some tokens; the end token is left out."""
        return self.inner.decode([t for t in tokens if t != self.end])


def whole(given: Source, tokenizer: Tokenizer) -> Tokens:
    """All documents of a source, in memory: for evaluation."""
    texts = list(given.documents())
    return pack(
        map(tokenizer.encode, texts),
        name=given.name,
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        end=tokenizer.end,
        size=sum(len(text.encode()) for text in texts),
    )


class Shards:
    """Sequences of some shards, each from where its cursor says; epochs follow one another.

    Documents are counted through the epochs: the first of the second epoch follows the last of the
    first one. `cursors` holds where each shard is, and may be given again to go on from there.
    """

    def __init__(
        self,
        given: Source,
        tokenizer: Tokenizer,
        length: int,
        shards: Iterable[int],
        cursors: Mapping[int, Cursor] | None = None,
    ):
        self.source, self.tokenizer, self.length = given, tokenizer, length
        self.cursors = {shard: (cursors or {}).get(shard, (shard, 0)) for shard in shards}
        self.rows: dict[int, deque[tuple[int, np.ndarray]]] = {s: deque() for s in self.cursors}
        self.reader = self._read()

    def next(self, shard: int) -> Sequence:
        """The next sequence of a shard: tokens and their successors, (L,) each."""
        rows = self.rows[shard]
        _, token = self.cursors[shard]
        while sum(len(row) for _, row in rows) - token <= self.length:
            owner, number, row = next(self.reader)
            self.rows[owner].append((number, row))
        piece = np.concatenate([row for _, row in rows])[token : token + self.length + 1]
        token += self.length
        while token >= len(rows[0][1]):
            token -= len(rows.popleft()[1])
        self.cursors[shard] = (rows[0][0], token)
        return torch.from_numpy(piece[:-1].copy()), torch.from_numpy(piece[1:].copy())

    def _read(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(shard, document, tokens with the end token) of the documents still to be had."""
        number = 0
        starts = {shard: document for shard, (document, _) in self.cursors.items()}
        while True:
            before = number
            for text in self.source.documents():
                shard = number % SHARDS
                if number >= starts.get(shard, number + 1):
                    yield shard, number, np.append(self.tokenizer.encode(text), self.tokenizer.end)
                number += 1
            if number == before:
                raise SlayError(f"data {self.source.name!r}: has no document")
