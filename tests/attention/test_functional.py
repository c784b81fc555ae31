"""Attention by name, and mechanisms registered from outside."""

from __future__ import annotations

import sys
import traceback

import pytest
import torch

import slay
from slay.attention.exact import ExactAttention
from slay.errors import SlayError, UnknownNameError
from slay.ops import linear
from slay.registry import ATTENTION


@pytest.mark.parametrize("name", slay.list_attention_types())
def test_attend_is_the_class_method(name):
    q, k, v = torch.randn(3, 2, 2, 7, 4, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"causal": False, "seed": 5}):
        expected = slay.get_attention_class(name).heads_only(4, 2, **options).attend(q, k, v)
        for _ in range(2):
            assert torch.equal(slay.attend(q, k, v, name, **options), expected)


def test_attend_refuses_what_it_does_not_know():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(UnknownNameError, match="did you mean 'yat-spherical'"):
        slay.attend(q, q, q, "yat-sperical")
    with pytest.raises(TypeError, match="did you mean 'epsilon'"):
        slay.attend(q, q, q, "yat-spherical", epsilonn=1.0)
    with pytest.raises(SlayError, match=r"\(2, 4\)"):
        slay.attend(q[0, 0], q, q, "linear")


def test_aliases_are_the_same_class():
    for alias, name in ATTENTION._aliases.items():
        assert slay.get_attention_class(alias) is slay.get_attention_class(name)


@pytest.fixture
def outside():
    @slay.register_attention("distance")
    class Distance(ExactAttention):
        kernel, nonnegative, paper = r"e^{-|q-k|^2}", True, ""

        def pairs(self, q, k):
            return (-torch.cdist(q, k).square()).exp()

    yield Distance
    for table in (ATTENTION._paths, ATTENTION._objects, ATTENTION._plugs):
        del table["distance"]


def test_a_mechanism_from_outside_is_like_any_other(outside):
    assert slay.get_attention_class("distance") is outside
    assert slay.list_attention_types()[-1] == "distance"
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    y = outside(8, 2)(x)
    assert y.shape == x.shape
    y.sum().backward()


@pytest.mark.parametrize("name", ["linear", "yat-exact-spherical", "distance"])
def test_a_taken_name_is_refused(outside, name):
    with pytest.raises(SlayError, match=f"'{name}' is registered already"):
        slay.register_attention(name)(outside)


LAYERS = ("slay.attention.functional", "slay.attention", "slay.ops")


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_way_of_a_call_is_short_and_leads_down(backend, monkeypatch):
    """From `slay.attend` to the loop over chunks, or to the kernel launches, each stop lower."""
    if backend == "triton":
        pytest.importorskip("triton", reason="the kernels need Triton")
        from slay.ops.triton import launch

        owner, name = launch.LinearCall, "forward"
    else:
        owner, name = linear, "chunked_in_place"
    ways, reached = [], getattr(owner, name)

    def noting(*args, **options):
        frames = [frame for frame, _ in traceback.walk_stack(sys._getframe(1))]
        modules = [frame.f_globals["__name__"] for frame in reversed(frames)]
        ways.append([m for m in modules if m.startswith("slay.")])
        return reached(*args, **options)

    monkeypatch.setattr(owner, name, noting)
    slay.attend(*(torch.randn(1, 2, 5, 8) for _ in range(3)), "yat-quadratic", backend=backend)
    (way,) = ways
    height = [max(i for i, layer in enumerate(LAYERS) if m.startswith(layer)) for m in way]
    assert height == sorted(height)
    assert len(way) + 1 <= 8  # itself included
