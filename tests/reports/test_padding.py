"""Padding is as if it were not there: in outputs, states, positions and convolutions."""

from __future__ import annotations

import pytest
import torch
from contract import assert_near, every_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st

import slay
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig


def layer(name, **options):
    torch.manual_seed(0)
    made = slay.get_attention_class(name)(12, 2, rotary=50.0, **options).double()
    if made.short_conv is not None:
        torch.nn.init.normal_(made.short_conv.weight)
    return made.eval()


def spread(x, mask):
    """The tokens of x: (1, n, E), at the places of a row where the mask is False."""
    padded = torch.full((1, len(mask), x.shape[2]), float("nan"), dtype=x.dtype)
    padded[:, ~mask] = x
    return padded, mask.unsqueeze(0)


@every_mechanism
@settings(max_examples=5)
@given(
    places=st.lists(st.booleans(), min_size=1, max_size=9).filter(lambda m: not all(m)),
    more=st.lists(st.booleans(), max_size=4),
)
def test_a_state_after_padding(name, places, more):
    """A step after padded tokens differs from one after the tokens alone."""
    attention = layer(name, short_conv=3)
    draw = torch.Generator().manual_seed(len(places))
    before = after = None
    for part in (places, more):  # a second piece goes on from the first
        mask = torch.tensor(part, dtype=torch.bool)
        x = torch.randn(1, int((~mask).sum()), 12, generator=draw, dtype=torch.float64)
        padded, rows = spread(x, mask)
        y, before = attention(
            padded, key_padding_mask=rows, initial_state=before, output_final_state=True
        )
        alone, after = attention(x, initial_state=after, output_final_state=True)
        torch.testing.assert_close(y[:, ~mask], alone, rtol=1e-6, atol=1e-8)
        assert before.length.tolist() == after.length.tolist()
    token = torch.randn(1, 12, generator=draw, dtype=torch.float64)
    assert_near(attention.step(token, before)[0], attention.step(token, after)[0], 1e-6)


@every_mechanism
@pytest.mark.parametrize("places", [[True, True, False, False, True], [False, False, True]])
def test_cross_attention(name, places):
    """Padding of a context moves the positions of its tokens."""
    attention = layer(name, causal=False)
    mask = torch.tensor(places)
    x = torch.randn(1, len(places), 12, dtype=torch.float64)
    context = torch.randn(1, 2, 12, dtype=torch.float64)
    padded, rows = spread(context, mask)
    assert_near(attention(x, padded, key_padding_mask=rows), attention(x, context), 1e-6)


@every_mechanism
def test_all_may_look_at_all(name):
    """Padding before the tokens of an encoder changes what they become."""
    attention = layer(name, causal=False, short_conv=2)
    mask = torch.tensor([True, False, False, True, False, True])
    x = torch.randn(1, 3, 12, dtype=torch.float64)
    padded, rows = spread(x, mask)
    assert_near(attention(padded, key_padding_mask=rows)[:, ~mask], attention(x), 1e-6)


def gpt(attention, positions):
    torch.manual_seed(0)
    kinds = {"short_conv": 2, "positions": positions}
    model = GPT(GPTConfig(11, 12, 2, 2, 16, attention, tie_head=False, **kinds)).double()
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("attention", ["standard", "linear", "cosformer", "yat-quadratic"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("left", [True, False])
def test_prompts_of_different_lengths_are_continued_as_by_themselves(attention, positions, left):
    """Batched generation with padded prompts gives other text than one prompt at a time."""
    model, prompts = gpt(attention, positions), [[1, 2, 3, 4, 5], [6, 7], [8]]
    tokens = torch.zeros(3, 5, dtype=torch.long)
    mask = torch.ones(3, 5, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        place = slice(5 - len(prompt), 5) if left else slice(0, len(prompt))
        tokens[row, place], mask[row, place] = torch.tensor(prompt), False
    found = model.generate(tokens, 8, temperature=0.0, key_padding_mask=mask)
    assert torch.equal(found[:, :5], tokens)
    for row, prompt in enumerate(prompts):
        alone = model.generate(torch.tensor([prompt]), 8, temperature=0.0)
        assert found[row, 5:].tolist() == alone[0, len(prompt) :].tolist()


def test_a_prompt_of_padding_alone_is_refused():
    """An empty prompt in a batch is continued from nothing."""
    mask = torch.tensor([[False, True], [True, True]])
    with pytest.raises(SlayError, match="nothing to continue"):
        gpt("linear", "learned").generate(mask.long(), 1, key_padding_mask=mask)
