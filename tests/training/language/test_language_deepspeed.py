"""Two DeepSpeed processes compute what one plain process does, and survive what it survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from slay.errors import SlayError
from slay.flags import words
from slay.models.gpt import load
from slay.training.language import checkpoint, journal
from slay.training.language.corpus import stdlib
from slay.training.language.settings import Settings
from slay.training.language.train import train

pytestmark = [pytest.mark.deepspeed, pytest.mark.xdist_group("deepspeed")]

LAUNCH = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2"]


def settings_for(folder, name, **changes):
    return Settings(
        attention="yat-performer-anchor", embed_dim=32, n_layers=2, n_heads=2, context_len=64,
        batch_size=8, lr=2e-3, warmup_steps=5, total_steps=50, dropout=0.0, eval_sequences=16,
        save_every=20, log_every=1, eval_every=0, device="cpu", run_name=name,
        checkpoint_dir=str(folder / "c"), log_dir=str(folder / "l"), **changes,
    )  # fmt: skip


def start(settings):
    command = [*LAUNCH, "--module", "slay.training.language", *words(settings)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def launch(settings):
    process = start(settings)
    output, _ = process.communicate()
    return process.returncode, output


def losses(settings):
    lines = journal.read(Path(settings.log_dir) / settings.name / "metrics.jsonl")
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes with ZeRO-2."""
    settings = settings_for(tmp_path_factory.mktemp("deepspeed"), "two")
    code, output = launch(settings)
    assert code == 0, output[-3000:]
    return settings


def test_two_processes_compute_what_one_does(two, tmp_path):
    one = settings_for(tmp_path, "one")
    train(one, progress=lambda line: None)
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)


def test_killed_and_started_again_two_processes_go_on_to_the_same_losses(two, tmp_path):
    settings = settings_for(tmp_path, "killed")
    process = start(settings)
    log = tmp_path / "l" / "killed" / "metrics.jsonl"
    while process.poll() is None and len(journal.read(log)) < 30:
        time.sleep(0.02)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.complete(tmp_path / "c" / "killed")
    code, output = launch(settings)
    assert code == 0, output[-3000:]
    assert "goes on after step" in output
    assert losses(settings) == pytest.approx(losses(two), abs=1e-6)


def test_another_number_of_processes_is_refused(two):
    with pytest.raises(SlayError, match=r"2 DeepSpeed process\(es\), these are 1 plain"):
        train(two, progress=lambda line: None)


def test_weights_in_parts_are_exported_whole(two, tmp_path):
    settings = settings_for(tmp_path, "parts", zero_stage=3)
    code, output = launch(settings)
    assert code == 0, output[-3000:]
    model = load(checkpoint.complete(tmp_path / "c" / "parts")[-1])
    text = stdlib("validation")
    with torch.no_grad():
        pairs = [text.sequence(i, 64) for i in range(16)]
        tokens, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
        loss = model.loss(tokens, targets).item()
    line = journal.read(tmp_path / "l" / "parts" / "metrics.jsonl")[-1]
    assert line["validation_loss"] == pytest.approx(loss, abs=1e-5)
    assert losses(settings) == pytest.approx(losses(two), abs=1e-4)


def test_bad_input_is_one_line_and_not_one_a_process(tmp_path):
    bad = settings_for(tmp_path, "bad", data="missing.bin")
    code, output = launch(bad)
    assert code != 0
    assert output.count("Error: missing.bin") == 1
    assert "Traceback" not in output
