"""Options that are numbers: text is refused in a line, NumPy's numbers are numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import every_mechanism, one_line, qkv

import slay
from slay.activations import YatLinear
from slay.attention.layer import options_of
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig, save


@every_mechanism
@pytest.mark.parametrize("value", ["1e-3", "16", "True", [1]], ids=str)
def test_text_is_no_number(name, value):
    """`epsilon` as text, which YAML makes of 1e-3, ends in a TypeError."""
    cls = slay.get_attention_class(name)
    for option in options_of(cls):
        with pytest.raises(SlayError) as caught:
            cls(12, 2, **{option: value})
        one_line(caught, option, value)


def test_text_is_refused_by_name_too():
    """`slay.attend(..., epsilon="1e-3")` ends in a TypeError."""
    q, k, v = qkv(3)
    with pytest.raises(SlayError) as caught:
        slay.attend(q, k, v, "yat", epsilon="1e-3")
    one_line(caught, "epsilon = '1e-3'", "a number")
    for sizes in (("12", 2), (12, "2"), (12.0, 2)):
        with pytest.raises(SlayError, match="must be a whole number"):
            slay.get_attention_class("linear")(*sizes)


def test_numbers_of_numpy(tmp_path):
    """GPTConfig(vocab_size=array.max() + 1) is refused, or its config.json cannot be written."""
    numbers = {"vocab_size": np.array([3, 10]).max() + 1, "context_len": np.int32(8)}
    sizes = {"n_layers": np.int64(1), "n_heads": np.uint8(2), "embed_dim": np.int16(8)}
    settings = GPTConfig(**numbers, **sizes, seed=np.int32(3), dropout=np.float32(0.0))
    assert settings == GPTConfig(11, 8, 1, 2, 8, seed=3)
    model = GPT(settings)
    save(model, tmp_path)
    tokens = torch.tensor([[1, 2]])
    model.generate(
        tokens, np.int64(2), top_k=np.int64(3), temperature=np.float32(1), stop=np.int8(1)
    )
    bounds = np.array([0, 1, 2])
    assert torch.equal(model(tokens, cu_seqlens=bounds), model(tokens, cu_seqlens=[0, 1, 2]))
    assert YatLinear(np.int64(3), np.int64(2), epsilon=np.float32(1))(torch.ones(3)).shape == (2,)


@every_mechanism
def test_options_of_a_mechanism(name):
    """A mechanism refuses seed=np.int64(0), or draws other features for it."""
    cls = slay.get_attention_class(name)
    plain = {"n_kv_heads": 1, "value_dim": 3, "seed": 5}
    own = {"num_features": 4, "poly_dim": 3, "num_prf_features": 2, "max_len": 9}
    own = {key: value for key, value in own.items() if key in options_of(cls)}
    of_numpy = {key: np.int32(value) for key, value in (plain | own).items()}
    if "epsilon" in options_of(cls):
        own["epsilon"], of_numpy["epsilon"] = 0.5, np.float32(0.5)
    q, k, v = qkv(5, kv=1, head_dim=6, value_dim=3)
    found = cls.heads_only(np.int64(6), np.int64(2), **of_numpy).attend(q, k, v)
    assert torch.equal(found, cls.heads_only(6, 2, **plain, **own).attend(q, k, v))
    for wrong in ({"n_kv_heads": "1"}, {"seed": 0.5}, {"value_dim": True}):
        with pytest.raises(SlayError, match="must be a whole number"):
            cls.heads_only(6, 2, **wrong)
