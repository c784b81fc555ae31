"""Text that is prepared or streamed: whole, in its place, or one line that names the place."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from slay.cli import main
from slay.errors import SlayError
from slay.training.language import prepare, reading
from slay.training.language.config import TrainConfig
from slay.training.language.feed import Batches, Stream
from slay.training.language.stream import source
from slay.training.language.tokens import read
from slay.training.language.train import train

SPLITS = ("train", "validation", "test")
WORDS = "one two three four five six seven eight nine ten\n" * 40
ZIPPED = gzip.compress(WORDS.encode(), mtime=0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def prepared(*words):
    return CliRunner().invoke(main, ["data", "prepare", *words, "--out", "tokens"])


def error_of(done):
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error")]
    assert not Path("tokens").exists()
    return line


def text_of(split):
    found = read(Path(f"tokens/{split}.bin"))
    return bytes(int(t) for t in found.row if t < 256).decode()


@pytest.mark.parametrize("files", [1, 2])
def test_few_files_are_split_inside(files):
    """An empty validation split, "cannot mmap an empty file": few documents are cut."""
    names = [f"{i}.txt" for i in range(files)]
    for name in names:
        Path(name).write_text(WORDS)
    assert prepared(*names).exit_code == 0
    parts = {split: text_of(split) for split in SPLITS}
    assert all(parts.values())
    assert sum(map(len, parts.values())) == files * len(WORDS)
    if files == 1:
        assert "".join(parts[split] for split in SPLITS) == WORDS
    train(
        TrainConfig.of(
            attention="linear", embed_dim=8, n_layers=1, n_heads=1, context_len=16, batch_size=2,
            warmup=1, steps=1, data="tokens", device="cpu",
        ),
        progress=lambda line: None,
    )  # fmt: skip


@given(st.text(min_size=1, max_size=300), st.floats(0.001, 0.499))
def test_a_document_that_is_cut_loses_nothing(text, held_out):
    """Text is missing after `slay data prepare`: the parts of a document are the document."""
    assert "".join(part for _, part in prepare._cut(text, held_out)) == text


BROKEN = [
    (b'{"text": "a"}\n{"text": "b"\n', "bad.jsonl, line 2: is no JSON"),
    (b'{"text": "a"}\n\n{"body": "b"}\n', "bad.jsonl, line 3: has no key 'text', only body"),
    (b'{"text": "a"}\n{"text": null}\n', "bad.jsonl, line 2: 'text' is None"),
    (b'{"text": 7}\n', "bad.jsonl, line 1: 'text' is 7"),
    (b'["a"]\n', "bad.jsonl, line 1: ['a'] should be an object"),
    (b'{"text": "\xe9"}\n', "bad.jsonl, line 1: is not UTF-8"),
    (b'{"text": "\\ud800"}\n', "bad.jsonl, line 1: 'text' holds half of a character"),
]


@pytest.mark.parametrize(("raw", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_a_broken_line_is_named_and_after_it_is_mended_the_same_command_works(raw, said):
    """A traceback for one broken .jsonl line, then "is not empty" although it is mended."""
    Path("bad.jsonl").write_bytes(raw)
    assert said in error_of(prepared("bad.jsonl"))
    Path("bad.jsonl").write_text(json.dumps({"text": WORDS}) + "\n")
    assert prepared("bad.jsonl").exit_code == 0


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("a.txt", "caf\xe9\nol\xe9".encode("latin1"), "a.txt, line 1: is not UTF-8"),
        ("a.txt", "text".encode("utf-16"), "a.txt, line 1: is not UTF-8"),
        ("a.txt", b"", "there is no text"),
        ("a.jsonl", b"\n", "there is no text"),
        ("a.txt", b"ab", "there is too little text"),
        ("a.txt.gz", b"no gzip", "a.txt.gz: is no whole gzip file"),
        ("a.txt.gz", ZIPPED[:-9], "a.txt.gz: is no whole gzip file"),
        ("a.parquet", b"PAR1", "a.parquet: is no whole Parquet file"),
        ("a.json", b'[{"text": "a"}, {}]', "a.json, entry 2: has no key 'text'"),
        ("a.pdf", b"%PDF", "a.pdf"),
    ],
)
def test_what_is_no_text_is_one_line(name, raw, said):
    """UnicodeDecodeError, ArrowInvalid or EOFError for a file of another encoding or format."""
    Path(name).write_bytes(raw)
    assert said in error_of(prepared(name))


def test_what_is_left_out_is_said():
    """Documents are missing without a word: empty ones are counted aloud."""
    Path("a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in (WORDS, "", "")))
    Path("b.txt").write_text("")
    done = prepared("*.jsonl", "b.txt")
    assert done.exit_code == 0
    assert "left out: 3 of 4 documents" in done.output


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_text_is_read_as_it_is(tmp_path_factory, documents, mark, zipped):
    """CRLF, BOM and .gz change the text, or U+2028 splits a line of JSON."""
    folder = tmp_path_factory.mktemp("f")
    ends = {".jsonl": b"\r\n", ".json": b",", ".txt": b""}
    for kind, end in ends.items():
        rows = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in documents]
        raw = end.join(rows)
        expected = documents
        if kind == ".json":
            raw = b"[" + raw + b"]"
        if kind == ".txt":
            raw, expected = documents[0].encode(), documents[:1]
        raw = reading.BOM + raw if mark else raw
        path = folder / f"a{kind}{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(raw) if zipped else raw)
        if raw.startswith(reading.BOM * 2) or (not mark and raw.startswith(reading.BOM)):
            continue  # the text's own first character looks like a mark
        assert list(source(str(path)).documents()) == expected


def test_windows_ends_of_lines_stay():
    """\\r\\n becomes \\n in prepared text."""
    Path("a.txt").write_bytes(WORDS.replace("\n", "\r\n").encode())
    assert prepared("a.txt").exit_code == 0
    assert "".join(map(text_of, SPLITS)) == WORDS.replace("\n", "\r\n")


def test_nothing_held_out_is_no_empty_file():
    """`--held-out 0` leaves empty files that no training can read."""
    Path("a.txt").write_text(WORDS)
    assert prepared("a.txt", "--held-out", "0").exit_code == 0
    assert text_of("train") == WORDS
    assert not Path("tokens/validation.bin").exists()


KILLED = """
import os, signal
from slay.training.language import prepare
prepare._cut = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from slay.cli import main
main(["data", "prepare", "a.txt", "--out", "tokens"])
"""


def test_after_a_kill_the_same_command_works():
    """ "is not empty; give another folder" after `slay data prepare` was killed."""
    Path("a.txt").write_text(WORDS)
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not Path("tokens").exists()
    assert any(name.startswith(".tokens") for name in os.listdir())
    assert prepared("a.txt").exit_code == 0
    assert sorted(os.listdir()) == ["a.txt", "tokens"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_line_in_a_stream_is_one_line(workers, character_tokenizer):
    """A traceback of a DataLoader worker for one broken line."""
    rows = [json.dumps({"text": WORDS})] * 70
    Path("a.jsonl").write_text("\n".join([*rows, '{"text": ']) + "\n")
    feed = Batches(Stream(source("a.jsonl"), character_tokenizer), 10_000, 0, workers=workers)
    with pytest.raises(SlayError) as found:
        feed.take(2)
    assert str(found.value).startswith("a.jsonl, line 71: is no JSON")
    assert "\n" not in str(found.value)


@pytest.fixture
def character_tokenizer(tmp_path):
    """A tokenizer of single letters."""
    from tokenizers import Tokenizer as Codec
    from tokenizers import models

    from slay.training.language.stream import Tokenizer

    letters = {letter: i for i, letter in enumerate(sorted(set(WORDS)))}
    Codec(models.BPE(letters, [])).save(str(tmp_path / "letters.json"))
    return Tokenizer(str(tmp_path / "letters.json"))


def test_an_empty_file_of_tokens_is_one_line():
    """ "cannot mmap an empty file" at training."""
    Path("a.txt").write_text(WORDS)
    assert prepared("a.txt").exit_code == 0
    facts = json.loads(Path("tokens/test.json").read_text())
    Path("tokens/test.bin").write_bytes(b"")
    with pytest.raises(SlayError, match="has 0 tokens"):
        read(Path("tokens/test.bin"))
    Path("tokens/test.json").write_text(json.dumps({**facts, "tokens": 0}))
    assert read(Path("tokens/test.bin")).sequences(4) == 0
    assert torch.is_tensor(read(Path("tokens/train.bin")).sequence(0, 4)[0])
