"""Stock models of Hugging Face, with random weights, under slay's mechanisms."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import slay
from slay.attention.exact import ExactAttention
from slay.errors import SlayError, UnknownNameError
from slay.integrations.transformers import register
from slay.registry import ATTENTION

NAMES = slay.list_attention_types()
SOME = ["standard", "yat-spherical", "linear", "yat-performer-anchor", "yat-quadratic"]
VOCAB = 31
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 64}
LLAMA = {**BERT, "num_key_value_heads": 2}
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4}
GPT2 |= {"n_positions": 64, "attn_pdrop": 0.0}
BART = {
    "vocab_size": VOCAB, "d_model": 32, "max_position_embeddings": 64,
    **{f"{side}_{what}": size for side in ("encoder", "decoder")
       for what, size in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 48))},
}  # fmt: skip
T5 = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "num_layers": 1, "num_heads": 4, "d_ff": 48}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
    "bert": (BertForMaskedLM, BertConfig, BERT),
    "bart": (BartForConditionalGeneration, BartConfig, BART),
    "t5": (T5ForConditionalGeneration, T5Config, T5),
    "mistral": (MistralForCausalLM, MistralConfig, LLAMA),
}
NO_END = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


def build(kind, attention, **settings):
    """A model whose weights are large enough for attention to matter."""
    cls, config, sizes = MODELS[kind]
    torch.manual_seed(0)
    model = cls._from_config(
        config(**{**sizes, **NO_END, **settings}), attn_implementation=attention
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def draw(batch, length, seed=0):
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(length, *pads):
    """attention_mask: (B, L); that many tokens of a row are padding, on the right if negative."""
    place = torch.arange(length)
    rows = [place >= pad if pad >= 0 else place < length + pad for pad in pads]
    return torch.stack(rows).long()


def assert_near(found, expected, tolerance=1e-5):
    assert found.isfinite().all()
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "bart"])
@torch.no_grad()
def test_standard_is_pytorchs_own_attention(kind):
    theirs, ours = build(kind, "sdpa"), build(kind, "slay:standard")
    tokens = draw(3, 9)
    assert_near(ours(tokens).logits, theirs(tokens).logits)
    mask = padded(9, -3, 4, 2)
    found, expected = (model(tokens, attention_mask=mask).logits for model in (ours, theirs))
    real = mask.bool()
    if kind != "bart":  # its decoder reads its own tokens, all of them real
        found, expected = found[real], expected[real]
    assert_near(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_mechanism_runs_and_trains(name):
    model, tokens = build("llama", f"slay:{name}").train(), draw(2, 11)
    model(tokens, labels=tokens).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", SOME)
@torch.no_grad()
def test_the_future_does_not_matter_and_padding_neither(name):
    model, tokens = build("llama", f"slay:{name}"), draw(2, 10)
    whole = model(tokens).logits
    assert_near(model(tokens[:, :6]).logits, whole[:, :6])
    left, positions = padded(10, 4, 1), torch.arange(10).expand(2, 10)
    found = model(tokens, attention_mask=left, position_ids=positions).logits
    other = torch.where(left.bool(), tokens, draw(2, 10, seed=1))
    assert_near(
        model(other, attention_mask=left, position_ids=positions).logits[left.bool()],
        found[left.bool()],
    )
    alone = model(tokens[:1, 4:], position_ids=positions[:1, 4:]).logits
    assert_near(found[:1, 4:], alone, 1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_learns_a_repeated_sequence(kind):
    torch.manual_seed(0)
    cls, config, sizes = MODELS[kind]
    model = cls._from_config(config(**sizes, **NO_END), attn_implementation="slay:yat-quadratic")
    tokens = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]).repeat(2, 3)
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(40):
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("cache", [None, "static"])
def test_generation_with_a_cache_is_that_without(name, cache):
    model, tokens, mask = build("llama", f"slay:{name}"), draw(2, 7), padded(7, 3, 0)
    settings = {"max_new_tokens": 6, "do_sample": False, "attention_mask": mask}
    expected = model.generate(tokens, use_cache=False, **settings)
    assert torch.equal(model.generate(tokens, cache_implementation=cache, **settings), expected)
    assert len(expected[:, 7:].unique()) > 1


@torch.no_grad()
@pytest.mark.parametrize("name", SOME)
def test_packed_sequences_are_separate_ones(name):
    model, lengths = build("llama", f"slay:{name}"), [3, 1, 6]
    tokens = draw(1, sum(lengths))
    positions = torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0)
    packed = model(tokens, position_ids=positions, use_cache=False).logits
    separate = [model(part).logits for part in tokens.split(lengths, dim=1)]
    assert_near(packed, torch.cat(separate, dim=1), 1e-4)


@pytest.mark.parametrize("name", ["standard", "yat-performer-anchor"])
def test_gradient_checkpointing_gives_equal_gradients(name):
    gradients, tokens = [], draw(2, 9)
    for again in (False, True):
        model = build("llama", f"slay:{name}").train()
        if again:
            model.activation_checkpointing_enable()
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(tmp_path):
    model, tokens = build("llama", "slay:yat-performer-anchor"), draw(2, 8)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="slay:yat-performer-anchor"
    )
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


@pytest.fixture
def registered():
    """Registers implementations and mechanisms for one test."""
    known = [set(AttentionInterface._global_mapping), set(ATTENTION._paths)]
    yield register
    for name in set(AttentionInterface._global_mapping) - known[0]:
        del AttentionInterface._global_mapping[name], AttentionMaskInterface._global_mapping[name]
    for name in set(ATTENTION._paths) - known[1]:
        for table in (ATTENTION._paths, ATTENTION._objects, ATTENTION._plugs):
            del table[name]


@torch.no_grad()
def test_options_and_mechanisms_from_outside(registered):
    @slay.register_attention("distance")
    class Distance(ExactAttention):
        kernel, nonnegative, paper = "", True, ""

        def pairs(self, q, k):
            return (-torch.cdist(q, k).square()).exp()

    assert registered("distance") == "slay:distance"
    assert registered("yat-spherical", name="soft", epsilon=0.5) == "slay:soft"
    tokens = draw(1, 8)
    logits = [
        build("llama", f"slay:{name}")(tokens).logits
        for name in ("distance", "soft", "yat-spherical")
    ]
    assert all(not torch.allclose(logits[i], logits[i - 1]) for i in range(3))


def ask(kind, attention="slay:yat-quadratic", *, train=False, settings=None, **arguments):
    """A call that a model makes, as a function."""
    tokens = {"input_ids": draw(2, 9)}
    if kind in ("t5", "bart"):
        tokens["decoder_input_ids"] = draw(2, 5)
    return lambda: build(kind, attention, **(settings or {})).train(train)(**tokens, **arguments)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ask("mistral", settings={"sliding_window": 4}), "sliding window"),
        (ask("llama", train=True, settings={"attention_dropout": 0.1}), "dropout of 0.1"),
        (ask("t5"), "cannot honour position_bias"),
        (ask("llama", attention_mask=torch.zeros(2, 1, 9, 9)), "expected (B, L)"),
        (ask("llama", output_attentions=True), "output_attentions"),
        (lambda: register("yat-quadratic", n_kv_heads=2), "n_kv_heads follows from the model"),
        (lambda: register("yat-quadratic", betta=2), "did you mean 'beta'"),
        (lambda: register("yat-quadratik"), "did you mean 'yat-quadratic'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_line(call, words):
    with pytest.raises((SlayError, UnknownNameError, TypeError)) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_slay_alone_does_not_load_transformers():
    code = (
        "import slay, sys; slay.get_attention_class('linear'); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
