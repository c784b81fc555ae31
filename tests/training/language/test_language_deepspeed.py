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
from slay.experiments.language import run
from slay.models.gpt import load
from slay.pipeline.flags import words
from slay.pipeline.params import LanguageParams
from slay.training.language import checkpoint, metrics_logger
from slay.training.language.config import TrainConfig
from slay.training.language.corpus import stdlib
from slay.training.language.engine import deepspeed_config
from slay.training.language.train import train

pytestmark = [pytest.mark.deepspeed, pytest.mark.xdist_group("deepspeed")]

LAUNCH = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2"]


def settings_for(folder, name, **changes):
    return TrainConfig.of(
        attention="yat-performer-anchor", embed_dim=32, n_layers=2, n_heads=2, context_len=64,
        batch_size=8, lr=2e-3, warmup=5, steps=50, dropout=0.0, eval_sequences=16,
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
    lines = metrics_logger.read(metrics_logger.folder_of(settings) / "metrics.jsonl")
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
    while process.poll() is None and len(metrics_logger.read(log)) < 30:
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
        pairs = [text.sequence(i * text.sequences(64) // 16, 64) for i in range(16)]
        tokens, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
        loss = model.loss(tokens, targets).item()
    line = metrics_logger.read(tmp_path / "l" / "parts" / "metrics.jsonl")[-1]
    assert line["validation_loss"] == pytest.approx(loss, abs=1e-5)
    assert losses(settings) == pytest.approx(losses(two), abs=1e-4)


def test_bad_input_is_one_line_and_not_one_a_process(tmp_path):
    bad = settings_for(tmp_path, "bad", data="missing.bin")
    code, output = launch(bad)
    assert code != 0
    assert output.count("Error: missing.bin") == 1
    assert "Traceback" not in output


def test_a_configuration_file_counts_but_for_what_flags_say(tmp_path):
    path = Path(__file__).parents[3] / "examples" / "deepspeed.json"
    given = settings_for(tmp_path, "x", deepspeed_config=str(path)).optim
    assert deepspeed_config(given, 2)["zero_optimization"]["stage"] == 3
    lower = deepspeed_config(given.model_copy(update={"zero_stage": 1}), 2)["zero_optimization"]
    assert (lower["stage"], lower["overlap_comm"]) == (1, True)
    for text in ("no json", "[1]"):
        (tmp_path / "bad.json").write_text(text)
        bad = given.model_copy(update={"deepspeed_config": str(tmp_path / "bad.json")})
        with pytest.raises(SlayError, match=r"bad\.json"):
            deepspeed_config(bad, 2)


def test_a_job_runs_in_as_many_processes_as_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"embed_dim": 16, "n_heads": 2, "n_layers": 1, "context_len": 32, "steps": 4}
    results = {}
    for processes in (1, 2):
        params = LanguageParams(
            attention="linear", device="cpu", batch_size=4, eval_sequences=8, eval_every=2,
            processes=processes, **asked,
        )  # fmt: skip
        results[processes] = run(params, lambda line: None)
    one, two = results[1], results[2]
    assert two.status == "ok"
    assert two.metrics["loss"] == pytest.approx(one.metrics["loss"], abs=1e-5)
    assert len(two.curve) == len(one.curve)
    assert not (tmp_path / ".slay").exists()


def test_a_job_says_why_its_processes_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = LanguageParams(attention="linear", device="cpu", data="missing.bin", processes=2)
    with pytest.raises(SlayError, match=r"^missing\.bin: cannot be read"):
        run(params, lambda line: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    params = LanguageParams(
        attention="linear", device="cpu", processes=2, lr=1e30, warmup=1, steps=20, embed_dim=16,
        n_layers=1, context_len=32, eval_sequences=8,
    )  # fmt: skip
    result = run(params, lambda line: None)
    assert result.status == "diverged"
    assert "step" in result.message
