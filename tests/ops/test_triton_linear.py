"""Kernels of linear attention in Triton's interpreter, against the specification in float64."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch.utils import deterministic

import slay
from slay.attention.linear import LinearAttention
from slay.errors import SlayError
from slay.ops import select
from slay.ops.naive import naive_attention

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.ops.triton import configs, launch

NAMES = [
    name
    for name in slay.list_attention_types()
    if issubclass(slay.get_attention_class(name), LinearAttention)
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
every_mechanism = pytest.mark.parametrize("name", NAMES)
either_order = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
either_form = pytest.mark.parametrize("chunk", [0, 128], ids=["one chunk", "by states"])


@pytest.fixture(autouse=True)
def poisoned():
    """What a kernel forgets to write is not a number."""
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


# Fewer features than by default: the interpreter's time goes into the number of groups.
SMALL = {
    "performer": {"num_features": 24},
    "rff": {"num_features": 24},
    "yat-performer": {"num_prf_features": 12},
    "yat-performer-laplace": {"num_prf_features": 12},
    **{
        f"yat-performer-{name}": {"poly_dim": 5, "num_prf_features": 6}
        for name in ("anchor", "nystrom", "rm", "tensor")
    },
}


def heads(name, head_dim=16, n_heads=2, backend="triton", chunk=0, **options):
    if name == "yat-cubic":
        head_dim = min(head_dim, 3)  # d^3 rows are many for an interpreter
    options = {**SMALL.get(name, {}), **options}
    cls = slay.get_attention_class(name)
    mechanism = cls.heads_only(head_dim, n_heads, backend=backend, **options)
    mechanism.kernel_chunk_size = chunk
    return mechanism


def tokens(
    mechanism, length, *, batch=1, value_dim=8, dtype=torch.float32, keys=None, seed=0, alike=0.0
):
    """q: (B, H, L, d), k: (B, K, Lk, d), v: (B, K, Lk, e), wanting gradients.

    `alike`: how much of one vector they have in common.
    """
    draw = torch.Generator().manual_seed(seed)
    keys = length if keys is None else keys
    d, kv = mechanism.head_dim, mechanism.n_kv_heads
    shapes = (mechanism.n_heads, length, d), (kv, keys, d), (kv, keys, value_dim)
    drawn = [torch.randn(batch, *shape, generator=draw) for shape in shapes]
    common = torch.randn(d, generator=draw)
    drawn = [drawn[0] + alike * common, drawn[1] + alike * common, drawn[2]]
    return [t.to(dtype).requires_grad_() for t in drawn]


def specified(mechanism, q, k, v, **masks):
    """The specification's output and inputs, in float64."""
    exact = deepcopy(mechanism).double()
    inputs = [t.detach().double().requires_grad_() for t in (q, k, v)]
    scores = exact.scores(*inputs[:2])
    y = naive_attention(scores, inputs[2], causal=mechanism.causal, **masks)
    return y, inputs, scores


def error(found, expected):
    """Relative root mean square; the gradient of what does not matter is zero but for rounding."""
    assert found.isfinite().all()
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / expected.norm().clamp(min=0.1))


def cancellation(name, scores):
    """How many times larger than their sum scores of both signs are: digits that are lost."""
    if slay.get_attention_class(name).nonnegative:
        return 1.0
    z, size = scores.tril().sum(-1).abs(), scores.abs().tril().sum(-1)
    return 3 * float((size[z > 0] / z[z > 0]).max())


def compare(name, mechanism, inputs, dtype, **masks):
    """Output and gradients against the specification."""
    y = mechanism.attend(*inputs, **masks)
    assert mechanism.backend_used == "triton"
    expected, exact, scores = specified(mechanism, *inputs, **masks)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(y, inputs, g.to(dtype), materialize_grads=True)
    wanted = torch.autograd.grad(expected, exact, g.to(dtype).double(), materialize_grads=True)
    bound = TOLERANCE[dtype] * cancellation(name, scores)
    assert error(y, expected) <= bound
    for a, b in zip(found, wanted, strict=True):
        assert error(a, b) <= bound


@every_mechanism
@either_order
@either_form
def test_float32(name, causal, chunk):
    mechanism = heads(name, n_heads=2, n_kv_heads=1, causal=causal, chunk=chunk)
    inputs = tokens(mechanism, 149, batch=2)
    padding = torch.zeros(2, 149, dtype=torch.bool)
    padding[0, 140:], padding[1, :3] = True, True
    compare(name, mechanism, inputs, torch.float32, key_padding_mask=padding)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_mechanism
