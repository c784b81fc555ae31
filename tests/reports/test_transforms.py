"""torch.func, second derivatives, torch.compile, torch.export, hooks: what is done to a model."""

from __future__ import annotations

import pytest
import torch
from contract import every_mechanism, qkv
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vmap

import slay
from slay.errors import SlayError
from slay.models.gpt import GPT, GPTConfig


def gpt(attention, positions="rotary", **settings):
    torch.manual_seed(0)
    return GPT(GPTConfig(11, 400, 2, 2, 16, attention, positions=positions, **settings)).eval()


def near(found, expected):
    scale = 1 + expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8 * scale)


@every_mechanism
@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_torch_func(name, causal):
    """torch.func.grad fails: "must override the setup_context staticmethod"."""
    inputs = qkv(70, dtype=torch.float64, n_heads=2, kv=1)  # more than one block, and chunk

    def loss(q, k, v):
        y = slay.attend(q, k, v, name, causal=causal)
        return (y * torch.arange(y.numel()).view_as(y).cos()).sum()

    leaves = [t.clone().requires_grad_() for t in inputs]
    expected = torch.autograd.grad(loss(*leaves), leaves, materialize_grads=True)
    for a, b in zip(grad(loss, argnums=(0, 1, 2))(*inputs), expected, strict=True):
        near(a, b)


@every_mechanism
def test_vectorised_jacobians_and_forward_mode(name):
    """vmap, jacrev and jvp fail over in-place operations or a missing rule."""
    q, k, v = qkv(5, dtype=torch.float64, batch=1, n_heads=1)
    rows = torch.stack((q, q.flip(2)))
    expected = torch.stack([slay.attend(row, k, v, name) for row in rows])
    near(vmap(lambda q: slay.attend(q, k, v, name))(rows), expected)
    jacobian = jacrev(lambda v: slay.attend(q, k, v, name))(v)
    _, along = jvp(lambda v: slay.attend(q, k, v, name), (v,), (v,))
    near(along, (jacobian * v).sum((4, 5, 6, 7)))
    with forward_ad.dual_level():
        y = slay.attend(q, k, forward_ad.make_dual(v, v), name)
        near(forward_ad.unpack_dual(y).tangent, along)


@every_mechanism
def test_second_derivatives(name):
    """Gradient penalties fail: once_differentiable; PyTorch's own attention has none."""
    inputs = [t.requires_grad_() for t in qkv(4, dtype=torch.float64, batch=1, n_heads=1)]

    def slope(*inputs):
        y = slay.attend(*inputs, name).square().sum()
        found = torch.autograd.grad(y, inputs, create_graph=True, materialize_grads=True)
        return sum(g.square().sum() for g in found)

    if name == "standard":
        with pytest.raises(RuntimeError, match="not implemented"):
            torch.autograd.grad(slope(*inputs), inputs)
        return
    found = torch.autograd.grad(slope(*inputs), inputs, materialize_grads=True)
    for i, t in enumerate(inputs):
        step = 1e-5 * torch.randn(t.shape, generator=torch.Generator().manual_seed(i)).double()
        ends = [
            slope(*(u + sign * step if u is t else u for u in inputs)).detach() for sign in (1, -1)
        ]
        difference = (ends[0] - ends[1]).item() / 2
        assert (found[i] * step).sum().item() == pytest.approx(difference, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("attention", ["standard", "yat-spherical", "linear", "cosformer"])
@pytest.mark.parametrize("again", [True, False])
def test_gradients_of_every_sample_of_a_model(attention, positions, again):
    """vmap over grad of a model's loss fails over data-dependent control flow."""
    model = gpt(attention, positions, short_conv=2, checkpoint=again).double()
    tokens = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))
    weights = dict(model.named_parameters())

    def loss(weights, row):
        logits = functional_call(model, weights, (row[None, :-1],))
        return torch.nn.functional.cross_entropy(logits[0], row[1:])

    found = vmap(grad(loss), in_dims=(None, 0))(weights, tokens)
    for i, row in enumerate(tokens):
        one = torch.autograd.grad(model.loss(row[None, :-1], row[None, 1:]), model.parameters())
        for name, expected in zip(weights, one, strict=True):
            near(found[name][i], expected)


