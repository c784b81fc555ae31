"""NumPy's numbers, saved states, classes defined again, sampling at the edges, training flags."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from contract import every_mechanism, qkv

import slay
from slay.activations import YatLinear
from slay.attention.exact import ExactAttention
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig, sample, save
from slay.registry import ATTENTION


def test_numbers_of_numpy(tmp_path):
    """GPTConfig(vocab_size=array.max() + 1) is refused, or its config.json cannot be written."""
    numbers = {"vocab_size": np.array([3, 10]).max() + 1, "block_size": np.int32(8)}
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
def test_options_of_numpy(name):
    """A mechanism refuses seed=np.int64(0), or draws other features for it."""
    cls = slay.get_attention_class(name)
    plain = {"n_kv_heads": 1, "value_dim": 3, "seed": 5}
    own = {"num_features": 4, "poly_dim": 3, "num_prf_features": 2, "max_len": 9}
    own = {key: value for key, value in own.items() if key in slay_options(cls)}
    of_numpy = {key: np.int32(value) for key, value in (plain | own).items()}
    if "epsilon" in slay_options(cls):
        own["epsilon"], of_numpy["epsilon"] = 0.5, np.float32(0.5)
    q, k, v = qkv(5, kv=1, head_dim=6, value_dim=3)
    found = cls.heads_only(np.int64(6), np.int64(2), **of_numpy).attend(q, k, v)
    assert torch.equal(found, cls.heads_only(6, 2, **plain, **own).attend(q, k, v))
    for wrong in ({"n_kv_heads": "1"}, {"seed": 0.5}, {"value_dim": True}):
        with pytest.raises(SlayError, match="must be a whole number"):
            cls.heads_only(6, 2, **wrong)


def slay_options(cls):
    from slay.attention.layer import options_of

    return options_of(cls)


@every_mechanism
def test_a_state_is_read_without_trust(name):
    """torch.load of a saved state needs weights_only=False."""
    q, k, v = qkv(5)
    _, state = slay.attend(q, k, v, name, output_final_state=True)
    file = io.BytesIO()
    torch.save((state,), file)
    file.seek(0)
    (read,) = torch.load(file, weights_only=True)
    found = slay.attend(q, k, v, name, initial_state=read)
    assert torch.equal(found, slay.attend(q, k, v, name, initial_state=state))


def defined(scale):
    class Mine(ExactAttention):
        kernel, nonnegative, paper = "", True, ""

        def pairs(self, q, k):
            return (scale * (q @ k.mT)).exp()

    return Mine


def test_a_class_defined_again_takes_its_place():
    """A notebook's cell that registers a mechanism cannot be run twice."""
    q, k, v = qkv(5)
    try:
        for scale in (0.1, 2.0):
            cls = slay.register_attention("mine")(defined(scale))
            assert slay.get_attention_class("mine") is cls
            expected = cls.heads_only(6, 2).attend(q, k, v)
            assert torch.equal(slay.attend(q, k, v, "mine"), expected)
        assert slay.list_attention_types().count("mine") == 1
        other = type("Other", (defined(1.0),), {"__qualname__": "Other"})
        with pytest.raises(SlayError, match="'mine' is registered already"):
            slay.register_attention("mine")(other)
        assert slay.get_attention_class("mine") is cls
    finally:
        for table in (ATTENTION._paths, ATTENTION._objects, ATTENTION._plugs):
            table.pop("mine", None)


@pytest.mark.parametrize("temperature", [1e-46, 5e-324, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_temperature_next_to_zero_is_greedy(temperature, dtype):
    """multinomial: probability tensor contains either inf, nan or element < 0."""
    logits = torch.tensor([[0.0, 3.0, 1.0], [-math.inf, 2.0, -1.0]], dtype=dtype)
    for more in ({}, {"top_k": 2}, {"top_p": 0.9}):
        assert sample(logits, temperature, **more).tolist() == [1, 1]
    assert sample(torch.tensor([[0.0, math.inf]]), 1.0).tolist() == [1]


@pytest.mark.parametrize("temperature", [0.0, 1e-46, 1.0])
def test_logits_that_are_no_numbers_are_one_line(temperature):
    """A model that diverged gives PyTorch's error, or a token all the same."""
    for bad in ([1.0, math.nan], [-math.inf, -math.inf]):
        with pytest.raises(SlayError, match="NaN or all -inf") as caught:
            sample(torch.tensor([[0.0, 1.0], bad]), temperature)
        assert "\n" not in str(caught.value)


def test_modes_of_modules_outlive_generation():
    """A frozen block is in training mode after generate."""
    model = GPT(GPTConfig(11, 8, 2, 2, 8, "linear")).train()
    model.blocks[0].eval()
    model.blocks[1].dropout.eval()
    before = [m.training for m in model.modules()]
    model.generate(torch.tensor([[1, 2]]), 2)
    with pytest.raises(SlayError):
        model.generate(torch.tensor([[1, 2]]), 99)
    assert [m.training for m in model.modules()] == before


@every_mechanism
def test_dtypes_that_meet_in_autocast(name):
    """float32 queries and keys beside bfloat16 values are refused under autocast."""
    q, k, v = qkv(5)
    with torch.autocast("cpu", torch.bfloat16):
        expected = slay.attend(*(t.bfloat16() for t in (q, k, v)), name)
        for mixed in ((q, k, v.bfloat16()), (q.bfloat16(), k, v)):
            found, state = slay.attend(*mixed, name, output_final_state=True)
            assert torch.equal(found, expected)
        assert slay.attend(*mixed, name, initial_state=state).dtype == torch.bfloat16
        with pytest.raises(SlayError, match="dtypes"):
            slay.attend(q.double(), k, v, name)
    with pytest.raises(SlayError, match="dtypes"):
        slay.attend(q, k, v.bfloat16(), name)