def test_half_precision(name, dtype):
    """Where scores may have both signs, of tokens so alike that they have one."""
    mechanism = heads(name, head_dim=32, n_heads=1, chunk=128)
    alike = 0.0 if mechanism.nonnegative else 4.0
    inputs = tokens(mechanism, 150, value_dim=32, dtype=dtype, alike=alike)
    assert cancellation(name, mechanism.scores(*[t.float() for t in inputs[:2]])) < 4
    compare(name, mechanism, inputs, dtype)


@pytest.mark.parametrize("name", ["linear", "yat-performer-anchor", "yat-quadratic"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_sum_to_one_in_half_precision(name, dtype):
    mechanism = heads(name, head_dim=32, n_heads=1)
    q, k, v = tokens(mechanism, 70, dtype=dtype)
    y = mechanism.attend(q, k, torch.ones_like(v)).float()
    torch.testing.assert_close(y, torch.ones_like(y), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "performer", "yat-performer-anchor", "yat-quadratic"])
@pytest.mark.parametrize(
    ("length", "chunk"), [(1, 0), (1, 128), (129, 128), (300, 128), (300, 256)]
)
def test_lengths_and_chunks(name, length, chunk):
    mechanism = heads(name, n_heads=1, chunk=chunk)
    compare(name, mechanism, tokens(mechanism, length), torch.float32)


@pytest.mark.parametrize(
    ("name", "head_dim", "value_dim", "options"),
    [
        ("yat-quadratic", 32, 24, {}),
        ("yat-quadratic", 40, 24, {}),  # only some blocks of the products are kept
        ("yat-quadratic", 64, 40, {}),
        ("yat-quadratic", 128, 72, {}),  # gradients: some columns after others
        ("yat-performer-anchor", 8, 24, {"poly_dim": 5, "num_prf_features": 12}),
        ("yat-performer-anchor", 128, 72, {}),
        ("performer", 16, 24, {"num_features": 200}),  # in blocks
        ("performer", 16, 24, {"num_features": 100, "kernel": "softmax"}),
        ("performer", 128, 72, {}),
        ("rff", 16, 24, {"num_features": 70}),
        ("linear", 64, 24, {}),
        ("linear", 128, 72, {}),
        ("cosformer", 128, 24, {}),  # as one vector of features
    ],
)
def test_widths(name, head_dim, value_dim, options):
    mechanism = heads(name, head_dim, n_heads=1, chunk=128, **options)
    inputs = tokens(mechanism, 140, value_dim=value_dim)
    y = mechanism.attend(*inputs)
    torch_ = heads(name, head_dim, n_heads=1, backend="torch", **options).double()
    exact = [t.detach().double().requires_grad_() for t in inputs]
    expected = torch_.attend(*exact)
    bound = 1e-5 * cancellation(name, torch_.scores(*exact[:2]))
    assert error(y, expected) <= bound
    g = torch.randn_like(y)
    found = torch.autograd.grad(y, inputs, g)
    for a, b in zip(found, torch.autograd.grad(expected, exact, g.double()), strict=True):
        assert error(a, b) <= bound


@pytest.mark.parametrize("name", ["linear", "yat-performer-anchor", "yat-quadratic"])
def test_every_tile_that_a_device_may_choose(name):
    """Of tokens, whatever the class of calls that it is for; an interpreter has no warps."""
    keys = ["dense 32 values 32 bf16", "dense 128 values 128 bf16", "dense 32 values 32 fp32"]
    known = {
        kernel: list({c.tiles: c for key in keys for c in k.candidates(key)}.values())
        for kernel, k in configs.KERNELS.items()
        if not kernel.startswith("yat")
    }
    mechanism = heads(name, n_heads=1, chunk=128)
    inputs = tokens(mechanism, 150)
    for choice in range(max(map(len, known.values()))):
        with configs.forced({kernel: some[choice % len(some)] for kernel, some in known.items()}):
            compare(name, mechanism, inputs, torch.float32)


@every_mechanism
@either_order
@either_form
def test_packed_sequences(name, causal, chunk):
    """Each is by itself, whatever lies beside it."""
    mechanism = heads(name, n_heads=1, causal=causal, chunk=chunk)
    bounds = [0, 3, 140, 141]
    q, k, v = tokens(mechanism, 141)
    y = mechanism.attend(q, k, v, cu_seqlens=bounds)
    assert mechanism.backend_used == "triton"
    exact = heads(name, n_heads=1, causal=causal, backend="torch").double()
    inputs = [t.detach().double().requires_grad_() for t in (q, k, v)]
    pieces = [[t[:, :, lo:hi] for t in inputs] for lo, hi in pairwise(bounds)]
    expected = torch.cat([exact.attend(*piece) for piece in pieces], dim=2)
    bound = 1e-5 * max(cancellation(name, exact.scores(*piece[:2])) for piece in pieces)
    assert error(y, expected) <= bound
    g = torch.randn_like(y)
    found = torch.autograd.grad(y, (q, k, v), g, materialize_grads=True)
    wanted = torch.autograd.grad(expected, inputs, g.double(), materialize_grads=True)
    for a, b in zip(found, wanted, strict=True):
        assert error(a, b) <= bound


@every_mechanism
@pytest.mark.parametrize(
    "backends", [("triton", "triton"), ("torch", "triton"), ("triton", "torch")]
)
@either_form
def test_resumed_state(name, backends, chunk):
    """A state is the same thing to every backend, and gradients pass through it."""
    first, second = (heads(name, n_heads=2, n_kv_heads=1, backend=b, chunk=chunk) for b in backends)
    inputs = tokens(first, 70, batch=2)
    parts = [[t[:, :, :37] for t in inputs], [t[:, :, 37:] for t in inputs]]
    start, state = first.attend(*parts[0], output_final_state=True)
    rest, last = second.attend(*parts[1], initial_state=state, output_final_state=True)
    y = torch.cat((start, rest), dim=2)
    expected, exact, scores = specified(first, *inputs)
    bound = 2e-5 * cancellation(name, scores)
    assert error(y, expected) <= bound
    whole = heads(name, n_heads=2, n_kv_heads=1, backend="torch")
    _, reference = whole.attend(*inputs, output_final_state=True)
    assert error(last.memory[0], reference.memory[0].double()) <= 1e-4
    g = torch.randn_like(y)
    found = torch.autograd.grad(y, inputs, g, materialize_grads=True)
    wanted = torch.autograd.grad(expected, exact, g.double(), materialize_grads=True)
    for a, b in zip(found, wanted, strict=True):
        assert error(a, b) <= bound


def test_states_of_wide_values():
    """They take several calls, and one state, whose gradient is one too."""
    kernels, exact = (heads("linear", n_heads=1, backend=b) for b in ("triton", "torch"))
    inputs = tokens(kernels, 30, value_dim=70)
    found = []
    for mechanism in (kernels, exact):
        first, rest = ([t[:, :, part] for t in inputs] for part in (slice(20), slice(20, 30)))
        _, state = mechanism.attend(*first, output_final_state=True)
        y, last = mechanism.attend(*rest, initial_state=state, output_final_state=True)
        g = torch.ones_like(last.memory[0]), torch.ones_like(y)
        grads = torch.autograd.grad((last.memory[0], y), inputs, g)
        found.append((y, last.memory[0], *grads))
    for a, b in zip(*found, strict=True):
        assert error(a, b.double()) <= 1e-5


@every_mechanism
@pytest.mark.parametrize("expendable", [False, True])
@torch.no_grad()
def test_decoding(name, expendable):
    """Token by token; the state is overwritten where that is allowed, and only there."""
    mechanism = heads(name, n_heads=2, n_kv_heads=1)
    inputs = [t.detach() for t in tokens(mechanism, 8, batch=2)]
    y, state = mechanism.attend(*[t[:, :, :5] for t in inputs], output_final_state=True)
    outputs = [y]
    for i in range(5, 8):
        before, copy = state.memory[0], state.memory[0].clone()
        token = [t[:, :, i : i + 1] for t in inputs]
        spent = state._replace(expendable=expendable)
        y, state = mechanism.attend(*token, initial_state=spent, output_final_state=True)
        assert (state.memory[0].data_ptr() == before.data_ptr()) is expendable
        assert torch.equal(before, copy) is not expendable
        outputs.append(y)
    expected, _, scores = specified(mechanism, *inputs)
    assert error(torch.cat(outputs, dim=2), expected) <= 1e-5 * cancellation(name, scores)
    whole = heads(name, n_heads=2, n_kv_heads=1, backend="torch")
    _, reference = whole.attend(*inputs, output_final_state=True)
    assert error(state.memory[0], reference.memory[0].double()) <= 1e-4
    assert state.length.tolist() == [8, 8]


def test_packed_states():
    mechanism = heads("yat-quadratic", n_heads=1)
    inputs = [t.detach() for t in tokens(mechanism, 20)]
    y, state = mechanism.attend(*inputs, cu_seqlens=[0, 5, 20], output_final_state=True)
    assert state.memory[0].shape[0] == 2
    more = [t.detach() for t in tokens(mechanism, 7, seed=3)]
    y = mechanism.attend(*more, cu_seqlens=[0, 4, 7], initial_state=state)
    exact = heads("yat-quadratic", n_heads=1, backend="torch")
    for (lo, hi), (a, b) in zip(((0, 5), (5, 20)), ((0, 4), (4, 7)), strict=True):
        joined = [
            torch.cat((t[:, :, lo:hi], m[:, :, a:b]), dim=2)
            for t, m in zip(inputs, more, strict=True)
        ]
        expected = exact.attend(*joined)[:, :, hi - lo :]
        assert error(y[:, :, a:b], expected.double()) <= 1e-5


def test_cross_attention():
    mechanism = heads("yat-performer-anchor", n_heads=2, n_kv_heads=1, causal=False)
    compare("yat-performer-anchor", mechanism, tokens(mechanism, 5, keys=150), torch.float32)


def test_a_mechanism_that_only_has_features():
    """Features without a spec are computed by PyTorch, whose gradient goes on from there."""
    from slay.features.feature_map import FeatureMap
    from slay.features.forms import Dense

    class SoftMap(FeatureMap):
        def forward(self, u, position):
            return Dense(u.softmax(-1))

    class Soft(LinearAttention):
        kernel, nonnegative, paper = "", True, ""

        def features(self):
            return SoftMap()

    mechanism = Soft.heads_only(8, 2, n_kv_heads=1, backend="triton")
    compare("linear", mechanism, tokens(mechanism, 40), torch.float32)


def test_the_same_bits_every_time():
    mechanism = heads("yat-performer-anchor", n_heads=1)
    inputs = tokens(mechanism, 140)
    first, second = (
        torch.autograd.grad(mechanism.attend(*inputs).square().sum(), inputs) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_operators_are_sound():
    """Schemas, fake implementations and gradients, as torch.compile needs them."""
    mechanism = heads("yat-performer-anchor", n_heads=1)
    spec = mechanism.feature_map.spec()
    q, _, v = tokens(mechanism, 20)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    of_features = (
        q, spec.p_weight, None, spec.f_weight, spec.f_numbers, None,
        "square", "exp", True, True, False,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.slay.features, of_features, test_utils=checks)
    P, F = (t.float().requires_grad_() for t in launch.features(*of_features))
    for chunk, final in ((0, False), (0, True), (128, True)):
        arguments = (
            P, F, P, F, v, None, None, None, None, None, "product", 0, [0.0] * 4, True, chunk, final
        )  # fmt: skip
        torch.library.opcheck(torch.ops.slay.linear_attention, arguments, test_utils=checks)


def test_compiled():
    mechanism = heads("yat-quadratic", n_heads=1)
    inputs = tokens(mechanism, 33)
    attend = torch.compile(mechanism.attend, backend="aot_eager", fullgraph=True)
    y, expected = attend(*inputs), mechanism.attend(*inputs)
    assert torch.equal(y, expected)
    g = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(o, inputs, g) for o in (y, expected))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "head_dim", "options", "dtype", "says"),
    [
        ("linear", 16, {}, torch.float64, "float64"),
        ("linear", 160, {}, torch.float32, "head dimensions up to 128, not 160"),
        ("yat-performer-anchor", 16, {"poly_dim": 200}, torch.float32, "200 x 32"),
        ("performer", 16, {"num_features": 600}, torch.float32, "up to 512 features"),
        ("yat-cubic", 64, {}, torch.float32, "cubic features of heads up to 32"),
    ],
)
def test_what_kernels_cannot_take(name, head_dim, options, dtype, says):
    cls = slay.get_attention_class(name)
    q, k, v = (torch.randn(1, 1, 4, head_dim, dtype=dtype) for _ in range(3))
    with pytest.raises(SlayError, match=says):
        cls.heads_only(head_dim, 1, backend="triton", **options).to(dtype).attend(q, k, v)
    mechanism = cls.heads_only(head_dim, 1, **options).to(dtype)
    assert mechanism.attend(q, k, v).isfinite().all()
    assert mechanism.backend_used == "torch"


def test_unknown_backend():
    with pytest.raises(SlayError, match="did you mean 'triton'"):
        heads("linear", backend="tritn")


def test_without_triton(monkeypatch):
    monkeypatch.setattr(select, "interpreted", lambda: None)
    mechanism = heads("linear", backend="auto")
    mechanism.attend(*tokens(mechanism, 4))
    assert mechanism.backend_used == "torch"
    with pytest.raises(SlayError, match="Triton is not installed"):
        heads("linear").attend(*tokens(mechanism, 4))


def test_import_does_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None; import slay, torch;"
        "q = torch.randn(1, 1, 4, 8); assert slay.attend(q, q, q, 'linear').isfinite().all()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
    assert importlib.util.find_spec("triton") is not None


def test_on_a_cpu_the_interpreter_is_asked_for():
    code = (
        "import slay, torch; q = torch.randn(1, 1, 4, 8);"
        "print(slay.attend(q, q, q, 'linear', backend='triton'))"
    )
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "kernels run on a CUDA GPU, and the tensors are on cpu" in done.stderr
