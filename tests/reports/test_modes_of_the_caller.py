"""What is drawn and kept is the same whatever modes of PyTorch the caller is in."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from contract import every_mechanism, qkv
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import slay
from slay.attention.functional import _kept
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig


class Halves(TorchFunctionMode):
    """Every number that is made is half as large."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        return made / 2 if function in (torch.randn, torch.cos) else made


class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        return made / 2 if "normal" in str(function) else made


@contextmanager
def dtype(kind):
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES = {
    "double": lambda: dtype(torch.float64),
    "half": lambda: dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": deterministic,
    "functions": Halves,
    "dispatch": Seen,
}


@every_mechanism
@pytest.mark.parametrize("mode", MODES)
def test_the_first_call_says_nothing_about_later_ones(name, mode):
    """Random features depend on the default dtype, device or inference mode of the first call."""
    q, k, v = qkv(5)
    expected = slay.attend(q, k, v, name)
    _kept.cache_clear()
    with MODES[mode]():
        slay.attend(q, k, v, name)
    inputs = [t.clone().requires_grad_() for t in (q, k, v)]
    found = slay.attend(*inputs, name)
    assert torch.equal(found, expected)
    found.sum().backward()


@every_mechanism
def test_a_first_call_on_fake_tensors_or_inside_a_transform(name):
    """A FakeTensor leaks out of a call under FakeTensorMode."""
    q, k, v = qkv(5)
    expected = slay.attend(q, k, v, name)
    _kept.cache_clear()
    with FakeTensorMode() as fake:
        y = slay.attend(*(fake.from_tensor(t) for t in (q, k, v)), name)
        assert y.shape == expected.shape
    torch.func.grad(lambda q: slay.attend(q, k, v, name).sum())(q)
    _kept.cache_clear()
    torch.func.vmap(lambda v: slay.attend(q, k, v, name))(v.unsqueeze(0))
    assert torch.equal(slay.attend(q, k, v, name), expected)


@every_mechanism
@pytest.mark.parametrize("mode", ["double", "inference", "functions", "dispatch"])
def test_a_layer_draws_the_same_in_every_mode(name, mode):
    """A layer that is built under another default dtype has other random features."""
    expected = dict(slay.get_attention_class(name)(8, 2).named_buffers())
    with MODES[mode]():
        made = dict(slay.get_attention_class(name)(8, 2).named_buffers())
    assert made.keys() == expected.keys()
    for key, tensor in made.items():
        assert torch.equal(tensor, expected[key])
        assert not tensor.is_inference()


@every_mechanism
def test_default_dtype_of_a_result(name):
    """Outputs are double because the default dtype is."""
    q, k, v = qkv(5)
    expected = slay.attend(q, k, v, name)
    for kind in (torch.float64, torch.float16):
        with dtype(kind):
            found = slay.attend(q, k, v, name)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@every_mechanism
def test_a_model_that_was_on_the_meta_device(name, tied):
    """Buffers are junk after to_empty and load_state_dict, and a tied head comes apart."""
    settings = GPTConfig(11, 16, 2, 2, 8, name, tie_head=tied, short_conv=2, mlp="yat", bias=True)
    torch.manual_seed(0)
    model = GPT(settings)
    with torch.device("meta"):
        blank = [GPT(settings) for _ in range(3)]
    for copy in blank[:2]:
        copy.to_empty(device="cpu")
        for t in (*copy.parameters(), *copy.buffers()):
            t.data.fill_(float("nan"))
    blank[0].load_state_dict(model.state_dict())
    torch.manual_seed(0)
    blank[1].initialise()
    blank[2].load_state_dict(model.state_dict(), assign=True)
    for copy in blank:
        assert (copy.head.weight is copy.token.weight) == tied
        for (key, a), b in zip(copy.named_buffers(), model.buffers(), strict=True):
            assert torch.equal(a, b), key
        for (key, a), b in zip(copy.named_parameters(), model.parameters(), strict=True):
            assert torch.equal(a, b), key


@every_mechanism
def test_shapes_without_numbers(name):
    """A layer on meta tensors fails with 'unsupported scalarType', in autocast or not."""
    with torch.device("meta"):
        layer = slay.get_attention_class(name)(8, 2, rotary=10.0, short_conv=2)
        x = torch.empty(2, 5, 8)
        mask = torch.zeros(2, 5, dtype=torch.bool)
    assert layer(x).shape == x.shape
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, key_padding_mask=mask, output_final_state=True)
        assert layer(x, initial_state=state).shape == y.shape == x.shape


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
