"""Text that is tokenised while it is read, from Hugging Face datasets or local files.

Document i belongs to shard i mod 64, and sequence g comes from shard g mod 64, whatever the number
of processes and workers: each reads all documents but tokenises those of its own shards only.
"""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slay.errors import SlayError
from slay.pipeline.texts import HUB
from slay.training.language import reading
from slay.training.language.tokens import Sequence, Tokens, pack

SHARDS = 64
END = "<|endoftext|>"
Cursor = tuple[int, int]  # document, and token in it, at which a shard resumes


@dataclass(frozen=True)
class Source:
    """Documents of local files, or of a dataset on the hub."""

    name: str
    files: tuple[str, ...] = ()
    column: str = "text"

    def documents(self) -> Iterator[str]:
        """Yield every nonempty document once."""
        yield from filter(None, self.texts())

    def texts(self) -> Iterator[str]:
        """Yield every document once, empty ones too."""
        if not self.files:
            yield from self._of_hub()
        for path in self.files:
            yield from reading.documents(path, self.column)

    def _of_hub(self) -> Iterator[str]:
        """Documents of a hub dataset, in batches.

        One by one, the library would divide the documents among PyTorch's workers.
        """
        for rows in _load(self.name).iter(batch_size=64):
            if self.column not in rows:
                columns = ", ".join(rows)
                raise SlayError(f"{self.name}: has no column {self.column!r}, only {columns}")
            for text in rows[self.column]:
                yield reading.text_of(text, self.column, self.name)


def source(name: str) -> Source:
    """Dataset on the hub by its short name, or local files by path or glob pattern."""
    if name in HUB:
        return Source(name)
    files = sorted(glob.glob(name)) or [name]
    unknown = next((path for path in files if reading.kind_of(path) not in reading.KINDS), None)
    if unknown is not None:
        *texts, binary = reading.KINDS
        raise SlayError(
            f"data {unknown!r}: is neither stdlib, {', '.join(HUB)}, a folder of `slay data "
            f"prepare` nor files that end in {', '.join(texts)}, these and .gz, or {binary}"
        )
    if not Path(files[0]).exists():
        raise SlayError(f"data {name!r}: there is no such file")
    return Source(name, tuple(files))


def _load(name: str) -> Any:
    """A streaming `datasets.IterableDataset`."""
    import datasets

    path, configuration, split = HUB[name]
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path, configuration, split=split, streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        line = str(error).partition("\n")[0]
        raise SlayError(f"data {path}/{configuration}: cannot be opened ({line})") from error


class Tokenizer:
    """Tokenizer from a file tokenizer.json, or from the hub by name.

    Documents are encoded in full: the file's truncation, padding and random choices of tokens are
    switched off. Text that spells a special token is encoded as text. The end token is
    `<|endoftext|>`, appended to the vocabulary if it is missing.
    """

    def __init__(self, name: str):
        import tokenizers

        self.name = name
        try:
            if Path(name).is_file():
                self.inner = tokenizers.Tokenizer.from_file(name)
            else:
                self.inner = tokenizers.Tokenizer.from_pretrained(name)
        except Exception as error:  # the library raises plain exceptions
            raise SlayError(
                f"tokenizer {name!r}: cannot be opened ({_first_line(error)}); give a "
                "tokenizer.json, or a name on the Hugging Face hub where that can be reached"
            ) from error
        self._switch_off()
        end = self.inner.token_to_id(END)
        after = 1 + max(self.inner.get_vocab().values(), default=-1)  # ids may have gaps
        self.vocab_size = after + (end is None)
        self.end = after if end is None else end

    def _switch_off(self) -> None:
        self.inner.no_truncation()
        self.inner.no_padding()
        self.inner.encode_special_tokens = True
        for choice in ("dropout", "alpha", "nbest_size"):  # of BPE, of Unigram
            if getattr(self.inner.model, choice, None) is not None:
                setattr(self.inner.model, choice, None)

    def __setstate__(self, state: dict[str, Any]) -> None:  # a copy in another process
        self.__dict__.update(state)
        self._switch_off()

    def encode(self, text: str) -> np.ndarray:
        """Tokens of a text, without the end token."""
        tokens = self._tokens(text)
        if self.end in tokens:  # the model's own vocabulary has an entry spelt like it
            first, *others = text.split(END)
            pieces = [first, *(half for other in others for half in (END[:2], END[2:] + other))]
            tokens = [token for piece in pieces for token in self._tokens(piece)]
        if self.end in tokens:
            raise SlayError(
                f"tokenizer {self.name!r}: makes the end token of a document's own text; remove "
                f"{END} from the text"
            )
        return np.array(tokens, dtype=np.int64)

    def _tokens(self, text: str) -> list[int]:
        try:
            return self.inner.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises plain exceptions
            raise SlayError(
                f"tokenizer {self.name!r}: cannot encode a document ({_first_line(error)})"
            ) from error

    def decode(self, tokens: list[int]) -> str:
        """The text of some tokens; the end token is left out."""
        return self.inner.decode([t for t in tokens if t != self.end])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def whole(given: Source, tokenizer: Tokenizer) -> Tokens:
    """Load all documents of a source into memory, for evaluation."""
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
    """Sequences of some shards, each from its cursor on, epoch after epoch.

    Document numbers continue across epochs: the first of the second epoch follows the last of the
    first one. `cursors` holds the position of each shard, and may be passed again to resume.
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
        """Yield (shard, document, tokens with the end token) of the remaining documents."""
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
