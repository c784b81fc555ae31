"""Trainings beside each other, under every start method, after an interruption, on a full disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer as Codec
from tokenizers import models

from slay.cli import main
from slay.errors import SlayError
from slay.files import WriteError, new_folder
from slay.pipeline.flags import words
from slay.training.language import checkpoint
from slay.training.language.config import TrainConfig
from slay.training.language.feed import Batches, Stream
from slay.training.language.metrics_logger import MetricsLogger
from slay.training.language.stream import END, Tokenizer, source
from slay.training.language.tokens import Writer, read
from slay.training.language.train import Run, train

TEXT = f"one two three {END} four five\n" * 300


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def asked(**changes):
    return TrainConfig.of(
        **{
            "attention": "linear", "embed_dim": 8, "n_layers": 1, "n_heads": 1, "context_len": 16,
            "batch_size": 2, "warmup": 1, "steps": 4, "save_every": 2, "device": "cpu",
            "eval_sequences": 1, "eval_every": 0, "log_every": 1, "dropout": 0.0, **changes,
        }
    )  # fmt: skip


def quiet(settings):
    return train(settings, progress=lambda line: None)


@pytest.fixture(params=["spawn", "forkserver"])
def start_method(request):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def feeds():
    """Both kinds of text: a stream of files, and a file of tokens."""
    Codec(models.WordLevel({"?": 0, "one": 1, END: 2}, unk_token="?")).save("codec.json")
    Path("a.txt").write_text(TEXT)
    writer = Writer(Path("a.bin"), name="a", tokenizer="bytes", vocab_size=257, end=256)
    writer.add(np.arange(500) % 250, 500)
    writer.close()
    letters = {c: i for i, c in enumerate(sorted(set(TEXT)))}
    Codec(models.BPE({**letters, END: len(letters)}, [])).save("letters.json")
    return Stream(source("a.txt"), Tokenizer("letters.json")), read(Path("a.bin"))


def test_workers_start_in_every_way(start_method, feeds):
    """ "Can't pickle local object" with --num-workers under spawn and forkserver."""
    for text in feeds:
        alone, helped = Batches(text, 8, 0), Batches(text, 8, 0, workers=1)
        for _ in range(2):
            assert torch.equal(alone.take(3)[0], helped.take(3)[0])


def test_a_file_of_tokens_is_not_sent_to_workers(feeds):
    """Workers under spawn take minutes and the memory of a whole data set each."""
    import pickle

    tokens = feeds[1]
    sent = pickle.dumps(tokens)
    assert len(sent) < 500
    again = pickle.loads(sent)
    assert isinstance(again.row, np.memmap)
    assert np.array_equal(again.row, tokens.row)


def test_a_resumed_run_is_the_same_run_of_weights_and_biases(monkeypatch):
    """A training that goes on is a second run of W&B."""
    import wandb

    calls = []

    def init(**how):
        calls.append(how)
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)

    def stop(line):
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(asked(wandb=True), progress=stop)
    quiet(asked(wandb=True))
    quiet(asked(wandb=True, run_name="other"))
    first, again, other = (call["id"] for call in calls)
    assert first == again != other
    assert {call["resume"] for call in calls} == {"allow"}


def test_checkpoints_and_log_may_lie_in_one_folder():
    """A run stands in its own way where --checkpoint-dir and --log-dir are the same."""
    quiet(asked(checkpoint_dir="runs", log_dir="./runs"))
    assert Path("runs/linear/metrics.jsonl").exists()


@pytest.mark.parametrize("shared", ["checkpoint_dir", "log_dir"])
def test_a_second_run_of_one_name_is_refused(shared):
    """Two trainings mix their logs and checkpoints in one folder."""
    other = {"checkpoint_dir": "c", "log_dir": "l"}
    other.pop(shared)

    def again(line):
        if line.startswith("step 1/"):
            with pytest.raises(SlayError, match="another process is writing there") as found:
                quiet(asked(**other))
            seen.append(str(found.value))

    seen = []
    train(asked(), progress=again)
    assert len(seen) == 1
    assert "\n" not in seen[0]
    quiet(asked(steps=6, run_name="other"))
    assert not any(name.endswith(".lock") for name in os.listdir("checkpoints"))


HOLDS = """
import time
from pathlib import Path
from slay.files import alone
with alone(Path("checkpoints/run")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_dead_process_counts_for_nothing():
    """A run that was killed cannot be started again: its lock is still there."""
    settings = asked(run_name="run")
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        line = failed("train", *words(settings))
        assert line.startswith("Error: checkpoints/run: another process is writing there")
        process.send_signal(signal.SIGKILL)
    assert Path("checkpoints/.run.lock").exists()
    quiet(settings)


def fill_the_disk(out):
    with new_folder(out) as part:
        (part / "a").write_text("a")
        raise OSError(28, "No space left on device")


def test_a_folder_is_whole_or_not_there():
    """Half a folder is left where writing failed, and nothing can be written there again."""
    with pytest.raises(WriteError, match="out: cannot be written"):
        fill_the_disk(Path("out"))
    assert not os.listdir()
    with new_folder(Path("out")) as part:
        (part / "a").write_text("a")
    assert os.listdir() == ["out"]
    with pytest.raises(SlayError, match="is not empty"), new_folder(Path("out")):
        pass


@contextmanager
def files_of_at_most(size):
    """As on a disk that is full: no file of this process can grow beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def failed(*command):
    """A command's only line of error."""
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    (line,) = done.stderr.splitlines()
    return line


def full_at(owner, name, turn, size, monkeypatch):
    """Let the disk be full while a function is called for the n-th time."""
    real, turns = getattr(owner, name), []

    def call(*args, **how):
        turns.append(1)
        with files_of_at_most(size) if len(turns) == turn else nullcontext():
            return real(*args, **how)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("size", [0, 500, 3000, 20_000])
def test_a_full_disk_at_a_checkpoint_leaves_the_last_whole_one(size, monkeypatch):
    """A traceback of PytorchStreamWriter, and a partial checkpoint, on a full disk."""
    settings = asked(run_name="run", embed_dim=16)
    with monkeypatch.context() as patch:
        full_at(checkpoint, "write", 2, size, patch)
        line = failed("train", *words(settings))
    assert line.startswith("Error: checkpoints/run/step-00000004: cannot be written")
    assert [path.name for path in Path("checkpoints/run").iterdir()] == ["step-00000002"]
    quiet(settings)
    assert checkpoint.complete(Path("checkpoints/run"))[-1].name == "step-00000004"


@pytest.mark.parametrize(("name", "turn"), [("_open", 1), ("write", 4)])
def test_a_full_disk_at_a_log_is_one_line(name, turn, monkeypatch):
    """A traceback, or a line without a file's name, where a log cannot grow."""
    full_at(MetricsLogger, name, turn, 0, monkeypatch)
    line = failed("train", *words(asked(run_name="run")))
    assert line.startswith("Error: logs/run/metrics.jsonl: cannot be written (File too large)")
    assert len(checkpoint.complete(Path("checkpoints/run"))) == (name == "write")


def test_a_thread_that_writes_a_log_prints_no_traceback(monkeypatch):
    """ "Exception in thread Thread-1" of TensorBoard among the lines of a run."""
    full_at(Run, "finish", 1, 0, monkeypatch)
    assert failed("train", *words(asked(run_name="run"))).startswith("Error: logs/run/metrics")


def test_a_full_disk_at_preparing_data_is_one_line():
    """Half of the tokens are left in the folder on a full disk."""
    Path("a.txt").write_text(TEXT)
    with files_of_at_most(1000):
        line = failed("data", "prepare", "a.txt", "--out", "tokens")
    assert line == "Error: tokens: cannot be written (File too large)"
    assert os.listdir() == ["a.txt"]
