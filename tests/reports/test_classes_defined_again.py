"""A mechanism that is defined again, such as by a notebook's cell, takes its older self's place."""

from __future__ import annotations

import pytest
import torch
from contract import qkv

import slay
from slay.attention.exact import ExactAttention
from slay.errors import SlayError
from slay.registry import ATTENTION


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
