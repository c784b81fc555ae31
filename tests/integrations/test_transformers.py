"""Models of transformers with slay's attention: PyTorch's logits, every mode, what is refused."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
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
    StaticCache,
    T5Config,
    T5ForConditionalGeneration,
    masking_utils,
)

import slay
from slay.attention.exact import ExactAttention
from slay.errors import SlayError
from slay.integrations.masks import mask
from slay.integrations.transformers import register
from slay.registry import ATTENTION

VOCAB = 31
LLAMA = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"num_hidden_layers": 2, "intermediate_size": 48, "initializer_range": 0.3}
GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "initializer_range": 0.3}
GPT2 |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
BERT = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
BERT |= {"intermediate_size": 48, "initializer_range": 0.3}
BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.3}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
T5 = {"d_model": 32, "d_kv": 8, "num_layers": 1, "num_heads": 4, "d_ff": 48}
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
    "bert": (BertForMaskedLM, BertConfig, BERT),
    "bart": (BartForConditionalGeneration, BartConfig, BART),
    "mistral": (MistralForCausalLM, MistralConfig, LLAMA),
    "t5": (T5ForConditionalGeneration, T5Config, T5),
}
NAMES = ["standard", "yat-spherical", "linear", "yat-performer-anchor", "yat-quadratic"]
every_mechanism = pytest.mark.parametrize("name", slay.list_attention_types())


def build(kind="llama", attention="slay:yat-quadratic", **settings):
    """A small model with random weights, large enough for attention to matter."""
    cls, config, sizes = KINDS[kind]
    torch.manual_seed(0)
    tokens = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
    return cls._from_config(
        config(**{**tokens, **sizes, **settings}), attn_implementation=attention
    ).eval()


def draw(batch, length, seed=0):
    return torch.randint(2, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def ragged():
    """(2, 9): the first row is padded on the left, the second on the right."""
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = mask[1, 7:] = 0
    return mask


def qkv(length=9, head_dim=8):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(2, n, length, head_dim, generator=draw) for n in (4, 2, 2)]


def assert_close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "bart"])
@torch.no_grad()
def test_standard_attention_gives_the_logits_of_pytorchs(kind, padded):
    model, real = build(kind, "sdpa"), ragged() if padded else torch.ones(2, 9, dtype=torch.long)
    inputs = {"input_ids": draw(2, 9), "attention_mask": real if padded else None}
    if kind == "bart":
        inputs["decoder_input_ids"], real = draw(2, 5, seed=1), torch.ones(2, 5)
    expected = model(**inputs).logits[real.bool()]
    model.set_attn_implementation("slay:standard")
    assert_close(model(**inputs).logits[real.bool()], expected)
    model.set_attn_implementation("slay:yat-quadratic")
    assert (model(**inputs).logits[real.bool()] - expected).norm() > 0.05 * expected.norm()


@torch.no_grad()
def test_a_decoder_can_be_asked_to_look_both_ways():
    model, inputs = build("llama", "sdpa"), {"input_ids": draw(2, 9), "is_causal": False}
    expected = model(**inputs).logits
    model.set_attn_implementation("slay:standard")
    assert_close(model(**inputs).logits, expected)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_packed_sequences_are_separate_ones(name):
    model, tokens = build(attention=f"slay:{name}"), draw(2, 9)
    lengths = [[4, 2, 3], [9]]
    position = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    packed = model(tokens, position_ids=position, use_cache=False).logits
    for row, found, sizes in zip(tokens, packed, lengths, strict=True):
        parts = [model(part[None]).logits[0] for part in row.split(sizes)]
        assert_close(found, torch.cat(parts))
    bounds = torch.tensor([0, 4, 6, 9], dtype=torch.int32)
    row = {"input_ids": tokens[:1], "position_ids": position[:1], "use_cache": False}
    alone = model(**row, cu_seq_lens_q=bounds, cu_seq_lens_k=bounds).logits
    assert_close(alone, packed[:1])


@every_mechanism
def test_every_mechanism_trains_and_takes_no_notice_of_padding(name):
    model, tokens, real = build(attention=f"slay:{name}").train(), draw(2, 9), ragged()
    other = torch.where(real == 1, tokens, draw(2, 9, seed=1))
    logits = model(tokens, attention_mask=real).logits
    assert_close(model(other, attention_mask=real).logits[real == 1], logits[real == 1])
    F.cross_entropy(logits[real == 1], tokens[real == 1]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for p in model.parameters() if name != "uniform")


@every_mechanism
@torch.no_grad()
def test_pieces_with_a_cache_give_the_logits_of_one_pass(name):
    model, tokens, real = build(attention=f"slay:{name}"), draw(2, 9), ragged()
    whole = model(tokens, attention_mask=real).logits
    past, logits = None, []
    for lo, hi in ((0, 2), (2, 8), (8, 9)):
        piece = model(tokens[:, lo:hi], attention_mask=real[:, :hi], past_key_values=past)
        past = piece.past_key_values
        logits.append(piece.logits)
    assert_close(torch.cat(logits, dim=1)[real == 1], whole[real == 1], 1e-3)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", NAMES)
def test_generation_with_a_cache_is_that_of_reading_everything_again(name, cache):
    model, tokens, real = build(attention=f"slay:{name}"), draw(2, 5), torch.ones(2, 5).long()
    real[0, :3] = 0
    settings = {"attention_mask": real, "max_new_tokens": 10, "do_sample": False}
    expected = model.generate(tokens, use_cache=False, **settings)
    assert torch.equal(model.generate(tokens, cache_implementation=cache, **settings), expected)
    alone = model.generate(tokens[:1, 3:], max_new_tokens=10, do_sample=False)
    assert torch.equal(alone[0, 2:], expected[0, 5:])
    assert len(expected[:, 5:].unique()) > 2


@torch.no_grad()
def test_a_static_cache_is_as_long_as_what_was_read():
    model, tokens = build(), draw(2, 9)
    cache = StaticCache(model.config, max_cache_len=20)
    pieces = [model(part, past_key_values=cache).logits for part in tokens.split([4, 5], dim=1)]
    assert_close(torch.cat(pieces, dim=1), model(tokens).logits)


def test_a_cache_that_keeps_a_window_alone_gives_pytorchs_tokens():
    model, real = build("mistral", "sdpa", sliding_window=8), torch.ones(2, 5, dtype=torch.long)
    real[0, :3] = 0
    settings = {"attention_mask": real, "max_new_tokens": 12, "do_sample": False}
    expected = model.generate(draw(2, 5), **settings)
    model.set_attn_implementation("slay:standard")
    assert torch.equal(model.generate(draw(2, 5), **settings), expected)


def test_an_encoder_is_attended_to_at_every_step():
    model, settings = build("bart"), {"attention_mask": ragged(), "max_new_tokens": 8}
    expected = model.generate(draw(2, 9), use_cache=False, **settings)
    assert torch.equal(model.generate(draw(2, 9), **settings), expected)
    assert len(expected.unique()) > 2


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_learns_a_repeated_sequence(kind):
    model, losses = build(kind, initializer_range=0.02).train(), []
    tokens = torch.tensor([3, 2, 4, 2, 5, 9, 7, 6]).repeat(2, 3)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        loss = model(tokens, labels=tokens).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_gives_equal_gradients(name):
    dropout = 0.3 if name == "standard" else 0.0
    model = build(attention=f"slay:{name}", attention_dropout=dropout).train()
    gradients, calls = [], []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(0))
    for again in (False, True):
        if again:
            model.activation_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(1)
        model(draw(2, 9), labels=draw(2, 9), use_cache=False).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(calls) == 1 + 2
    assert_close(*gradients, 1e-5)


def test_dropout_is_for_training():
    model, tokens = build(attention="slay:standard", attention_dropout=0.5), draw(2, 9)
    logits = model(tokens).logits
    assert torch.equal(model(tokens).logits, logits)
    assert not torch.allclose(model.train()(tokens).logits, logits)


def test_features_are_drawn_once_a_layer_and_serve_training_after_inference(monkeypatch):
    cls, draws = slay.get_attention_class("yat-performer"), []
    heads_only = cls.heads_only
    monkeypatch.setattr(cls, "heads_only", lambda *a, **o: draws.append(o) or heads_only(*a, **o))
    model = build(attention=register("yat-performer"))
    with torch.inference_mode():
        logits = model(draw(2, 9)).logits
    loss = model.train()(draw(2, 9), labels=draw(2, 9))
    loss.loss.backward()
    assert_close(loss.logits, logits)
    assert [options["seed"] for options in draws] == [0, 1]


@torch.no_grad()
def test_a_saved_model_comes_back_with_the_features_it_had(tmp_path):
    model, tokens = build(attention="slay:yat-performer-anchor"), draw(2, 9)
    model.save_pretrained(tmp_path)
    register("yat-performer-anchor")  # and draws anew
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="slay:yat-performer-anchor"
    )
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    assert not any("slay" in key or "anchor" in key for key in model.state_dict())


@pytest.mark.parametrize("half", ["autocast", "model"])
def test_half_precision_stays_near(half):
    model, tokens = build(), draw(2, 9)
    exact = model(tokens).logits
    if half == "model":
        model.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half == "autocast"):
        found = model(tokens, use_cache=False).logits  # v in half precision, q and k not
    found.sum().backward()
    assert found.dtype == torch.bfloat16
    assert (found - exact).norm() < 0.1 * exact.norm()


@pytest.fixture
def outside():
    @slay.register_attention("distance")
    class Distance(ExactAttention):
        kernel, nonnegative, paper = r"e^{-|q-k|^2}", True, ""

        def pairs(self, q, k):
            return (-torch.cdist(q, k).square()).exp()

    before = [dict(table._global_mapping) for table in (AttentionInterface, AttentionMaskInterface)]
    yield Distance
    for table, names in zip((AttentionInterface, AttentionMaskInterface), before, strict=True):
        table._global_mapping.clear()
        table._global_mapping.update(names)
    for table in (ATTENTION._paths, ATTENTION._objects, ATTENTION._plugs):
        del table["distance"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("distance", {}),
        ("linear", {}),
        ("yat-spherical", {"epsilon": 0.5}),
        ("yat-performer-anchor", {"seed": 5, "poly_dim": 4}),
    ],
)
@pytest.mark.parametrize("causal", [True, False])
def test_what_is_registered_is_the_mechanism_with_its_options(outside, name, options, causal):
    q, k, v = qkv()
    register("uniform", name="mine")
    implementation = register(name, name="mine", **options)
    assert implementation == "slay:mine"
    for layer in (0, 3):
        module = SimpleNamespace(is_causal=causal, layer_idx=layer)
        y, weights = AttentionInterface()[implementation](module, q, k, v, None, scaling=8**-0.5)
        seed = options.get("seed", 0) + layer
        expected = slay.attend(q, k, v, name, causal=causal, **{**options, "seed": seed})
        assert torch.equal(y, expected.transpose(1, 2))
        assert weights is None
    assert build(attention=implementation)(draw(2, 9)).logits.isfinite().all()


def test_scaling_is_that_of_the_exponent():
    q, k, v = qkv()
    standard = AttentionInterface()["slay:standard"]
    y, _ = standard(SimpleNamespace(is_causal=True), q, k, v, None, scaling=0.7)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7, enable_gqa=True)
    assert_close(y, expected.transpose(1, 2), 1e-5)


def test_a_module_must_say_whether_it_is_causal():
    with pytest.raises(SlayError, match="does not say whether it is_causal"):
        AttentionInterface()["slay:linear"](SimpleNamespace(), *qkv())


def functions():
    chunks = masking_utils.chunked_causal_mask_function(4, torch.tensor([0, 2]))
    return {
        "causal": (masking_utils.causal_mask_function, [0, 9, 18]),
        "chunked": (chunks, [0, 4, 8, 9, 11, 15, 18]),
        "wide window": (masking_utils.sliding_window_causal_mask_function(9), [0, 9, 18]),
    }


@pytest.mark.parametrize("name", functions())
def test_boundaries_say_what_the_mask_function_says(name):
    function, bounds = functions()[name]
    sizes = {"batch_size": 2, "q_length": 9, "kv_length": 9, "mask_function": function}
    expected = masking_utils.sdpa_mask(**sizes, allow_is_causal_skip=False)[:, 0]
    order = torch.bucketize(torch.arange(18), torch.tensor(bounds), right=True).view(2, 9)
    same = order[:, :, None] == order[:, None, :]
    assert torch.equal(same & torch.ones(9, 9).tril().bool(), expected)
    found = mask(**sizes)
    assert found is None if name != "chunked" else found.tolist() == bounds


def dilated(batch, head, i, j):
    return (j <= i) & ((i - j) % 2 == 0)


def with_sink(batch, head, i, j):
    return (j <= i) & ((i - j < 3) | (j == 0))


def test_a_wide_window_is_none_where_all_see_all():
    sizes = {"batch_size": 2, "q_length": 9, "kv_length": 9, "allow_is_bidirectional_skip": True}
    window = masking_utils.sliding_window_bidirectional_mask_function
    assert mask(**sizes, mask_function=window(8)) is None
    with pytest.raises(SlayError, match="sliding_window=None"):
        mask(**sizes, mask_function=window(7))


def leaking(batch, head, i, j):
    return (j <= i) & ((i // 4 == j // 4) | ((i % 4 == 2) & (j % 4 == 3)))


def blocks_look_ahead(batch, head, i, j):
    return (j <= i) | (i // 3 == j // 3)


def all_look_ahead(batch, head, i, j):
    return (i >= 0) & (j >= 0)


CHUNKS = masking_utils.chunked_causal_mask_function(4, torch.tensor([2]))
SHORT = masking_utils.sliding_window_causal_mask_function(3)


@pytest.mark.parametrize(
    ("function", "q_offset", "words"),
    [
        (masking_utils.sliding_window_causal_mask_function(8), 0, "over 9 tokens"),
        (masking_utils.sliding_window_causal_mask_function(8), 4, "over 13 tokens"),
        (masking_utils.sliding_window_bidirectional_mask_function(3), 0, "sliding_window=None"),
        (blocks_look_ahead, 0, "neither causal"),
        (all_look_ahead, 0, "neither causal"),
        (masking_utils.and_masks(CHUNKS, SHORT), 0, "neither causal"),
        (leaking, 0, "neither causal"),
        (dilated, 0, "neither causal"),
        (with_sink, 0, "neither causal"),
    ],
)
def test_masks_of_another_pattern_are_refused(function, q_offset, words):
    sizes = {"batch_size": 1, "q_length": 9, "kv_length": 9 + q_offset, "q_offset": q_offset}
    with pytest.raises(SlayError, match=words) as caught:
        mask(**sizes, mask_function=function)
    assert "\n" not in str(caught.value)
    with pytest.raises(SlayError, match="a mask of its own"):
        mask(**sizes, mask_function=function, use_vmap=True)


BOUNDS = torch.tensor([0, 9])
PACKED = {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]), "use_cache": False}


def past(model, tokens):
    return model(tokens[:, :4]).past_key_values


@pytest.mark.parametrize(
    ("kind", "settings", "call", "words"),
    [
        ("mistral", {"sliding_window": 8}, {}, "sliding_window=None"),
        ("llama", {"attention_dropout": 0.1}, {}, r"dropout of 0\.1: QuadraticAttention forms no"),
        ("llama", {}, {"attention_mask": torch.ones(2, 1, 9, 9)}, r"shape \(2, 1, 9, 9\)"),
        ("llama", {}, {"output_attentions": True}, "cannot honour output_attentions"),
        ("llama", {}, {"past_key_values": past, "attention_mask": ragged()}, "9 tokens, but .* 13"),
        ("llama", {}, {"cu_seq_lens_q": BOUNDS, "use_cache": False}, "from 0 to the length 18"),
        ("llama", {}, {"cu_seq_lens_q": BOUNDS, "cu_seq_lens_k": BOUNDS + 1}, "slay packs both"),
        ("llama", {}, {"cu_seq_lens_q": BOUNDS, "attention_mask": ragged()}, "and padding exclude"),
        ("llama", {}, {"cu_seq_lens_q": BOUNDS, **PACKED}, r"begin anew at \[0, 4, 9, 13, 18\]"),
        ("t5", {}, {"decoder_input_ids": draw(2, 3)}, "cannot honour position_bias"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_line(kind, settings, call, words):
    model, tokens = build(kind, **settings), draw(2, 9)
    call = {name: f(model, tokens) if callable(f) else f for name, f in call.items()}
    with pytest.raises(SlayError, match=words) as caught:
        model.train()(tokens, **call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("yat-quadratik", {}, "did you mean 'yat-quadratic'"),
        ("yat-spherical", {"epsilonn": 1.0}, "did you mean 'epsilon'"),
        ("standard", {"dropout": 0.1}, "dropout follows from the model"),
        ("standard", {"n_kv_heads": 2}, "n_kv_heads follows from the model"),
    ],
)
def test_registering_refuses_what_it_does_not_know(name, options, words):
    with pytest.raises(SlayError, match=words) as caught:
        register(name, name="mine", **options)
    assert "\n" not in str(caught.value)
    assert "slay:mine" not in AttentionInterface()


def test_a_mechanism_that_must_be_trained_is_refused(outside):
    model = build(attention=register("yat-cubic", name="mine", project_dim=4))
    with pytest.raises(SlayError, match="trains its projection"):
        model(draw(2, 9))


def test_transformers_is_imported_only_when_asked_for():
    program = """
import sys, slay
slay.attend, slay.list_attention_types()
assert "transformers" not in sys.modules
sys.modules["transformers"] = None
try:
    import slay.integrations.transformers
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pip install 'slay-attention[transformers]'" in said
