"""Batches from text: each process gets its share of the sequences, in a fixed order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.util import get_temp_dir
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from slay import files
from slay.errors import SlayError
from slay.training.language.stream import SHARDS, Cursor, Shards, Source, Tokenizer
from slay.training.language.tokens import Order, Sequence, Tokens


def _shorten_sockets() -> None:
    """Put the sockets of worker processes, which inherit the folder, where their paths fit."""
    before = tempfile.tempdir
    tempfile.tempdir = files.socket_folder()
    try:
        get_temp_dir()  # chosen once per process
    finally:
        tempfile.tempdir = before


@dataclass(frozen=True)
class Stream:
    """Documents that are tokenised during training."""

    source: Source
    tokenizer: Tokenizer


Sample = tuple[Sequence, int, Cursor]  # of a stream: the sequence, its shard, its cursor after it


class Feed(IterableDataset):
    """Endless dataset of the sequences g >= first with g mod world = rank, in order.

    With W workers, the j-th sequence of a process comes from worker j mod W.
    """

    def __init__(
        self, text: Tokens | Stream, length: int, seed: int, rank: int, world: int, first: int,
        cursors: Mapping[int, Cursor],
    ):  # fmt: skip
        self.text, self.length, self.seed = text, length, seed
        self.rank, self.world, self.first, self.cursors = rank, world, first, cursors

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        begin, stride = self.first + self.rank + self.world * worker, self.world * workers
        if isinstance(self.text, Tokens):
            order = Order(self.text.sequences(self.length), self.seed)
            for g in count(begin, stride):
                yield self.text.sequence(order(g), self.length), -1, (0, 0)
            return
        mine = range(begin % stride, SHARDS, stride)
        shards = Shards(self.text.source, self.text.tokenizer, self.length, mine, self.cursors)
        for g in count(begin, stride):
            shard = g % SHARDS
            yield shards.next(shard), shard, shards.cursors[shard]


@dataclass
class Batches:
    """Batches of this process, and its position in a stream: what was taken, not prefetched."""

    text: Tokens | Stream
    length: int
    seed: int
    rank: int = 0
    world: int = 1
    workers: int = 0
    first: int = 0
    cursors: dict[int, Cursor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.text, Stream) and SHARDS % (self.world * max(1, self.workers)):
            raise SlayError(
                f"{self.world} processes x {max(1, self.workers)} workers: for text that is "
                f"streamed their number must divide {SHARDS}"
            )
        feed = Feed(
            self.text, self.length, self.seed, self.rank, self.world, self.first, self.cursors
        )
        more: dict[str, Any] = {"prefetch_factor": 32} if self.workers else {}
        if self.workers:
            _shorten_sockets()
        loader = DataLoader(
            feed,
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),  # separate from the one that dropout uses
            **more,
        )
        self.samples = iter(loader)

    def take(self, number: int) -> tuple[Tensor, Tensor]:
        """The next sequences of this process, tokens and successors: (number, L) each."""
        tokens, targets = [], []
        for _ in range(number):
            (x, y), shard, cursor = self._next()
            tokens.append(x)
            targets.append(y)
            if shard >= 0:
                self.cursors[int(shard)] = (int(cursor[0]), int(cursor[1]))
        return torch.stack(tokens), torch.stack(targets)

    def _next(self) -> Sample:
        try:
            return next(self.samples)
        except SlayError as error:  # from a worker: its traceback as text, the message last
            line = str(error).strip().splitlines()[-1]
            raise SlayError(line.removeprefix(f"{SlayError.__module__}.SlayError: ")) from error
