"""Training and validation text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slay.errors import SlayError
from slay.pipeline import texts
from slay.training.language.config import TrainConfig
from slay.training.language.corpus import stdlib
from slay.training.language.feed import Stream
from slay.training.language.stream import Tokenizer, source, whole
from slay.training.language.tokens import TOKENIZER, Tokens, read


@dataclass(frozen=True)
class Text:
    """Text of a training: what to train on, and what to evaluate on."""

    train: Tokens | Stream
    validation: Tokens
    vocab_size: int
    tokenizer: str
    digest: str = ""  # of the files that the text comes from

    @property
    def unigram_entropy(self) -> float | None:
        """Nats per token of the validation text under the token frequencies of the training text.

        None for streamed text.
        """
        if not isinstance(self.train, Tokens):
            return None
        seen, asked = (
            np.bincount(np.asarray(text.row), minlength=self.vocab_size).astype(float)
            for text in (self.train, self.validation)
        )
        p = (seen + 1) / (seen + 1).sum()
        return float(-(asked / asked.sum()) @ np.log(p))


def open_text(config: TrainConfig) -> Text:
    """Open the text that the settings name. Raises `SlayError` if it is unreadable or too short."""
    asked = config.text
    folder = Path(asked.data)
    digest = texts.digest(texts.files_of(asked.data, asked.eval_data, asked.tokenizer))
    if asked.data == "stdlib":
        train, validation = stdlib("train"), stdlib("validation")
        digest = train.facts.hash
    elif folder.is_dir() or folder.suffix == ".bin":
        held_out = folder if folder.is_dir() else folder.parent
        train = _verified(folder / "train.bin" if folder.is_dir() else folder)
        validation = _verified(Path(asked.eval_data or held_out / "validation.bin"))
    else:
        given = source(asked.data)
        default = "gpt2" if asked.data == "fineweb" else ""
        if not (asked.tokenizer or default):
            raise SlayError(f"data {asked.data!r}: text that is streamed needs --tokenizer")
        tokenizer = Tokenizer(asked.tokenizer or default)
        held_out_name = asked.eval_data or ("wikitext-2" if asked.data == "fineweb" else "")
        if not held_out_name:
            raise SlayError(f"data {asked.data!r}: text that is streamed needs --eval-data")
        held = whole(source(held_out_name), tokenizer)
        stream = Stream(given, tokenizer)
        text = Text(stream, held, tokenizer.vocab_size, tokenizer.name, digest)
        return _checked(text, config)
    if train.facts.vocab_size != validation.facts.vocab_size:
        raise SlayError(
            f"{train.facts.name} has {train.facts.vocab_size} different tokens, "
            f"{validation.facts.name} {validation.facts.vocab_size}: they are of two tokenizers"
        )
    codec = folder / TOKENIZER
    name = str(codec) if codec.is_file() else train.facts.tokenizer
    return _checked(Text(train, validation, train.facts.vocab_size, name, digest), config)


def _verified(path: Path) -> Tokens:
    """Read a token file; raise `SlayError` if its tokens are not those that its facts describe."""
    found = read(path)
    if not texts.file_digest(str(path)).startswith(found.facts.hash):
        raise SlayError(
            f"{path}: holds other tokens than {path.with_suffix('.json').name} describes; make it "
            "again with `slay data prepare`"
        )
    return found


def _checked(text: Text, config: TrainConfig) -> Text:
    for part in (text.train, text.validation):
        if isinstance(part, Tokens) and part.facts.tokens <= config.model.context_len:
            raise SlayError(
                f"context_len = {config.model.context_len}: {part.facts.name} has only "
                f"{part.facts.tokens} tokens"
            )
    return text


def bits_per_byte(nats: float, validation: Tokens) -> float:
    """Convert nats per token to bits per byte: all of the text's nats over its bytes."""
    return nats / math.log(2) * (validation.facts.tokens - 1) / validation.facts.bytes
