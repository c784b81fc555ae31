"""A training goes on where it was killed, says what it did, and refuses what cannot work."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from slay.cli import main
from slay.errors import SlayError
from slay.fields import FORMER
from slay.models.gpt import GPT, load
from slay.pipeline.flags import with_options, words
from slay.training.language import checkpoint, metrics_logger
from slay.training.language.config import TrainConfig
from slay.training.language.corpus import stdlib
from slay.training.language.data import bits_per_byte, open_text
from slay.training.language.engine import SingleProcess
from slay.training.language.feed import Batches
from slay.training.language.schedule import batch_size, batches, learning_rate
from slay.training.language.tokens import Tokens
from slay.training.language.train import DivergedError, evaluate, model_config, train

SMALL = {
    "attention": "linear", "embed_dim": 16, "n_layers": 1, "n_heads": 2, "context_len": 32,
    "batch_size": 4, "lr": 2e-3, "warmup": 5, "steps": 30, "save_every": 10,
    "eval_sequences": 8, "log_every": 1, "device": "cpu", "eval_every": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def small(**changes):
    return TrainConfig.of(**{**SMALL, **changes})


def quiet(settings):
    return train(settings, progress=lambda line: None)


def losses(name):
    lines = metrics_logger.read(Path(f"logs/{name}/metrics.jsonl"))
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_and_started_again_it_ends_with_the_same_bytes(workers):
    changes = {"steps": 400, "save_every": 40, "dropout": 0.1, "num_workers": workers}
    quiet(small(run_name="whole", **changes))
    slay = str(Path(sys.executable).with_name("slay"))
    command = [slay, "train", *words(small(run_name="killed", **changes))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = Path("logs/killed/metrics.jsonl")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(metrics_logger.read(log)) < 100:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(checkpoint.complete(Path("checkpoints/killed"))) >= 2
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "goes on after step" in again.stdout
    assert losses("killed") == losses("whole")
    ends = [Path(f"checkpoints/{n}/step-00000400/model.safetensors") for n in ("whole", "killed")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_the_last_checkpoints_are_kept_and_partial_ones_ignored():
    quiet(small(keep=2))
    folder = Path("checkpoints/linear")
    assert [path.name for path in checkpoint.complete(folder)] == ["step-00000020", "step-00000030"]
    (folder / ".step-00000040.partial").mkdir()
    assert checkpoint.find(small(), "plain", 1) == folder / "step-00000030"


def test_perplexity_and_bits_follow_from_the_mean_loss_of_the_model():
    outcome = quiet(small())
    text = stdlib("validation")
    model = load("checkpoints/linear/step-00000030")
    nats = count = 0
    with torch.no_grad():
        for i in range(8):
            inputs, targets = text.sequence(i * text.sequences(32) // 8, 32)
            logits = model(inputs.unsqueeze(0))[0].double().log_softmax(-1)
            nats -= logits.gather(1, targets.unsqueeze(1)).sum().item()
            count += len(targets)
    metrics = outcome.metrics
    assert metrics["validation_loss"] == pytest.approx(nats / count, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    bits = nats / count / math.log(2) * (text.facts.tokens - 1) / text.facts.bytes
    assert metrics["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert bits_per_byte(1.0, text) >= 1 / math.log(2)  # the end tokens cost, too


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_good_checkpoint():
    with pytest.raises(DivergedError, match="step"):
        quiet(small(lr=1e30, warmup=10, save_every=1, weight_decay=0.0))
    last = metrics_logger.read(Path("logs/linear/metrics.jsonl"))[-1]
    assert last["status"] == "diverged"
    kept = checkpoint.complete(Path("checkpoints/linear"))
    assert int(kept[-1].name[5:]) == last["step"] - 1


@given(st.integers(1, 50), st.integers(1, 200))
def test_the_rate_climbs_to_its_height_and_falls_to_nothing(warmup, rest):
    settings = small(warmup=warmup, steps=warmup + rest)
    rates = [learning_rate(step, settings.optim) for step in range(1, warmup + rest + 1)]
    assert max(rates) == pytest.approx(settings.optim.lr)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert 0 <= rates[-1] <= settings.optim.lr * (1 - math.cos(math.pi / rest)) or rest == 1


@given(st.integers(1, 30), st.sampled_from([1, 2, 4]), st.integers(0, 60), st.integers(0, 60))
def test_the_batch_grows_and_no_sequence_is_left_out(start, unit, ramp, after):
    settings = small(batch_size=32, batch_start=start, batch_ramp_steps=ramp, steps=60)
    sizes = [batch_size(step, settings.optim, unit) for step in range(1, 61)]
    assert sizes == sorted(sizes)
    assert all(size % unit == 0 for size in sizes)
    assert sizes[-1] == 32 or ramp >= 60
    first = sum(sizes[:after])
    for step, begin, size in batches(settings.optim, unit, after):
        assert (begin, size) == (first, sizes[step - 1])
        first += size


def test_pieces_of_a_batch_add_up_to_the_batch():
    quiet(small(run_name="whole", dropout=0.0))
    quiet(small(run_name="pieces", dropout=0.0, gradient_accumulation_steps=4))
    assert losses("pieces") == pytest.approx(losses("whole"), abs=1e-5)


def test_half_precision_stays_near():
    quiet(small(run_name="whole", dropout=0.0))
    quiet(small(run_name="half", dropout=0.0, precision="bf16", gradient_checkpointing=True))
    assert losses("half") == pytest.approx(losses("whole"), abs=0.05)


def test_the_log_goes_to_tensorboard_and_to_weights_and_biases():
    quiet(small(steps=3, wandb=True))
    assert list(Path("logs/linear").glob("events.out.tfevents.*"))
    assert list(Path("logs/linear").glob("wandb/offline-run-*/*.wandb"))


def test_a_run_starts_from_anothers_weights():
    quiet(small(run_name="first"))
    quiet(small(run_name="second", resume_from="checkpoints/first/step-00000020", lr=1e-4))
    assert metrics_logger.read(Path("logs/second/metrics.jsonl"))[0]["step"] == 21


BAD = [
    ({"n_heads": 3}, "does not divide"),
    ({"context_len": 10**9}, "has only"),
    ({"precision": "fp16"}, "needs a GPU"),
    ({"resume_from": "nowhere"}, "is no checkpoint"),
    ({"data": "nothing.txt"}, "no such file"),
    ({"data": "some.xyz"}, "is neither"),
    ({"data": "missing.bin"}, "slay data prepare"),
    ({"gradient_accumulation_steps": 3}, "does not divide"),
    ({"attention": "liner"}, "linear"),
    ({"steps": 0}, "steps: 0"),
]


@pytest.mark.parametrize(("changes", "words_said"), BAD)
def test_bad_input_is_one_line_before_any_step(changes, words_said):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in {**SMALL, **changes}.items()]
    done = CliRunner().invoke(main, ["train", *flags])
    assert done.exit_code != 0
    said = [line for line in done.output.splitlines() if line.startswith("Error")]
    assert len(said) == 1
    assert words_said in said[0]
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "word"), [({"lr": 1e-4}, "lr"), ({"attention": "uniform"}, "attention")]
)
def test_a_run_does_not_go_on_with_other_settings(changes, word):
    quiet(small(run_name="run", steps=10))
    with pytest.raises(SlayError, match=word):
        quiet(small(run_name="run", steps=10, **changes))


def test_a_checkpoint_of_another_mechanism_is_refused():
    quiet(small(run_name="run", steps=10))
    with pytest.raises(SlayError, match="attention = linear, not uniform"):
        quiet(small(attention="uniform", resume_from="checkpoints/run"))


def test_a_checkpoint_with_former_names_is_read():
    """Fields of the configuration were renamed; checkpoints and models from before have them."""
    quiet(small(run_name="run", steps=10, tie_head=False))
    path = Path("checkpoints/run/step-00000010")
    model = load(path).state_dict()
    for name, table in (("run.json", "settings"), ("config.json", None)):
        facts = json.loads((path / name).read_text())
        there = facts[table] if table else facts
        for former, today in FORMER.items():
            if today in there:
                there[former] = there.pop(today)
        if table:
            there["untied"] = not there.pop("tie_head")
        (path / name).write_text(json.dumps(facts))
    assert load(path).state_dict().keys() == model.keys()
    said = []
    train(small(run_name="run", steps=10, tie_head=False), progress=said.append)
    assert said[0].startswith("goes on after step 10")
    with pytest.raises(SlayError, match="tie_head = False, not True"):
        quiet(small(run_name="run", steps=10))


def test_flags_give_the_settings_back():
    asked = small(
        zero_stage=3, wandb=True, tie_head=False, options={"num_features": 8}, attention="performer"
    )
    import click

    from slay.pipeline.flags import flags_of

    found = {}
    command = click.Command("x", params=flags_of(TrainConfig), callback=lambda **v: found.update(v))
    command(words(asked), standalone_mode=False)
    assert TrainConfig.of(**with_options(found)) == asked


def test_the_loop_costs_little_beside_the_model(monkeypatch):
    """The loop around a model that computes nothing takes a tenth of the model's time at most."""
    settings = small(
        context_len=128, embed_dim=128, n_layers=2, n_heads=4, batch_size=8, dropout=0.0,
        log_every=10, save_every=0, steps=40, eval_sequences=1,
    )  # fmt: skip
    text = open_text(settings)
    steps = settings.optim.steps

    def bare():
        """The same steps, and nothing else."""
        torch.manual_seed(0)
        engine = SingleProcess(GPT(model_config(settings, text)), settings, torch.device("cpu"))
        inputs = [Batches(text.train, 128, 0).take(8) for _ in range(2)]
        begin = time.process_time()
        for step in range(steps):
            loss = engine.model.loss(*inputs[step % 2])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(engine.model.parameters(), 1.0)
            engine.optimiser.step()
            engine.optimiser.zero_grad()
        return time.process_time() - begin

    class Idle(SingleProcess):
        def loss(self, tokens, targets):
            return torch.zeros(())

        def backward(self, loss):
            pass

        def step(self, lr):
            return 0.0

    def loop(turn, steps):
        begin = time.process_time()
        quiet(TrainConfig.of(**{**dict(settings), "run_name": f"{turn}-{steps}", "steps": steps}))
        return time.process_time() - begin

    least = min(bare() for _ in range(3))
    monkeypatch.setattr("slay.training.language.train.SingleProcess", Idle)
    turns = [(loop(turn, steps), loop(turn, 2 * steps)) for turn in range(5)]
    once, twice = (min(times) for times in zip(*turns, strict=True))
    print(f"bare {least:.3f} s, loop {twice - once:.3f} s for {steps} steps")
    assert twice - once <= 0.1 * least


def test_evaluation_asks_for_every_target_once():
    settings = small(eval_sequences=0, context_len=64)
    text = open_text(settings)
    torch.manual_seed(0)
    engine = SingleProcess(GPT(model_config(settings, text)), settings, torch.device("cpu"))
    seen = []
    real = engine.loss

    def counted(tokens, targets):
        seen.append(int((targets >= 0).sum()))
        return real(tokens, targets)

    engine.loss = counted
    cut = Tokens(text.validation.facts, text.validation.row[:3001])
    nats = evaluate(engine, cut, settings)
    assert sum(seen) == 3000
    assert nats == pytest.approx(math.log(257), rel=0.05)  # before any training
