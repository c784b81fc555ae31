"""A GPT is the same function in one pass, token by token, packed, padded and checkpointed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slay.activations import YatLinear
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig, sample
from slay.registry import get_attention_class
from slay.training.adamw import AdamW

NAMES = ["standard", "yat-spherical", "linear", "cosformer", "yat-performer-anchor"]
NAMES += ["yat-quadratic"]
OF_COSINES = ["standard", "yat-spherical", "yat-quadratic"]  # rotary positions are relative there
KINDS = {
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary", "n_kv_heads": 1, "short_conv": 3, "bias": True},
}
VOCAB = 11
every_model = pytest.mark.parametrize(
    ("attention", "kind"), [(name, kind) for name in NAMES for kind in KINDS]
)


def config(attention="linear", kind="learned", **settings):
    sizes = {"vocab_size": VOCAB, "context_len": 24, "n_layers": 2, "n_heads": 2, "embed_dim": 16}
    return GPTConfig(**{**sizes, "attention": attention, **KINDS[kind], **settings})


def gpt(attention="linear", kind="learned", **settings):
    """A model in float64 whose weights are large enough for every part to matter."""
    torch.manual_seed(0)
    model = GPT(config(attention, kind, **settings)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


def draw(batch, length, seed=0):
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@every_model
@torch.no_grad()
def test_steps_and_pieces_give_the_logits_of_one_pass(attention, kind):
    model, tokens = gpt(attention, kind), draw(2, 12)
    whole, final = model(tokens, output_final_state=True)
    state = None
    for i in range(12):
        logits, state = model.step(tokens[:, i], state)
        assert_close(logits, whole[:, i])
    first, state = model(tokens[:, :5], output_final_state=True)
    rest, state = model(tokens[:, 5:], state=state, output_final_state=True)
    assert_close(torch.cat((first, rest), dim=1), whole)
    assert (
        [s.length.tolist() for s in state] == [s.length.tolist() for s in final] == [[12, 12]] * 2
    )


@every_model
@torch.no_grad()
def test_generation_is_that_of_reading_everything_again(attention, kind):
    model, tokens = gpt(attention, kind, tie_head=False), draw(3, 4)
    expected = tokens
    for _ in range(10):
        expected = torch.cat((expected, model(expected)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(model.generate(tokens, 10, temperature=0.0), expected)
    assert len(expected[:, 4:].unique()) > 2
    assert torch.equal(model.generate(tokens, 0), tokens)


@every_model
@torch.no_grad()
def test_packed_sequences_are_separate_ones(attention, kind):
    model, lengths = gpt(attention, kind), [3, 1, 8]
    tokens, more = draw(1, sum(lengths)), draw(3, 1, seed=1)[:, 0]
    bounds = torch.tensor([0, 3, 4, 12])
    packed, state = model(tokens, cu_seqlens=bounds, output_final_state=True)
    after, _ = model.step(more, state)
    for i, part in enumerate(tokens.split(lengths, dim=1)):
        alone, own = model(part, output_final_state=True)
        assert_close(packed[:, bounds[i] : bounds[i + 1]], alone)
        assert_close(after[i : i + 1], model.step(more[i : i + 1], own)[0])
    further = draw(1, 6, seed=2)
    resumed = model(further, cu_seqlens=[0, 1, 4, 6], state=state)
    separate = [
        model(torch.cat((old, new), dim=1))[:, old.shape[1] :]
        for old, new in zip(
            tokens.split(lengths, dim=1), further.split([1, 3, 2], dim=1), strict=True
        )
    ]
    assert_close(resumed, torch.cat(separate, dim=1))


@every_model
@torch.no_grad()
def test_what_padding_says_does_not_matter(attention, kind):
    model, tokens = gpt(attention, kind), draw(2, 9)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[0, :4] = padding[1, 7:] = True
    found = model(tokens, key_padding_mask=padding)
    other = model(torch.where(padding, draw(2, 9, seed=1), tokens), key_padding_mask=padding)
    assert found.isfinite().all()
    assert_close(found[~padding], other[~padding])
    assert_close(found[1, :7], model(tokens[1:, :7])[0])


@pytest.mark.parametrize("attention", OF_COSINES)
@torch.no_grad()
def test_left_padding_does_not_matter_where_rotary_positions_are_relative(attention):
    model, tokens, more = gpt(attention, "rotary"), draw(2, 9), draw(2, 1, seed=1)[:, 0]
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[0, :4] = True
    padded, state = model(tokens, key_padding_mask=padding, output_final_state=True)
    alone, own = model(tokens[:1, 4:], output_final_state=True)
    assert_close(padded[:1, 4:], alone, 1e-4)  # angles are in float32
    assert_close(model.step(more, state)[0][:1], model.step(more[:1], own)[0], 1e-4)


@pytest.mark.parametrize("attention", ["linear", "cosformer", "yat-quadratic"])
@torch.no_grad()
def test_a_linear_mechanism_carries_as_much_after_many_tokens_as_after_few(attention):
    model = gpt(attention, "rotary")
    sizes = [
        [tuple(m.shape) for s in model(draw(1, n), output_final_state=True)[1] for m in s.memory]
        for n in (1, 24)
    ]
    assert sizes[0] == sizes[1]


@torch.no_grad()
def test_rotary_positions_go_on_beyond_the_block():
    model = gpt("linear", "rotary", tie_head=False)
    tokens = model.generate(draw(1, 20), 30, temperature=0.0)
    assert tokens.shape == (1, 50)
    assert torch.equal(model(tokens[:, :-1])[:, 19:].argmax(-1), tokens[:, 20:])


@torch.no_grad()
def test_learned_positions_end_with_the_block():
    model, tokens = gpt("linear", "learned"), draw(2, 25)
    assert model.generate(tokens[:, :20], 5).shape == (2, 25)
    full = model(tokens[:, :24], output_final_state=True)[1]
    for call, reach in (
        (lambda: model(tokens), 25),
        (lambda: model.step(tokens[:, 24], full), 25),
        (lambda: model.generate(tokens[:, :20], 6), 25),
    ):
        with pytest.raises(SlayError, match=f"{reach} tokens are more than context_len = 24"):
            call()
    assert model(draw(1, 40), cu_seqlens=[0, 20, 40]).shape == (1, 40, VOCAB)


@pytest.mark.parametrize("attention", ["standard", "yat-performer-anchor"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_computes_blocks_again_and_gives_equal_gradients(attention, dropout):
    tokens, gradients, calls = draw(2, 13), [], []
    for again in (False, True):
        model = gpt(attention, "rotary", checkpoint=again, dropout=dropout).train()
        model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(0))
        torch.manual_seed(1)
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(calls) == 1 + 2
    assert_close(*gradients)


@pytest.mark.parametrize("mlp", ["gelu", "yat"])
@pytest.mark.parametrize(
    ("attention", "kind"), [("standard", "learned"), ("yat-quadratic", "rotary")]
)
def test_it_learns_a_repeated_sequence(attention, kind, mlp):
    torch.manual_seed(0)
    model = GPT(config(attention, kind, mlp=mlp))
    tokens = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]).repeat(2, 3)
    optimiser, losses = AdamW(model.parameters()), []
    for _ in range(60):
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimiser.step(1e-2)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(VOCAB).log().item(), abs=0.3)
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(model.generate(tokens[:, :8], 8, temperature=0.0), tokens[:, :16])


def test_loss_asks_nothing_where_the_target_is_minus_100():
    model, tokens, targets = gpt(), draw(2, 6), draw(2, 6, seed=1)
    targets[0, :3] = -100
    p = model(tokens).log_softmax(-1)
    asked = [(i, j) for i in range(2) for j in range(6) if targets[i, j] >= 0]
    expected = -sum(p[i, j, targets[i, j]] for i, j in asked) / len(asked)
    assert_close(model.loss(tokens, targets), expected)


@pytest.mark.parametrize("tie_head", [True, False])
@torch.no_grad()
def test_state_dict_holds_everything(tie_head):
    first = gpt("yat-performer-anchor", mlp="yat", tie_head=tie_head, seed=1)
    second = GPT(config("yat-performer-anchor", mlp="yat", tie_head=tie_head, seed=9)).double()
    tokens = draw(2, 7)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tokens), second(tokens))
    assert (second.head.weight is second.token.weight) == tie_head


def test_parameters_are_counted_once():
    embedding, position, norms = VOCAB * 16, 24 * 16, 5 * 16
    blocks = 2 * (4 * 16 * 16 + 2 * 16 * 64)
    tied = embedding + position + norms + blocks
    assert GPT(config()).num_parameters == tied
    assert GPT(config(tie_head=False)).num_parameters == tied + embedding
    assert GPT(config(mlp="yat")).num_parameters == tied + 2  # a scale a layer


def test_weights_start_as_in_gpt_2():
    torch.manual_seed(0)
    model = GPT(config("linear", "rotary", embed_dim=128, n_layers=8, mlp="gelu"))
    yat = GPT(config("linear", "rotary", embed_dim=128, n_layers=8, mlp="yat"))
    block = model.blocks[3]
    for weight in (model.token.weight, block.attention.qkv.weight, block.mlp.up.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    for weight in (block.attention.out.weight, block.mlp.down.weight):
        assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert yat.blocks[3].mlp.up.weight.std().item() == pytest.approx(1.0, rel=0.1)
    assert all(
        not m.bias.any()
        for m in model.modules()
        if isinstance(m, nn.Linear) and m is not model.head
    )


def test_layers_draw_their_features_from_seeds_of_their_own():
    model = GPT(config("yat-performer-anchor", seed=5))
    for layer, block in enumerate(model.blocks):
        same = get_attention_class("yat-performer-anchor")(16, 2, seed=5 + layer)
        assert all(
            torch.equal(a, b)
            for a, b in zip(block.attention.buffers(), same.buffers(), strict=True)
        )


def test_options_reach_the_mechanism():
    assert GPT(config("standard", dropout=0.1)).blocks[0].attention.dropout == 0.1
    assert GPT(config("yat-spherical", options={"epsilon": 0.5})).blocks[1].attention.epsilon == 0.5
    assert GPT(config("cosformer")).blocks[0].attention.max_len == 24
    assert GPT(config("cosformer", options={"max_len": 99})).blocks[0].attention.max_len == 99
    assert isinstance(GPT(config(mlp="yat")).blocks[0].mlp.up, YatLinear)


@pytest.mark.parametrize("attention", ["standard", "linear"])
def test_dropout_is_for_training(attention):
    model, tokens = gpt(attention, dropout=0.5), draw(1, 6)
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("mlp", ["gelu", "yat"])
def test_half_precision_stays_near(mlp):
    model, tokens = gpt("yat-quadratic", "rotary", mlp=mlp, n_layers=1).float(), draw(2, 8)
    exact = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(tokens)
        model.loss(tokens, tokens).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    half = model.bfloat16()(tokens)
    for other in (mixed, half):
        assert other.dtype == torch.bfloat16
        assert (other - exact).norm() < 0.05 * exact.norm()


@given(
    seed=st.integers(0, 2**31),
    temperature=st.floats(0.05, 5.0),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.none() | st.floats(0.01, 1.0),
)
def test_nothing_is_drawn_from_outside_the_set(seed, temperature, top_k, top_p):
    generator = torch.Generator().manual_seed(seed)
    row = 3 * torch.randn(10, generator=generator)
    p = sorted((row / temperature).double().softmax(-1).tolist(), reverse=True)[:top_k]
    kept, mass = 0, 0.0
    while kept < len(p) and (top_p is None or mass < top_p * sum(p) + 1e-5):
        mass, kept = mass + p[kept], kept + 1
    allowed = set(row.argsort(descending=True)[:kept].tolist())
    drawn = sample(row.expand(200, 10), temperature, top_k, top_p, generator)
    assert set(drawn.tolist()) <= allowed
    assert sample(row.expand(2, 10), 0.0, top_k, top_p).tolist() == [int(row.argmax())] * 2


def test_draws_follow_the_distribution():
    row, n = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5]), 20000
    generator = torch.Generator().manual_seed(0)
    for settings, keep in (((0.7,), 5), ((1.5, 3), 3), ((1.0, None, 0.8), 3)):
        p = (row / settings[0]).softmax(-1)
        p[row.argsort(descending=True)[keep:]] = 0.0
        drawn = sample(row.expand(n, 5), *settings, generator=generator)
        share = drawn.bincount(minlength=5) / n
        assert (share - p / p.sum()).abs().max() < 4 * 0.5 / n**0.5


def test_ties_do_not_widen_the_set():
    drawn = sample(torch.zeros(500, 9), top_k=2)
    assert len(drawn.unique()) == 2


def test_generation_follows_its_generator_and_keeps_the_mode():
    model, tokens = gpt(dropout=0.3), draw(2, 3)
    texts = []
    for seed, training in ((0, True), (0, False), (1, False)):
        model.train(training)
        generator = torch.Generator().manual_seed(seed)
        texts.append(model.generate(tokens, 12, top_k=5, top_p=0.9, generator=generator))
        assert model.training == model.blocks[0].dropout.training == training
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    assert not texts[0].requires_grad


def test_sequences_end_with_the_stop_token():
    model, tokens = gpt(tie_head=False), draw(4, 3)
    free = model.generate(tokens, 20, temperature=0.0)[:, 3:]
    for stop in range(VOCAB):
        found = model.generate(tokens, 20, temperature=0.0, stop=stop)[:, 3:]
        ends = [(row == stop).nonzero()[:1].sum().item() if stop in row else 19 for row in free]
        assert found.shape == (4, max(ends) + 1)
        for row, expected, end in zip(found, free, ends, strict=True):
            assert torch.equal(row[: end + 1], expected[: end + 1])
            assert (row[end + 1 :] == stop).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vocab_size": 0}, "vocab_size = 0: must be a whole number"),
        ({"context_len": 1.5}, r"context_len = 1\.5"),
        ({"n_layers": True}, "n_layers = True"),
        ({"mlp_ratio": -4}, "mlp_ratio = -4"),
        ({"short_conv": -1}, "short_conv = -1"),
        ({"short_conv": 1}, "short_conv = 1"),
        ({"n_kv_heads": 0}, "n_kv_heads = 0"),
        ({"n_kv_heads": 3}, "n_heads = 2 does not divide into n_kv_heads = 3"),
        ({"n_heads": 3}, "embed_dim = 16 does not divide into n_heads = 3"),
        ({"n_heads": 16, "positions": "rotary"}, "heads of 1"),
        ({"dropout": 1.0}, r"dropout = 1\.0"),
        ({"dropout": float("nan")}, "dropout = nan"),
        ({"positions": "rotry"}, "'rotry'; did you mean 'rotary'"),
        ({"mlp": "relu"}, "unknown kind of mlp 'relu'"),
        ({"attention": "yat-quadratik"}, "did you mean 'yat-quadratic'"),
        ({"options": {"causal": False}}, "options give 'causal'"),
        ({"options": {"seed": 3}}, "options give 'seed'"),
        ({"options": {"epsilonn": 3}}, "'epsilonn'"),
    ],
)
def test_bad_settings_are_one_line(settings, words):
    with pytest.raises(SlayError, match=words) as caught:
        GPT(config(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, t: model(t[0]), r"\(4,\).*expected \(B, L\)"),
        (lambda model, t: model(t.float()), r"torch\.float32"),
        (lambda model, t: model(t + VOCAB), "the vocabulary has 0 to 10"),
        (lambda model, t: model(t - VOCAB), "tokens lie between -"),
        (lambda model, t: model.step(t), r"\(2, 4\); expected \(B,\)"),
        (lambda model, t: model.loss(t, t[:, 1:]), r"targets have shape \(2, 3\)"),
        (lambda model, t: model(t, cu_seqlens=[0, 4]), "the batch has 2"),
        (lambda model, t: model(t, key_padding_mask=t), "key_padding_mask is torch.int64"),
        (lambda model, t: model(t, state=state(model, t)[:1]), "of 1 layers, not 2"),
        (lambda model, t: model(t[:1], state=state(model, t)), "of 2 sequences, but 1 follow"),
        (lambda model, t: model.generate(t[:, :0], 3), r"\(2, 0\); there is nothing to continue"),
        (lambda model, t: model.generate(t, -1), "max_new_tokens = -1"),
        (lambda model, t: model.generate(t, 3, temperature=-1.0), r"temperature = -1\.0"),
        (lambda model, t: model.generate(t, 3, temperature=float("nan")), "temperature = nan"),
        (lambda model, t: model.generate(t, 3, top_k=0), "top_k = 0"),
        (lambda model, t: model.generate(t, 3, top_p=0.0), r"top_p = 0\.0"),
        (lambda model, t: model.generate(t, 3, top_p=1.1), r"top_p = 1\.1"),
        (lambda model, t: model.generate(t, 3, stop=VOCAB), "stop = 11: must be a token"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_line(kind, call, words):
    with pytest.raises(SlayError, match=words) as caught:
        call(gpt("linear", kind), draw(2, 4))
    assert "\n" not in str(caught.value)


def state(model, tokens):
    return model(tokens, output_final_state=True)[1]
