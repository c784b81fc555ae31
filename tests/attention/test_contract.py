"""What every registered mechanism owes, derived from its own scores and options."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slay
from slay.attention.facts import facts
from slay.attention.layer import options_of
from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError
from slay.ops.chunked import linear_attention
from slay.ops.exact import exact_attention
from slay.ops.naive import naive_attention

NAMES = slay.list_attention_types()
FEATURES = [n for n in NAMES if issubclass(slay.get_attention_class(n), FeatureAttention)]
DRAWN = [n for n in NAMES if list(slay.get_attention_class(n).heads_only(4, 1).buffers())]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
every_mechanism = pytest.mark.parametrize("name", NAMES)


def heads(name, head_dim=6, n_heads=2, **options):
    return slay.get_attention_class(name).heads_only(head_dim, n_heads, **options)


def qkv(length, *, head_dim=6, value_dim=6, batch=2, n_heads=2, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    dims = (head_dim, head_dim, value_dim)
    return [torch.randn(batch, n_heads, length, d, generator=draw, dtype=dtype) for d in dims]


def assert_near(found, expected, tolerance):
    assert found.shape == expected.shape
    assert (found - expected).norm() <= tolerance * expected.norm()


@every_mechanism
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_attend_is_the_naive_form_of_its_scores(name, causal, dtype):
    mechanism = heads(name, causal=causal).to(dtype)
    for length, chunk in ((1, 4), (7, 1), (10, 4), (12, 4), (13, 64)):
        q, k, v = qkv(length, value_dim=5, dtype=dtype)
        mechanism.chunk_size = chunk  # exact mechanisms have none
        expected = naive_attention(mechanism.scores(q, k), v, causal=causal)
        assert_near(mechanism.attend(q, k, v), expected, TOLERANCE[dtype])


@every_mechanism
@pytest.mark.parametrize("causal", [True, False])
def test_blocks_of_rows_do_not_change_exact_attention(name, causal):
    q, k, v = qkv(11, value_dim=5, dtype=torch.float64)
    scores = heads(name).double().scores
    expected = naive_attention(scores(q, k), v, causal=causal)
    for block in (1, 4, 10, 11, 64):
        found = exact_attention(q, k, v, scores, causal=causal, block_size=block)
        assert_near(found, expected, 1e-10)


@every_mechanism
def test_the_future_does_not_matter(name):
    mechanism = heads(name)
    mechanism.chunk_size = 4
    q, k, v = qkv(11)
    whole = mechanism.attend(q, k, v)
    for stop in (1, 4, 6):
        changed = [t.index_fill(2, torch.arange(stop, 11), 3.0) for t in (q, k, v)]
        prefix = [t[:, :, :stop] for t in (q, k, v)]
        for other in (changed, prefix):
            torch.testing.assert_close(
                mechanism.attend(*other)[:, :, :stop], whole[:, :, :stop], rtol=1e-5, atol=1e-6
            )


@every_mechanism
def test_weights_sum_to_one(name):
    q, k, _ = qkv(9)
    v = torch.tensor([2.0, -3.0]).expand(2, 2, 9, 2)
    for causal in (True, False):
        torch.testing.assert_close(heads(name, causal=causal).attend(q, k, v), v)


@pytest.mark.parametrize("name", [n for n in NAMES if slay.get_attention_class(n).nonnegative])
@given(
    seed=st.integers(0, 2**31),
    scales=st.tuples(*[st.floats(-6, 6)] * 2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    head_dim=st.sampled_from([2, 8, 64]),
    cosine=st.sampled_from(["any", "near 1", "near -1"]),
)
def test_scores_are_not_negative(name, seed, scales, dtype, head_dim, cosine):
    q, k, _ = qkv(8, head_dim=head_dim, batch=1, seed=seed)
    if cosine != "any":
        k = q * (1 if cosine == "near 1" else -1)
    q, k = ((t * 10.0**s).to(dtype).float() for t, s in zip((q, k), scales, strict=True))
    assert (heads(name, head_dim).scores(q, k) >= 0).all()


@every_mechanism
@pytest.mark.parametrize("causal", [True, False])
def test_gradients(name, causal):
    mechanism = heads(name, 3, 1, causal=causal).double()
    mechanism.chunk_size = 2
    q, k, v = qkv(3, head_dim=3, value_dim=2, batch=1, n_heads=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(mechanism.attend, [t.requires_grad_() for t in (q, k, v)])


@every_mechanism
def test_layer_keeps_the_shape_and_its_state_dict_holds_all_it_draws(name):
    cls = slay.get_attention_class(name)
    torch.manual_seed(0)
    first, second = cls(12, 2, seed=1, bias=True), cls(12, 2, seed=2, bias=True)
    x = torch.randn(2, 5, 12)
    assert first(x).shape == x.shape
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_alone_decides_what_is_drawn_head_by_head(name):
    first, again, other = (dict(heads(name, seed=s).named_buffers()) for s in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    per_head = [b for b in first.values() if b.ndim > 1]
    assert per_head
    assert not any(torch.equal(b[0], b[1]) for b in per_head)


@every_mechanism
@pytest.mark.parametrize("causal", [True, False])
def test_degenerate_inputs_give_finite_outputs(name, causal):
    mechanism = heads(name, causal=causal)
    q, k, v = qkv(6)
    cases = [
        (0 * q, 0 * k, v),
        (0 * q, k, v),
        (1e6 * q, 1e6 * k, v),
        (q, q, v),
        (q, -q, v),
        (q[:, :, :1], k[:, :, :1], v[:, :, :1]),
        (q[:0], k[:0], v[:0]),
        (q.bfloat16(), k.bfloat16(), v.bfloat16()),
    ]
    for case in cases:
        y = mechanism.attend(*case)
        assert y.shape == case[2].shape
        assert y.dtype == case[2].dtype
        assert y.isfinite().all()


@every_mechanism
def test_queries_that_equal_their_keys_give_finite_outputs(name):
    q, _, v = qkv(1024, head_dim=128, batch=1, n_heads=1)  # some cosines round to above 1
    mechanism = heads(name, 128, 1)
    assert mechanism.scores(q, q).diagonal(dim1=-2, dim2=-1).min() >= 0
    assert mechanism.attend(q, q, v).isfinite().all()


@pytest.mark.parametrize("name", FEATURES)
def test_a_carried_state_stands_for_what_came_before(name):
    mechanism = heads(name).double()
    q, k, v = qkv(11, dtype=torch.float64)
    whole, final = linear_attention(
        q, k, v, mechanism.feature_map, causal=True, chunk_size=4, output_final_state=True
    )
    for stops in ([5, 11], [1, 4, 8, 11], range(1, 12)):
        state, parts, start = None, [], 0
        for stop in stops:
            part, state = linear_attention(
                *(t[:, :, start:stop] for t in (q, k, v)),
                mechanism.feature_map,
                causal=True,
                chunk_size=4,
                initial_state=state,
                output_final_state=True,
            )
            parts.append(part)
            start = stop
        assert_near(torch.cat(parts, dim=2), whole, 1e-10)
        assert_near(state, final, 1e-10)
    assert final.shape[-2] == mechanism.num_features
    assert final[0, 0].numel() == mechanism.state_size(v.shape[-1])


@every_mechanism
def test_facts_are_stated(name):
    row = facts(name, 8)
    assert row["kernel"]
    assert row["complexity"] in {"L", "L^2"}
    assert (row["state_size"] is None) == (row["complexity"] == "L^2")


def one_line(caught, *words):
    message = str(caught.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message


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
        (q[:, :, :0], k[:, :, :0], v[:, :, :0]),
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


@every_mechanism
@pytest.mark.parametrize(("embed_dim", "n_heads"), [(10, 3), (8, 0), (0, 1), (8, -2)])
def test_head_counts_that_do_not_divide_are_refused(name, embed_dim, n_heads):
    with pytest.raises(SlayError) as caught:
        slay.get_attention_class(name)(embed_dim, n_heads)
    one_line(caught, embed_dim, n_heads)


BAD_VALUES = {
    "epsilon": [0.0, -1.0, float("nan")],
    "beta": [-0.5, float("nan")],
    "poly_dim": [0, -1],
    "num_prf_features": [0],
    "num_quadrature_nodes": [0],
}


@every_mechanism
def test_option_values_that_make_no_sense_are_refused(name):
    for option in options_of(slay.get_attention_class(name)):
        for value in BAD_VALUES.get(option, []):
            with pytest.raises(SlayError) as caught:
                heads(name, **{option: value})
            one_line(caught, option, value)


@every_mechanism
def test_an_unknown_option_gives_the_nearest_one(name):
    with pytest.raises(TypeError) as caught:
        heads(name, causl=True)
    one_line(caught, "'causl'", "did you mean 'causal'")
