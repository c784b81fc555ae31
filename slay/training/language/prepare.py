"""Files of tokens from text: `slay data prepare`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from slay.training.language.corpus import VOCAB
from slay.training.language.stream import Source, Tokenizer, source
from slay.training.language.tokens import Facts, Writer, refuse_existing

SPLITS = ("train", "validation", "test")
EVERY = 10_000  # documents between reports


def prepare_tokens(
    files: Iterable[str],
    out: Path,
    tokenizer: str,
    held_out: float,
    progress: Callable[[str], None] = print,
) -> list[Facts]:
    """Write train.bin, validation.bin and test.bin; a hash of a document chooses its split."""
    refuse_existing(out)
    sources: list[Source] = [source(name) for name in files]
    codec: Any = None if tokenizer == "bytes" else Tokenizer(tokenizer)
    vocab_size = VOCAB if codec is None else codec.vocab_size
    end = VOCAB - 1 if codec is None else codec.end
    writers = {
        split: Writer(
            out / f"{split}.bin", name=f"{out.name}/{split}", tokenizer=tokenizer,
            vocab_size=vocab_size, end=end,
        )
        for split in SPLITS
    }  # fmt: skip
    number = 0
    for given in sources:
        for text in given.documents():
            raw = text.encode()
            row = np.frombuffer(raw, dtype=np.uint8) if codec is None else codec.encode(text)
            writers[_split(raw, held_out)].add(row, len(raw))
            number += 1
            if number % EVERY == 0:
                progress(f"{number:,} documents")
    return [writer.close() for writer in writers.values()]


def _split(text: bytes, held_out: float) -> str:
    share = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
    return "validation" if share < held_out else "test" if share < 2 * held_out else "train"