@pytest.mark.parametrize("attention", ["standard", "yat-spherical", "linear", "cosformer"])
def test_one_graph_of_every_length(attention):
    """torch.compile of a model stops at the recompile limit: a graph for every length."""
    torch._dynamo.reset()
    model, count = gpt(attention, short_conv=2, n_kv_heads=1), CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    for length in (5, 300, 128, 256, 3, 127, 129, 64, 7, 9, 11, 2, 200, 255, 257, 383, 384, 385):
        tokens = torch.randint(11, (1, length))
        with torch.no_grad():
            torch.testing.assert_close(compiled(tokens), model(tokens), rtol=1e-3, atol=1e-4)
    assert count.frame_count <= 3


@every_mechanism
def test_one_graph_of_a_call_by_name(name):
    """slay.attend in a compiled function: import_module should not be traced."""
    torch._dynamo.reset()
    count = CompileCounter()

    @torch.compile(fullgraph=True, dynamic=True, backend=count)
    def compiled(q, k, v):
        return slay.attend(q, k, v, name, causal=False)

    for length in (5, 300, 3, 129, 64, 257):
        inputs = qkv(length, n_heads=2, kv=1)
        expected = slay.attend(*inputs, name, causal=False)
        torch.testing.assert_close(compiled(*inputs), expected, rtol=1e-3, atol=1e-3)
    assert count.frame_count <= 3


@pytest.mark.parametrize("attention", ["standard", "yat-spherical", "linear", "yat-quadratic"])
def test_an_exported_program_takes_any_length(attention):
    """torch.export: constraints violated, the length is specialised."""
    length = torch.export.Dim("length", min=2, max=400)
    heads = slay.get_attention_class(attention).heads_only(4, 2, n_kv_heads=1)

    class Heads(torch.nn.Module):
        def forward(self, q, k):
            return heads.attend(q, k, k) + slay.attend(q, k, k, attention)

    example = torch.randn(1, 2, 150, 4), torch.randn(1, 1, 150, 4)
    shapes = {"q": {2: length}, "k": {2: length}}
    program = torch.export.export(Heads(), example, dynamic_shapes=shapes).module()
    for n in (2, 128, 300):
        q, k = torch.randn(1, 2, n, 4), torch.randn(1, 1, n, 4)
        torch.testing.assert_close(program(q, k), Heads()(q, k), rtol=1e-3, atol=1e-4)


def test_boundaries_in_a_compiled_model():
    """cu_seqlens as a tensor under torch.compile: a data-dependent expression, pages long."""
    torch._dynamo.reset()
    model, tokens = gpt("linear"), torch.randint(11, (1, 6))
    expected = model(tokens, cu_seqlens=[0, 2, 6])
    whole = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(tokens, cu_seqlens=[0, 2, 6]), expected)
    with pytest.raises(RuntimeError, match="cu_seqlens is a tensor"):
        whole(tokens, cu_seqlens=torch.tensor([0, 2, 6]))
    parts = torch.compile(model, backend="eager")
    torch.testing.assert_close(parts(tokens, cu_seqlens=torch.tensor([0, 2, 6])), expected)
    with pytest.raises(SlayError, match="cu_seqlens is a tensor"):
        vmap(lambda b: model(tokens, cu_seqlens=b))(torch.tensor([[0, 2, 6]]))


class Adapter(torch.nn.Module):
    """A layer with a low-rank addition, which hides its weight."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.down = layer, torch.nn.Linear(layer.in_features, 2).double()
        self.up = torch.nn.Linear(2, layer.out_features).double()

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


@every_mechanism
def test_adapters_and_hooks_count_everywhere(name):
    """In cross-attention an adapter or a hook on qkv has no effect."""
    layer = slay.get_attention_class(name)(8, 2, causal=False, bias=True).double()
    x, context = torch.randn(2, 1, 5, 8, dtype=torch.float64)
    calls = []
    layer.qkv = Adapter(layer.qkv)
    layer.out = Adapter(layer.out)
    layer.qkv.register_forward_hook(lambda *_: calls.append("qkv"))
    layer.out.register_forward_hook(lambda *_: calls.append("out"))
    near(layer(x, x), layer(x))
    layer(x, context).sum().backward()
    assert "qkv" in calls
    assert "out" in calls
    assert all(p.grad is not None for p in layer.out.parameters())


def test_hooks_of_a_model_run_in_generation():
    """Hooks on the model, its head or its embedding are skipped by generate and step."""
    model, calls = gpt("linear", tie_head=False), []
    for module in (model, model.token, model.head, model.blocks[0]):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    model.generate(torch.tensor([[1, 2, 3]]), 3)
    for module in (model, model.token, model.head, model.blocks[0]):
        assert sum(called is module for called in calls) == 3
