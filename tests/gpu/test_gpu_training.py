"""What training does with a mechanism: compiling it, autocast and AdamW, CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from contract import heads, qkv

from slay.benchmarks.timing import Graph
from slay.models.gpt import GPT, GPTConfig

NAMES = ["linear", "yat-quadratic", "yat-performer-anchor", "standard"]
SIZES = {  # length, embed_dim, n_heads, n_layers, vocabulary
    "cpu": (16, 16, 2, 1, 32),
    "cuda": (512, 128, 2, 2, 512),
}
by_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def fresh_compiler():
    """The compiler counts what it compiled of a function, over all mechanisms."""
    torch._dynamo.reset()


@by_name
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_attention_is_the_same(name, device):
    length, d = (10, 6) if device.type == "cpu" else (600, 32)
    mechanism = heads(name, d, backend="auto").to(device)
    inputs = [t.to(device).requires_grad_() for t in qkv(length, head_dim=d, value_dim=d)]
    backend = "aot_eager" if device.type == "cpu" else "inductor"
    compiled = torch.compile(mechanism.attend, fullgraph=True, backend=backend)
    g = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)).to(device)
    results = []
    for attend in (mechanism.attend, compiled):
        y = attend(*inputs)
        results.append((y, *torch.autograd.grad(y, inputs, g)))
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= 1e-3 * a.norm()


@by_name
def test_training_steps_under_autocast_learn(name, device):
    length, width, n_heads, n_layers, vocabulary = SIZES[device.type]
    torch.manual_seed(0)
    config = GPTConfig(vocabulary, length, n_layers, n_heads, width, attention=name)
    model = GPT(config).to(device)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (2, length + 1), generator=draw).to(device)
    asked = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        exact = model.loss(*asked)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    losses = []
    for _ in range(12):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model.loss(*asked)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(exact.item(), rel=1e-2)
    assert losses[-1] < losses[0] - 0.5  # it learns random tokens by heart


@by_name
def test_a_graph_replays_what_a_call_computes(name, gpu):
    mechanism = heads(name, 32, backend="auto").to(gpu)
    q, k, v = (t.to(gpu, torch.bfloat16) for t in qkv(700, head_dim=32, value_dim=32))
    with torch.no_grad():
        graph = Graph(lambda: mechanism.attend(q, k, v), gpu)
        for _ in range(2):
            q.mul_(-0.5).add_(k)  # a graph reads its inputs anew
            graph()
            torch.testing.assert_close(graph.result, mechanism.attend(q, k, v))


def test_graphs_outlive_what_was_captured_and_freed_after_them(gpu):
    """Each keeps its inputs, and has memory of its own, in whatever order they are replayed."""

    def made(value):
        x = torch.full((1 << 20,), float(value), device=gpu)
        return Graph(lambda: (x * 2).cumsum(0)[-1], gpu)  # nobody else has x

    graphs = [made(value) for value in range(4)]
    torch.cuda.empty_cache()
    other = torch.full((1 << 24,), float("nan"), device=gpu)
    for _ in range(3):
        for i in (2, 0, 3, 1):
            graphs[i]()
        found = [graph.result.item() for graph in graphs]
        assert found == [2.0 * value * (1 << 20) for value in range(4)]
    assert other.isnan().all()
