"""Every token is read once, in an order that neither processes nor workers change."""

from __future__ import annotations

import json
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Codec
from tokenizers import models, pre_tokenizers, trainers

from slay.cli import main
from slay.errors import SlayError
from slay.training.language import feed
from slay.training.language.corpus import stdlib
from slay.training.language.feed import Batches, Feed, Stream
from slay.training.language.stream import END, SHARDS, Tokenizer, source, whole
from slay.training.language.tokens import IGNORE, Order, pack, read

DOCUMENTS = [f"d{i} " + "w " * (i % 7) + f"e{i}" for i in range(150)]


def tokens(number):
    row = [np.arange(number - 1) % 250]
    return pack(row, name="t", tokenizer="bytes", vocab_size=257, end=256, size=number - 1)


@given(st.integers(2, 200), st.integers(1, 50))
def test_every_token_is_asked_for_once(number, length):
    text = tokens(number)
    pairs = [text.sequence(i, length) for i in range(text.sequences(length))]
    asked = torch.cat([targets[targets != IGNORE] for _, targets in pairs])
    assert asked.tolist() == text.row[1:].tolist()
    for inputs, targets in pairs:
        known = targets[:-1] != IGNORE
        assert torch.equal(inputs[1:][known], targets[:-1][known])


@given(st.integers(1, 60), st.integers(0, 5))
def test_an_epoch_is_every_sequence_once(number, seed):
    order = Order(number, seed)
    first, second = ([order(e * number + i) for i in range(number)] for e in range(2))
    assert sorted(first) == sorted(second) == list(range(number))
    if number > 20:
        assert first != second


def taken(text, world, workers, rounds, monkeypatch, first=0, cursors=None):
    """What all processes and workers read, put together by the number of the sequence."""
    found = {}
    for rank in range(world):
        for worker in range(workers):
            info = SimpleNamespace(id=worker, num_workers=workers)
            monkeypatch.setattr(feed, "get_worker_info", lambda info=info: info)
            share = Feed(text, 5, 0, rank, world, first, dict(cursors or {}))
            for i, sample in enumerate(islice(iter(share), rounds)):
                found[first + rank + world * (worker + workers * i)] = sample
    return [found[g] for g in sorted(found)]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_processes_and_workers_share_without_overlap_or_loss(world, workers, start):
    text, first = tokens(223), start * world
    with pytest.MonkeyPatch.context() as patch:
        samples = taken(text, world, workers, 20, patch, first)
    order = Order(text.sequences(5), 0)
    assert len(samples) == 20 * world * workers
    for g, ((inputs, _), _, _) in enumerate(samples, first):
        assert torch.equal(inputs, text.sequence(order(g), 5)[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Documents as files of every format, and a tokenizer that was trained on them."""
    folder = tmp_path_factory.mktemp("text")
    codec = Codec(models.WordLevel(unk_token="?"))
    codec.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    codec.train_from_iterator(DOCUMENTS, trainers.WordLevelTrainer(special_tokens=["?", END]))
    codec.save(str(folder / "tokenizer.json"))
    for part, name in ((DOCUMENTS[:100], "a.jsonl"), (DOCUMENTS[100:], "b.jsonl")):
        (folder / name).write_text("".join(json.dumps({"text": t}) + "\n" for t in part))
    (folder / "one.txt").write_text("\n\n".join(DOCUMENTS))
    return folder


@pytest.fixture(scope="module")
def stream(files):
    return Stream(source(str(files / "*.jsonl")), Tokenizer(str(files / "tokenizer.json")))


def shard_row(stream, shard, epochs=6):
    """The tokens of a shard, by what shards are."""
    documents = DOCUMENTS * epochs
    parts = [
        [*stream.tokenizer.encode(text).tolist(), stream.tokenizer.end]
        for i, text in enumerate(documents)
        if i % SHARDS == shard
    ]
    return [token for part in parts for token in part]


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 1), (2, 2), (4, 4), (1, 8)])
def test_a_stream_reads_every_document_once(stream, world, workers, monkeypatch):
    samples = taken(stream, world, workers, 3 * SHARDS // (world * workers), monkeypatch)
    rows = {}
    for g, ((inputs, targets), shard, _) in enumerate(samples):
        assert shard == g % SHARDS
        assert torch.equal(inputs[1:], targets[:-1])
        rows.setdefault(shard, []).extend(inputs.tolist())
    assert len(rows) == SHARDS
    for shard, row in rows.items():
        assert row == shard_row(stream, shard)[: len(row)]


def test_a_stream_goes_on_in_the_middle_of_a_document(stream):
    whole_run = Batches(stream, 5, 0)
    expected = torch.cat([whole_run.take(10)[0] for _ in range(30)])
    before = Batches(stream, 5, 0)
    first = torch.cat([before.take(10)[0] for _ in range(13)])
    after = Batches(stream, 5, 0, first=130, cursors=dict(before.cursors))
    rest = torch.cat([after.take(10)[0] for _ in range(17)])
    assert torch.equal(torch.cat((first, rest)), expected)


@pytest.mark.parametrize("kind", ["tokens", "stream"])
def test_workers_change_nothing(kind, stream):
    text = stream if kind == "stream" else tokens(500)
    alone, helped = Batches(text, 5, 0), Batches(text, 5, 0, workers=2)
    for _ in range(8):
        assert torch.equal(alone.take(9)[1], helped.take(9)[1])
    assert alone.cursors == helped.cursors


def test_workers_that_cannot_share_a_stream_are_refused(stream):
    with pytest.raises(SlayError, match="must divide 64"):
        Batches(stream, 5, 0, world=3)


def test_text_and_parquet_files_are_read_too(files):
    import pandas as pd

    pd.DataFrame({"text": DOCUMENTS}).to_parquet(files / "all.parquet")
    assert list(source(str(files / "all.parquet")).documents()) == DOCUMENTS
    assert list(source(str(files / "one.txt")).documents()) == ["\n\n".join(DOCUMENTS)]
    text = whole(source(str(files / "all.parquet")), Tokenizer(str(files / "tokenizer.json")))
    assert text.facts.documents == 150
    assert text.facts.bytes == sum(map(len, DOCUMENTS))


def test_prepared_tokens_are_the_documents(files, tmp_path):
    out = tmp_path / "tokens"
    command = ["data", "prepare", str(files / "*.jsonl"), "--out", str(out), "--held-out", "0.2"]
    command += ["--tokenizer", str(files / "tokenizer.json")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    parts = [read(out / f"{split}.bin") for split in ("train", "validation", "test")]
    assert sum(part.facts.documents for part in parts) == 150
    assert all(part.facts.documents > 15 for part in parts)
    codec = Tokenizer(str(files / "tokenizer.json"))
    found = []
    for part in parts:
        ends = np.flatnonzero(part.row == codec.end)
        found += [codec.decode(p[:-1].tolist()) for p in np.split(part.row, ends + 1) if len(p)]
    assert sorted(found) == sorted(DOCUMENTS)
    assert CliRunner().invoke(main, command).exit_code == 1  # nothing is overwritten
    (out / "train.bin").write_bytes(bytes(8))
    with pytest.raises(SlayError, match="make it again"):
        read(out / "train.bin")


def test_the_embedded_corpus_is_split_by_file():
    train, validation, test = (stdlib(split) for split in ("train", "validation", "test"))
    assert train.facts.tokens > 10 * validation.facts.tokens > 100_000
    assert len({part.facts.hash for part in (train, validation, test)}) == 3
    assert (np.asarray(train.row) == 256).sum() == train.facts.documents
    assert train.facts.bytes + train.facts.documents == train.facts.tokens
