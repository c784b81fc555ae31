"""Bad input gives one line with the values; degenerate input gives finite output."""

from __future__ import annotations

import pytest
import torch
from contract import either_order, every_mechanism, heads, one_line, qkv

import slay
from slay.attention.layer import options_of
from slay.errors import SlayError


@every_mechanism
@either_order
def test_degenerate_inputs_give_finite_outputs_and_gradients(name, causal):
    mechanism = heads(name, causal=causal, chunk_size=4)
    q, k, v = qkv(6)
    cases = [
        (0 * q, 0 * k, v),
        (0 * q, k, v),
        (1e6 * q, 1e6 * k, v),
        (1e-6 * q, 1e-6 * k, v),
        (1e12 * q, k, 1e12 * v),
        (q, q, v),
        (q, -q, v),
        (q[:, :, :1], k[:, :, :1], v[:, :, :1]),
        (q[:, :, :0], k[:, :, :0], v[:, :, :0]),
        (q[:0], k[:0], v[:0]),
        (q.bfloat16(), k.bfloat16(), v.bfloat16()),
    ]
    for case in cases:
        inputs = [t.detach().requires_grad_() for t in case]
        y = mechanism.attend(*inputs)
        assert y.shape == case[2].shape
        assert y.dtype == case[2].dtype
        assert y.isfinite().all()
        with torch.no_grad():
            assert mechanism.attend(*case).isfinite().all()
        gradients = torch.autograd.grad(y.sum(), inputs, materialize_grads=True)
        if name not in {"yat", "yat-spherical"}:  # their kernel is a pole at q = k
            assert all(g.isfinite().all() for g in gradients)


@every_mechanism
def test_a_zero_vector_pulls_at_nothing(name):
    """Normalisation to the sphere has no direction at zero, and no gradient."""
    mechanism = heads(name)
    q, k, v = (t.requires_grad_() for t in qkv(6))
    y = mechanism.attend(0 * q, k, v)
    gradient = torch.autograd.grad(y.sum(), q, materialize_grads=True)[0]
    assert gradient.abs().max() < 1e3


@every_mechanism
def test_an_empty_sequence_leaves_an_empty_state(name):
    attention = slay.get_attention_class(name)(12, 2)
    x = torch.randn(2, 5, 12)
    y, state = attention(x[:, :0], output_final_state=True)
    assert y.shape == (2, 0, 12)
    torch.testing.assert_close(attention(x, initial_state=state), attention(x))


@every_mechanism
def test_queries_that_equal_their_keys_give_finite_outputs(name):
    q, _, v = qkv(1024, head_dim=128, batch=1, n_heads=1)  # some cosines round to above 1
    mechanism = heads(name, 128, 1)
    if slay.get_attention_class(name).nonnegative:
        assert mechanism.scores(q, q).diagonal(dim1=-2, dim2=-1).min() >= 0
    assert mechanism.attend(q, q, v).isfinite().all()


@every_mechanism
def test_shapes_that_do_not_fit_are_refused(name):
    q, k, v = qkv(5)
    bad = [
        (q[0], k[0], v[0]),
        (q, k[:, :, :4], v),
        (q, k, v[:, :, :4]),
        (q, k, v[:, :1]),
        (q[:, :1], k[:, :1], v[:, :1]),
        (q[..., :5], k[..., :5], v),
        (q[:1], k, v),
    ]
    for case in bad:
        with pytest.raises(SlayError) as caught:
            heads(name).attend(*case)
        one_line(caught, *(tuple(t.shape) for t in case))
    layer = slay.get_attention_class(name)(12, 2)
    for x in (torch.zeros(5, 12), torch.zeros(2, 5, 11)):
        with pytest.raises(SlayError) as caught:
            layer(x)
        one_line(caught, tuple(x.shape))
    with pytest.raises(SlayError) as caught:
        layer.step(torch.zeros(2, 1, 12))
    one_line(caught, (2, 1, 12))


@every_mechanism
def test_dtypes_that_do_not_fit_are_refused(name):
    q, k, v = qkv(5)
    for case in ((q, k.double(), v), (q.long(), k.long(), v.long())):
        with pytest.raises(SlayError) as caught:
            heads(name).attend(*case)
        one_line(caught, *(str(t.dtype) for t in case))


@every_mechanism
@pytest.mark.parametrize("mask", [
    torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 5, 5, dtype=torch.bool),
    torch.zeros(2, 5, dtype=torch.long), [True],
], ids=["float", "short", "square", "whole", "list"])  # fmt: skip
def test_a_mask_of_the_wrong_kind_is_refused(name, mask):
    with pytest.raises(SlayError) as caught:
        heads(name).attend(*qkv(5), key_padding_mask=mask)
    one_line(caught, "key_padding_mask", "torch.bool (2, 5)")


ODD_BOUNDS = [
    [0, 4],
    [1, 5],
    [0, 3, 2, 5],
    [0, 2, 2, 5],
    [0],
    [],
    [0, 2.0, 5],
    torch.tensor([0.0, 5.0]),
    torch.tensor([[0, 5]]),
]


