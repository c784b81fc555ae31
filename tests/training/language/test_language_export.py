"""A trained model outside of its training: files without code, text at a constant cost a token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from slay.cli import main
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig, load, save
from slay.training.language.config import TrainConfig
from slay.training.language.train import train

LINEAR = ["linear", "yat-performer-anchor", "yat-quadratic", "uniform"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    settings = TrainConfig.of(
        attention="yat-quadratic", embed_dim=16, n_layers=2, n_heads=2, context_len=48,
        batch_size=4, warmup=1, steps=4, eval_sequences=2, device="cpu",
        run_name="run", checkpoint_dir=str(folder / "c"), log_dir=str(folder / "l"), short_conv=3,
    )  # fmt: skip
    train(settings, progress=lambda line: None)
    return folder / "c" / "run"


def invoke(*words):
    return CliRunner().invoke(main, list(map(str, words)))


def test_an_exported_model_loads_and_continues_text(trained, tmp_path):
    out = tmp_path / "model"
    assert invoke("export", trained, "--out", out).exit_code == 0
    assert set(load_file(out / "model.safetensors")) >= {"token.weight"}
    tokens = torch.randint(256, (2, 20))
    original = load(next(trained.iterdir()))
    assert torch.equal(load(out)(tokens), original(tokens))
    texts = [invoke("generate", out, "--prompt", "import ", "--max-new-tokens", 20) for _ in "ab"]
    assert texts[0].exit_code == 0, texts[0].output
    assert texts[0].output == texts[1].output
    assert texts[0].output.startswith("import ")
    other = invoke("generate", out, "--prompt", "import ", "--max-new-tokens", 20, "--seed", 1)
    assert other.output != texts[0].output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-new-tokens", "100"], "48 positions"),
        (["--top-p", "2"], "top_p"),
        (["--temperature", "-1"], "temperature"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(trained, tmp_path, words, said):
    invoke("export", trained, "--out", tmp_path / "model")
    done = invoke("generate", tmp_path / "model", *words)
    assert done.exit_code == 1
    assert said in done.output.splitlines()[-1]


def test_folders_without_a_model_are_named(tmp_path):
    for command in (["generate", tmp_path], ["export", tmp_path, "--out", tmp_path / "out"]):
        done = invoke(*command)
        assert done.exit_code == 1
        assert str(tmp_path) in done.output
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save(GPT(GPTConfig(vocab_size=7, n_layers=1, n_heads=1, embed_dim=4)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "embed_dim": 8}))
    with pytest.raises(SlayError, match="do not fit"):
        load(tmp_path)


@pytest.mark.parametrize("tie_head", [True, False])
def test_a_head_is_saved_tied_or_not(tie_head, tmp_path):
    config = GPTConfig(vocab_size=7, n_layers=1, n_heads=1, embed_dim=4, tie_head=tie_head)
    model = GPT(config).eval()
    save(model, tmp_path)
    again = load(tmp_path)
    tokens = torch.randint(7, (1, 5))
    assert torch.equal(again(tokens), model(tokens))
    assert (again.head.weight is again.token.weight) is tie_head


@pytest.mark.parametrize("attention", LINEAR)
def test_a_token_costs_the_same_after_any_context(attention):
    config = GPTConfig(
        vocab_size=11, n_layers=1, n_heads=2, embed_dim=16, attention=attention, positions="rotary"
    )
    model = GPT(config).eval()
    costs, sizes = [], []
    for context in (8, 64):
        with torch.no_grad():
            _, state = model(torch.randint(11, (1, context)), output_final_state=True)
            with FlopCounterMode(display=False) as counter:
                model.step(torch.zeros(1, dtype=torch.int64), state)
        costs.append(counter.get_total_flops())
        sizes.append(sum(t.numel() for s in state for t in s if isinstance(t, torch.Tensor)))
    assert costs[0] == costs[1] > 0
    assert sizes[0] == sizes[1]
    assert Path(model.config.attention).name == attention
