"""Points of the figures that show a mechanism's kernel, one function per kind of figure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slay.attention.layer import Attention, options_of
from slay.errors import SlayError
from slay.experiments.inputs import at_cosine
from slay.experiments.result import Progress, Result, choose_device, heads_only, stream
from slay.features.elementwise import unit
from slay.features.quadrature import laguerre
from slay.ops.normalise import divisor
from slay.pipeline.params import AnalysisParams
from slay.pipeline.record import Number
from slay.registry import get_attention_class
from slay.theory import sphere_rule, yat_kernel

TARGET = "yat-spherical"
PAIRS = 16  # pairs of vectors at every cosine
Points = list[dict[str, Number]]


def run(params: AnalysisParams, progress: Progress) -> Result:
    """Return the figure's points as the curve, and their number as the metric."""
    progress(f"{params.kind} of {params.attention}")
    with torch.no_grad():
        points = KINDS[params.kind](params)
    return Result({"points": len(points)}, points)


def profile(params: AnalysisParams) -> Points:
    """Kernel k(x) for cosines x from -1 to 1: mean, 10 % and 90 % quantiles over draws, and slope.

    k is the score of the mechanism's heads for unit vectors, scaled to a mean square over x of 1;
    `exact` is the target, scaled likewise.
    """
    x = torch.cos(torch.linspace(math.pi, 0.0, 181))  # even steps of the angle
    draw = stream(params.seed, "pairs")
    shape = (len(x), params.n_heads, PAIRS, params.head_dim)
    q = unit(torch.randn(shape, generator=draw))
    k = at_cosine(q, torch.randn(shape, generator=draw), x.view(-1, 1, 1, 1))
    q, k = (t.transpose(1, 2).flatten(0, 1).unsqueeze(2) for t in (q, k))  # (X pairs, H, 1, d)
    found = _scores(params, q, k).view(len(x), -1)  # (X, pairs H)
    mean = found.mean(1)
    scale = _root_mean_square(mean)
    exact = torch.from_numpy(yat_kernel(x.double().numpy(), params.epsilon))
    exact = exact / _root_mean_square(exact)
    slope, exact_slope = (
        torch.from_numpy(np.gradient(t.numpy(), x.double().numpy())) for t in (mean / scale, exact)
    )
    low, high = (found / scale).quantile(torch.tensor([0.1, 0.9]).double(), dim=1)
    return _points(
        x=x, angle=torch.acos(x.clamp(-1, 1)), kernel=mean / scale, low=low, high=high,
        slope=slope, exact=exact, exact_slope=exact_slope,
    )  # fmt: skip


def quadrature(params: AnalysisParams) -> Points:
    """Relative error of R = 1 to 16 quadrature nodes, and each node's contribution at every x.

    Error: ‖k_R - k‖ / ‖k‖ with ‖f‖^2 = E f(x)^2 for isotropic unit vectors. Contribution: node r's
    w_r x^2 exp((2x - C) s_r) over the kernel, for the mechanism's own number of nodes.
    """
    known = options_of(get_attention_class(params.attention))
    if "num_quadrature_nodes" not in known:
        raise SlayError(f"kind = quadrature: {params.attention} has no num_quadrature_nodes")
    x, w = sphere_rule(params.head_dim, params.epsilon)
    exact = yat_kernel(x, params.epsilon)
    points: Points = []
    for nodes in range(1, 17):
        error = sum(_nodes(nodes, params.epsilon, x)) - exact
        relative = math.sqrt(float(w @ error**2) / float(w @ exact**2))
        points.append({"nodes": nodes, "error": relative})
    number = int(params.options.get("num_quadrature_nodes", known["num_quadrature_nodes"]))
    grid = np.linspace(-1.0, 1.0, 101)
    exact = yat_kernel(grid, params.epsilon)
    for index, part in enumerate(_nodes(number, params.epsilon, grid)):
        share = np.divide(part, exact, out=np.zeros_like(part), where=exact > 0)
        for cosine, value in zip(grid, share, strict=True):
            points.append({"node": index + 1, "x": float(cosine), "share": float(value)})
    return points


def _nodes(number: int, epsilon: float, x: np.ndarray) -> list[np.ndarray]:
    s, w = laguerre(number, epsilon)
    return [w_r * x**2 * np.exp(2.0 * s_r * x) for s_r, w_r in zip(s, w, strict=True)]


def reconstruction(params: AnalysisParams) -> Points:
    """Kernel matrix over L points of a great circle: the mechanism's first head and the target.

    The mechanism's matrix is scaled to the target by least squares.
    """
    u = _circle(params.seq_len, params.head_dim).expand(1, params.n_heads, -1, -1)
    found, exact = _scores(params, u, u)[0, 0], _exact(params, u, u)[0, 0]
    found = found * (found * exact).sum() / found.square().sum()
    rows, columns = torch.meshgrid(*[torch.arange(params.seq_len)] * 2, indexing="ij")
    return _points(i=rows, j=columns, kernel=found, exact=exact)