@pytest.mark.parametrize("bounds", ODD_BOUNDS, ids=str)
def test_odd_boundaries_are_refused(bounds):
    with pytest.raises(SlayError) as caught:
        heads("linear").attend(*qkv(5, batch=1), cu_seqlens=bounds)
    one_line(caught, "cu_seqlens")


def test_combinations_that_make_no_sense_are_refused():
    q, k, v = qkv(5)
    one = heads("linear")
    _, state = one.attend(q, k, v, output_final_state=True)
    free = heads("linear", causal=False)
    mask = torch.zeros(1, 5, dtype=torch.bool)
    cases = [
        (one, (q, k, v), {"cu_seqlens": [0, 5]}, "one row"),
        (one, qkv(5, batch=1), {"cu_seqlens": [0, 5], "key_padding_mask": mask}, "exclude"),
        (one, qkv(5, keys=4), {}, "causal=False"),
        (one, qkv(5, batch=3), {"initial_state": state}, "2 sequences, but 3"),
        (free, (q, k, v), {"initial_state": state}, "causal=True"),
        (free, (q, k, v), {"output_final_state": True}, "causal=True"),
        (free, qkv(5, keys=4, batch=1), {"cu_seqlens": [0, 5]}, "as many keys"),
    ]
    for mechanism, inputs, mode, words in cases:
        with pytest.raises(SlayError) as caught:
            mechanism.attend(*inputs, **mode)
        one_line(caught, words)
    x = torch.zeros(2, 5, 12)
    layer = slay.get_attention_class("linear")
    cases = [
        (lambda: layer(12, 2)(x, x), "causal=False"),
        (lambda: layer(12, 2, causal=False)(x, x[:1]), "1"),
        (lambda: layer(12, 2, causal=False, short_conv=4)(x, x), "short_conv"),
        (lambda: heads("linear", short_conv=4), "short_conv"),
        (lambda: heads("linear", rotary=100.0), "rotary"),
    ]
    for call, words in cases:
        with pytest.raises(SlayError) as caught:
            call()
        one_line(caught, words)


def test_cosformer_refuses_what_lies_beyond_its_length():
    mechanism = heads("cosformer", max_len=6)
    q, k, v = qkv(5)
    _, state = mechanism.attend(q, k, v, output_final_state=True)
    with pytest.raises(SlayError) as caught:
        mechanism.attend(q, k, v, initial_state=state)
    one_line(caught, 10, "max_len = 6")


@every_mechanism
@pytest.mark.parametrize(("embed_dim", "n_heads"), [(10, 3), (8, 0), (0, 1), (8, -2)])
def test_head_counts_that_do_not_divide_are_refused(name, embed_dim, n_heads):
    with pytest.raises(SlayError) as caught:
        slay.get_attention_class(name)(embed_dim, n_heads)
    one_line(caught, embed_dim, n_heads)


NAN = float("nan")
BAD_VALUES = {
    "bandwidth": [0.0, -1.0, NAN],
    "beta": [-0.5, NAN],
    "dropout": [-0.1, 1.0, NAN],
    "epsilon": [0.0, -1.0, NAN],
    "kernel": ["exp"],
    "max_len": [0],
    "n_kv_heads": [0, 3],
    "num_features": [0],
    "num_prf_features": [0, 1.5],
    "num_quadrature_nodes": [0],
    "poly_dim": [0, -1],
    "project_dim": [1, 7],
    "ridge": [0.0, NAN],
    "rotary": [0.5, NAN],
    "short_conv": [1, -2],
    "value_dim": [0],
}
NO_WRONG_VALUE = {"bias", "causal", "orthogonal", "seed"}


@every_mechanism
def test_option_values_that_make_no_sense_are_refused(name):
    cls = slay.get_attention_class(name)
    for option in set(options_of(cls)) - NO_WRONG_VALUE:
        for value in BAD_VALUES.get(option, [NAN]):  # one that is new here must at least refuse NaN
            with pytest.raises(SlayError) as caught:
                cls(12, 2, **{option: value})
            one_line(caught, option, value)


@every_mechanism
def test_an_unknown_option_gives_the_nearest_one(name):
    with pytest.raises(TypeError) as caught:
        heads(name, causl=True)
    one_line(caught, "'causl'", "did you mean 'causal'")


@pytest.mark.parametrize("name", ["performer", "rff", "yat-performer", "yat-performer-nystrom"])
def test_state_dicts_whose_features_belonged_to_the_layer_still_load(name):
    """Before feature maps were modules, their tensors were the layer's own: `omega`, `anchors`."""
    cls = slay.get_attention_class(name)
    saved, layer = cls(8, 2, seed=1), cls(8, 2, seed=2)
    state = saved.state_dict()
    inside = [path for path in state if path.startswith("feature_map.")]
    assert inside
    layer.load_state_dict({p.rpartition(".")[2] if p in inside else p: t for p, t in state.items()})
    x = torch.randn(1, 5, 8)
    assert torch.equal(layer(x), saved(x))
