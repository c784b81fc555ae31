"""Options of mechanisms that are numbers: text is refused, NumPy's numbers are not."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from contract import every_mechanism, heads, one_line, qkv

import slay
from slay.attention.layer import options_of
from slay.errors import SlayError


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


def test_numbers_of_numpy():
    """Options taken from an array are refused."""
    q, k, v = qkv(3)
    for kind in (np.int32, np.int64):
        found = slay.attend(q, k, v, "performer", num_features=kind(8))
        assert torch.equal(found, slay.attend(q, k, v, "performer", num_features=8))
    found = slay.attend(q, k, v, "yat", epsilon=np.float32(0.5))
    torch.testing.assert_close(found, slay.attend(q, k, v, "yat", epsilon=0.5))


@every_mechanism
def test_copies(name):
    """A mechanism cannot be copied or sent to another process."""
    q, k, v = qkv(3)
    mechanism = heads(name)
    for other in (copy.deepcopy(mechanism), pickle.loads(pickle.dumps(mechanism))):
        assert torch.equal(other.attend(q, k, v), mechanism.attend(q, k, v))
