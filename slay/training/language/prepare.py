"""`slay data prepare`: token files from text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slay.errors import SlayError
from slay.files import new_folder
from slay.training.language.corpus import VOCAB
from slay.training.language.stream import Source, Tokenizer, source
from slay.training.language.tokens import TOKENIZER, Facts, Writer

SPLITS = ("train", "validation", "test")
EVERY = 10_000  # documents between reports
Pieces = Iterable[tuple[str, str]]  # of a document, each with its split


def prepare_tokens(
    files: Iterable[str],
    out: Path,
    tokenizer: str,
    held_out: float,
    progress: Callable[[str], None] = print,
) -> list[Facts]:
    """Write train.bin, validation.bin and test.bin; a hash of a document chooses its split.

    If a split would get no documents, each document is cut into three parts instead. If `held_out`
    is 0, only train.bin is written.
    """
    files = list(files)
    sources = [source(name) for name in files]
    codec: Any = None if tokenizer == "bytes" else Tokenizer(tokenizer)
    splits = SPLITS if held_out else SPLITS[:1]
    with new_folder(out) as folder:

        def write(pieces: Callable[[str], Pieces]) -> list[Facts]:
            writers = {
                split: Writer(
                    folder / f"{split}.bin", name=f"{out.resolve().name}/{split}",
                    tokenizer=tokenizer,
                    vocab_size=VOCAB if codec is None else codec.vocab_size,
                    end=VOCAB - 1 if codec is None else codec.end,
                )
                for split in splits
            }  # fmt: skip
            for text in _reported(sources, progress):
                for split, piece in pieces(text):
                    raw = piece.encode()
                    row = np.frombuffer(raw, np.uint8) if codec is None else codec.encode(piece)
                    writers[split].add(row, len(raw))
            return [writer.close() for writer in writers.values()]

        found = write(lambda text: [(_split(text.encode(), held_out), text)])
        if not any(facts.documents for facts in found):
            raise SlayError(f"{', '.join(files)}: there is no text to prepare")
        if not all(facts.documents for facts in found):
            progress(
                "too few documents to be shared out: each is cut, the last "
                f"{200 * held_out:g} % of it for validation and testing"
            )
            found = write(lambda text: _cut(text, held_out))
        short = next((facts.name for facts in found if not facts.documents), None)
        if short is not None:
            raise SlayError(f"{short}: there is too little text, none is left for it")
        if codec is not None:
            codec.inner.save(str(folder / TOKENIZER))
    return found


def _reported(sources: list[Source], progress: Callable[[str], None]) -> Iterator[str]:
    """Yield all nonempty documents, and report how many there were."""
    number = empty = 0
    for given in sources:
        for text in given.texts():
            number += 1
            empty += not text
            if text:
                yield text
            if number % EVERY == 0:
                progress(f"{number:,} documents")
    if empty:
        progress(f"left out: {empty:,} of {number:,} documents, which are empty")


def _split(text: bytes, held_out: float) -> str:
    share = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    return "validation" if share < held_out else "test" if share < 2 * held_out else "train"


def _cut(text: str, held_out: float) -> Pieces:
    """Training, validation and test parts of a document, without empty ones."""
    first, second = (round(len(text) * (1 - n * held_out)) for n in (2, 1))
    parts = (text[:first], text[first:second], text[second:])
    return [(split, part) for split, part in zip(SPLITS, parts, strict=True) if part]