def entropy(params: AnalysisParams) -> Points:
    """Entropy of an attention row over L keys and the weight of one key, against that key's cosine.

    All other keys are isotropic. The entropy is divided by log L: uniform weights give 1.
    """
    x = torch.linspace(0.0, 1.0, 41)
    draw = stream(params.seed, "entropy")
    shape = (len(x), params.n_heads, 1, params.head_dim)
    q = unit(torch.randn(shape, generator=draw))
    k = torch.randn(len(x), params.n_heads, params.seq_len, params.head_dim, generator=draw)
    k = unit(k)
    k[:, :, :1] = at_cosine(q, torch.randn(shape, generator=draw), x.view(-1, 1, 1, 1))
    scores = _scores(params, q, k).squeeze(2)  # (X, H, L)
    weights = scores / divisor(scores.sum(-1)).unsqueeze(-1)
    bits = -(weights.clamp_min(1e-30).log() * weights.clamp_min(0)).sum(-1)  # (X, H)
    log = math.log(max(2, params.seq_len))
    return _points(x=x, entropy=bits.mean(1) / log, weight=weights[..., 0].mean(1))


def maps(params: AnalysisParams) -> Points:
    """Causal weights of the first head over L tokens; each query has cosine 0.8 with one key."""
    draw = stream(params.seed, "maps")
    shape = (1, params.n_heads, params.seq_len, params.head_dim)
    k, towards = (unit(torch.randn(shape, generator=draw)) for _ in range(2))
    share = torch.rand(shape[:3], generator=draw)
    chosen = (share * torch.arange(1, params.seq_len + 1)).long()
    q = at_cosine(k.gather(2, chosen.unsqueeze(-1).expand(shape)), towards, torch.tensor(0.8))
    scores = _scores(params, q, k).tril()
    weights = (scores / divisor(scores.sum(-1)).unsqueeze(-1))[0, 0]
    rows, columns = torch.meshgrid(*[torch.arange(params.seq_len)] * 2, indexing="ij")
    return _points(i=rows, j=columns, weight=weights)


def sphere(params: AnalysisParams) -> Points:
    """k(u, pole) over the sphere in R^3, u at a polar angle theta and an azimuth phi.

    The pole is the first axis. phi = 0 and phi = pi together are the polar profile. The largest
    value is 1.
    """
    theta, phi = torch.linspace(0.0, math.pi, 46), torch.linspace(0.0, 2 * math.pi, 61)
    theta, phi = (t.flatten() for t in torch.meshgrid(theta, phi, indexing="ij"))
    u = torch.stack(
        (theta.cos(), theta.sin() * phi.cos(), theta.sin() * phi.sin()), dim=-1
    )  # (N, 3)
    pole = torch.tensor([1.0, 0.0, 0.0])
    q = u.view(-1, 1, 1, 3).expand(-1, params.n_heads, -1, -1)
    found = _scores(params, q, pole.expand_as(q))[:, 0].flatten()
    return _points(theta=theta, phi=phi, kernel=found / found.abs().max())


def decision(params: AnalysisParams) -> Points:
    """Index of the largest k(u, w_i) among five random neurons w_i, for u in a planar square."""
    axis = torch.linspace(-2.0, 2.0, 61)
    x, y = (t.flatten() for t in torch.meshgrid(axis, axis, indexing="xy"))
    u = torch.stack((x, y), dim=-1).view(-1, 1, 1, 2).expand(-1, params.n_heads, -1, -1)
    neurons = torch.randn(5, 2, generator=stream(params.seed, "neurons"))
    found = _scores(params, u, neurons.expand(len(x), params.n_heads, -1, -1))[:, 0, 0]  # (N, 5)
    value, winner = found.max(-1)
    points = _points(x=x, y=y, winner=winner, kernel=value)
    return points + [
        {"neuron": i, "x": float(w[0]), "y": float(w[1])} for i, w in enumerate(neurons)
    ]


def _scores(params: AnalysisParams, q: Tensor, k: Tensor) -> Tensor:
    """The mechanism's scores in double precision: (B, H, Lq, Lk)."""
    return _given(params, params.attention, params.options, q, k)


def _exact(params: AnalysisParams, q: Tensor, k: Tensor) -> Tensor:
    return _given(params, TARGET, {}, q, k)


def _given(params: AnalysisParams, name: str, options: dict, q: Tensor, k: Tensor) -> Tensor:
    device = choose_device(params.device)
    shared = {"epsilon": params.epsilon, "seed": params.seed}
    mechanism: Attention = heads_only(name, q.shape[-1], params.n_heads, shared, options).to(device)
    return mechanism.scores(q.to(device), k.to(device)).double().cpu()


def _circle(number: int, dim: int) -> Tensor:
    """Points of the circle through the first two axes: (number, dim)."""
    angle = torch.linspace(0.0, 2 * math.pi, number + 1)[:-1]
    circle = torch.stack((angle.cos(), angle.sin()), dim=-1)
    return torch.cat((circle, torch.zeros(number, dim - 2)), dim=-1)


def _root_mean_square(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def _points(**columns: Tensor) -> Points:
    """Convert columns of equal length to rows, rounded to 7 decimals."""
    lists = [
        [round(v, 7) for v in column.flatten().tolist()] if column.is_floating_point()
        else column.flatten().tolist()
        for column in columns.values()
    ]  # fmt: skip
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


KINDS: dict[str, Callable[[AnalysisParams], Points]] = {
    "profile": profile,
    "quadrature": quadrature,
    "reconstruction": reconstruction,
    "entropy": entropy,
    "maps": maps,
    "sphere": sphere,
    "decision": decision,
}
