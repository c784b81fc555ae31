"""A run and a record are of one text: by what its files hold, not by their names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Codec
from tokenizers import models

from slay.errors import SlayError
from slay.experiments.run import run_job
from slay.pipeline import stale, texts
from slay.pipeline.config import load
from slay.pipeline.jobs import expand
from slay.pipeline.params import LanguageParams
from slay.pipeline.record import SCHEMA, Provenance, Record
from slay.training.language import prepare
from slay.training.language.config import TrainConfig
from slay.training.language.data import open_text
from slay.training.language.export import export_model
from slay.training.language.train import train

WORDS = "one two three four five six seven eight nine ten\n" * 20
OTHER = WORDS.replace("one", "eno")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def asked(data, **changes):
    return TrainConfig.of(
        attention="linear", embed_dim=8, n_layers=1, n_heads=1, context_len=16, batch_size=2,
        warmup=1, device="cpu", data=data, save_every=1, eval_sequences=1, eval_every=0,
        dropout=0.0, **{"steps": 2, **changes},
    )  # fmt: skip


def tokenizer(letters=WORDS):
    Codec(models.BPE({c: i for i, c in enumerate(sorted(set(letters)))}, [])).save("codec.json")


def prepared(text=WORDS):
    for path in Path("tokens").glob("*"):
        path.unlink()
    Path("a.txt").write_text(text)
    prepare.prepare_tokens(["a.txt"], Path("tokens"), "bytes", 0.1, lambda line: None)


def streamed(text=WORDS):
    tokenizer()
    Path("a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    if not Path("held.txt").exists():
        Path("held.txt").write_text(WORDS)


PREPARED = {"data": "tokens"}
STREAMED = {"data": "*.jsonl", "eval_data": "held.txt", "tokenizer": "codec.json"}
CHANGES = [
    (PREPARED, prepared, lambda: prepared(OTHER)),
    ({"data": "tokens/train.bin"}, prepared, lambda: prepared(OTHER)),
    (STREAMED, streamed, lambda: streamed(OTHER)),
    (STREAMED, streamed, lambda: Path("b.jsonl").write_text('{"text": "more"}\n')),
    (STREAMED, streamed, lambda: Path("held.txt").write_text(OTHER)),
    (STREAMED, streamed, lambda: tokenizer(WORDS.replace("x", "y"))),
]
NAMES = ["folder", "file", "stream", "another file", "held out", "tokenizer"]


def configured(text=WORDS, *, stage=2):
    prepared(text)
    Path("ds.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))


CONFIGURED = (
    {"data": "tokens", "deepspeed_config": "ds.json"}, configured, lambda: configured(stage=3)
)  # fmt: skip


def stopped(settings):
    """A run of two steps that stops after the first."""

    def stop(line):
        if line.startswith("step 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, progress=stop)


@pytest.mark.parametrize(
    ("data", "make", "change"), [*CHANGES, CONFIGURED], ids=[*NAMES, "DeepSpeed's configuration"]
)
def test_a_run_does_not_go_on_with_other_files(data, make, change):
    """ "goes on after step 2" although the folder of tokens holds other text."""
    make()
    settings = asked(**data, log_every=1)
    stopped(settings)
    said = []
    make()  # the same once more
    change()
    with pytest.raises(SlayError, match="holds other content now"):
        train(settings, progress=said.append)
    assert not said
    make()
    Path("b.jsonl").unlink(missing_ok=True)
    Path("held.txt").write_text(WORDS)
    train(settings, progress=said.append)
    assert said[0].startswith("goes on after step 1")


@pytest.mark.parametrize(("data", "make", "change"), CHANGES, ids=NAMES)
def test_a_record_of_other_text_is_out_of_date(data, make, change):
    """`slay stale` and the workflow keep records of a text that was replaced."""
    grid = {"attention": "linear", "device": "cpu", **data}
    run = {"run": "r", "title": "r", "attention": ["linear"], "experiments": {"language": [grid]}}

    def job():
        return expand(load(run))["language"][0]

    make()
    before = job()
    make()
    assert job().codes == before.codes
    change()
    after = job()
    assert after.codes != before.codes
    made = Provenance(
        code=before.codes["cpu"], device="cpu", commit=None, dirty=None, host="", platform="",
        processor="", cores=1, threads=1, python="", torch="", started="", seconds=1.0,
        peak_memory_bytes=1,
    )  # fmt: skip
    record = Record(
        schema=SCHEMA, experiment="language", params=before.params.model_dump(), status="ok",
        metrics={}, provenance=made,
    )  # fmt: skip
    assert stale.why(before, record) == ""
    assert "the text that it reads" in stale.why(after, record)
    with pytest.raises(SlayError, match="the text that it reads changed since this job was"):
        run_job(
            after.params, Path("r.json"), threads=1, planned=before.codes.values(), progress=print
        )


def test_text_that_has_no_file_changes_no_fingerprint():
    """Records on the standard library's sources are measured again for no reason."""
    for data in ({}, {"data": "fineweb"}, {"data": "fineweb", "eval_data": "wikitext-2"}):
        assert LanguageParams(attention="linear", **data).files() == []


def test_what_stands_beside_the_facts_of_another_text_is_refused():
    """train.bin was replaced alone, by as many tokens: bits a byte are of another text."""
    prepared()
    row = Path("tokens/train.bin").read_bytes()
    Path("tokens/train.bin").write_bytes(row[::-1])
    with pytest.raises(SlayError, match=r"train\.bin: holds other tokens than train\.json"):
        open_text(asked("tokens"))


def test_a_large_file_is_read_once(monkeypatch):
    """Planning takes minutes for files of hundreds of GB: their digests are kept."""
    monkeypatch.setattr(texts, "LARGE", 10)
    Path("a.txt").write_text(WORDS)
    first = texts.file_digest("a.txt")
    texts._digest.cache_clear()  # as in another process
    kept = json.loads(texts.KEPT.read_text())
    assert [digest for _, _, digest in kept.values()] == [first]
    texts.KEPT.write_text(json.dumps({path: [*k[:2], "kept"] for path, k in kept.items()}))
    assert texts.file_digest("a.txt") == "kept"
    Path("a.txt").write_text(OTHER)
    os.utime("a.txt", ns=(1, 1))
    assert texts.file_digest("a.txt") not in ("kept", first)
    texts.KEPT.write_text("broken")
    texts._digest.cache_clear()
    Path("a.txt").write_text(WORDS)
    assert texts.file_digest("a.txt") == first


def test_a_model_is_exported_with_the_tokenizer_that_made_its_tokens():
    """`slay generate` writes nonsense: the tokenizer's file changed after the preparation."""
    tokenizer()
    before = Path("codec.json").read_text()
    Path("a.txt").write_text(WORDS)
    prepare.prepare_tokens(["a.txt"], Path("tokens"), "codec.json", 0.1, lambda line: None)
    tokenizer("abcdefghij")
    train(asked("tokens", steps=1), progress=lambda line: None)
    export_model(Path("checkpoints/linear"), Path("model"))
    exported = json.loads(Path("model/tokenizer.json").read_text())
    assert exported["model"] == json.loads(before)["model"]


def test_weights_of_another_vocabulary_are_one_line():
    """A traceback of load_state_dict where --resume-from names a run on other text."""
    prepared()
    train(asked("tokens", steps=1), progress=lambda line: None)
    streamed()
    with pytest.raises(SlayError, match="does not fit"):
        train(
            asked(**STREAMED, run_name="other", resume_from="checkpoints/linear"),
            progress=lambda line: None,
        )
