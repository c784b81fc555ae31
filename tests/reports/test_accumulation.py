"""A step's loss and gradient are means over its tokens, however they fall on pieces."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slay.models.gpt import GPT, load
from slay.pipeline.flags import words
from slay.training.language import metrics_logger, train
from slay.training.language.checkpoint import complete
from slay.training.language.config import TrainConfig
from slay.training.language.data import Text
from slay.training.language.engine import SingleProcess
from slay.training.language.tokens import IGNORE, Tokens, Writer, pack

SHORT = {
    "attention": "linear", "embed_dim": 8, "n_layers": 1, "n_heads": 2, "context_len": 16,
    "warmup": 1, "steps": 2, "dropout": 0.0, "log_every": 1, "device": "cpu",
    "clip": 1e9, "num_workers": 0,
}  # fmt: skip


def asked(**changes):
    return TrainConfig.of(**{**SHORT, **changes})


def row(number):
    return np.arange(number - 1, dtype=np.uint8) * 37 % 250


def text_of(number):
    """That many tokens: the last sequence of them has padding."""
    text = pack(
        [row(number)], name="t", tokenizer="bytes", vocab_size=257, end=256, size=number - 1
    )
    return Text(text, text, 257, "bytes")


def logged(settings_, text, monkeypatch, folder):
    """(loss, gradient norm) of every step, by `slay train`'s own loop."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(train, "open_text", lambda settings: text)
    lines = train.train(settings_, progress=lambda line: None).lines
    return [(line["loss"], line["gradient_norm"]) for line in lines if "loss" in line]


@settings(max_examples=3)
@given(st.integers(18, 120), st.sampled_from([2, 4]), st.integers(0, 3))
def test_pieces_of_unequal_sizes_add_up_to_the_batch(tmp_path_factory, number, pieces, seed):
    """Other losses and gradient norms with `--gradient-accumulation-steps` than without."""
    found = []
    for n in (1, pieces):
        how = asked(batch_size=4, gradient_accumulation_steps=n, seed=seed)
        with pytest.MonkeyPatch.context() as patch:
            found.append(logged(how, text_of(number), patch, tmp_path_factory.mktemp("f")))
    for one, many in zip(*found, strict=True):
        assert many == pytest.approx(one, rel=1e-4)


def test_a_step_is_the_mean_over_its_tokens(tmp_path, monkeypatch):
    """The logged loss is not the loss of the step's tokens: a piece of one token counts as one."""
    text = text_of(18)  # sequences of 16 tokens and of 1
    how = asked(batch_size=2, gradient_accumulation_steps=2, steps=1)
    ((loss, norm),) = logged(how, text, monkeypatch, tmp_path)
    torch.manual_seed(how.optim.seed)
    model = GPT(train.model_config(how, text)).train()
    pairs = [text.train.sequence(i, 16) for i in range(2)]
    tokens, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
    assert (targets != IGNORE).sum(1).tolist() == [16, 1]
    expected = model.loss(tokens, targets)
    expected.backward()
    total = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    assert (loss, norm) == pytest.approx((expected.item(), total.item()), rel=1e-4)


@given(st.integers(18, 600))
@settings(max_examples=5)
def test_an_evaluation_is_the_mean_over_its_tokens(number):
    """The validation loss depends on how its sequences fall on batches."""
    text = text_of(number)
    how = asked(batch_size=1, steps=1)
    torch.manual_seed(0)
    engine = SingleProcess(GPT(train.model_config(how, text)), how, torch.device("cpu"))
    nats = train.evaluate(engine, text.validation, how)
    model = engine.model.eval()
    total = 0.0
    for index in range(text.validation.sequences(16)):
        tokens, targets = (t.unsqueeze(0) for t in text.validation.sequence(index, 16))
        with torch.no_grad():
            total += model.loss(tokens, targets).item() * int((targets != IGNORE).sum())
    assert nats == pytest.approx(total / (number - 1), rel=1e-5)


@pytest.mark.deepspeed
@pytest.mark.xdist_group("deepspeed")
@pytest.mark.parametrize("stage", [0, 2])
def test_processes_with_unequal_numbers_of_tokens_compute_what_one_does(tmp_path, stage):
    """Losses and gradient norms depend on the number of DeepSpeed processes."""
    for split in ("train", "validation"):
        writer = Writer(
            tmp_path / f"{split}.bin", name=split, tokenizer="bytes", vocab_size=257, end=256
        )
        writer.add(row(50), 49)  # sequences of 16, 16, 16 and 1
        writer.close()
    found = {}
    for name, pieces in (("one", 1), ("two", 2)):
        how = asked(
            batch_size=4, gradient_accumulation_steps=pieces, data=str(tmp_path), run_name=name,
            checkpoint_dir=str(tmp_path / "c"), log_dir=str(tmp_path / "l"), zero_stage=stage,
        )  # fmt: skip
        if name == "one":
            train.train(how, progress=lambda line: None)
        else:
            launch(how)
        lines = metrics_logger.read(tmp_path / "l" / name / "metrics.jsonl")
        found[name] = [
            line[key] for line in lines for key in ("loss", "gradient_norm") if key in line
        ]
        found[name].append(lines[-1]["validation_loss"])
    assert found["two"] == pytest.approx(found["one"], rel=1e-4)
    weights = [load(complete(tmp_path / "c" / name)[-1]).state_dict() for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=0)


def launch(how):
    """Train in two processes."""
    deepspeed = str(Path(sys.executable).with_name("deepspeed"))
    command = [deepspeed, "--num_accelerators", "2", "--module", "slay.training.language"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *words(how)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_tokens_of_one_row_are_counted_once():
    """Padding is counted as tokens of a step."""
    text = text_of(18).train
    assert isinstance(text, Tokens)
    counts = [int((text.sequence(i, 16)[1] != IGNORE).sum()) for i in range(2)]
    assert sum(counts) == len(text.row) - 1
