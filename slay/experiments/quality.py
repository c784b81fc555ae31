"""Error of a mechanism's output against exact spherical Yat attention on the same q, k and v."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slay.attention.layer import Attention
from slay.experiments.inputs import at_cosine
from slay.experiments.result import Progress, Result, choose_device, heads_only, stream
from slay.features.elementwise import unit
from slay.ops.normalise import divisor
from slay.pipeline.params import QualityParams
from slay.pipeline.record import Number
from slay.registry import INPUTS
from slay.theory import sphere_rule, yat_kernel

TARGET = "yat-spherical"


def run(params: QualityParams, progress: Progress) -> Result:
    """Metrics: relative l2, cosine, MSE and largest error of the causal output; kernel error; m.

    The target is evaluated in float64, the mechanism in float32 as it is used. `target_mse` is the
    mean square of the target, which is the MSE of an all-zero output. `row_metrics` describes the
    metrics of rows and normalisers; the curve has the quantiles of the normalisers.
    """
    device = choose_device(params.device)
    q, k, v = draw_inputs(params, progress)
    with torch.no_grad():
        progress(f"exact {TARGET} at d = {params.head_dim}, L = {params.seq_len}")
        shape = (params.head_dim, params.n_heads)
        shared = {"epsilon": params.epsilon, "seed": params.seed}
        exact = heads_only(TARGET, *shape, shared, {}).to(device)
        target = exact.attend(q.double(), k.double(), v.double())
        progress(params.attention)
        mechanism = heads_only(params.attention, *shape, shared, params.options).to(device)
        output = mechanism.attend(q, k, v).double()
        error = output - target
        metrics: dict[str, Number] = {
            "rel_l2": float(error.norm() / target.norm()),
            "cosine": float(F.cosine_similarity(output, target, dim=-1).mean()),
            "mse": float(error.square().mean()),
            "max_error": float(error.abs().max()),
            "target_mse": float(target.square().mean()),
            "kernel_error": kernel_error(mechanism, params),
            "num_features": getattr(mechanism, "num_features", None),
        }
        scores = mechanism.scores(q, k).tril()  # (B, H, L, L)
        z = scores.sum(-1)  # (B, H, L)
        weights = scores.double() / divisor(z).double().unsqueeze(-1)
        exact_scores = exact.scores(q.double(), k.double()).tril()
        exact_weights = exact_scores / exact_scores.sum(-1, keepdim=True)
    return Result(metrics | row_metrics(weights, exact_weights, z), distribution(relative(z)))


def draw_inputs(params: QualityParams, progress: Progress) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the kind `params.inputs`: (B, H, L, d) each."""
    device = choose_device(params.device)
    q, k, v = INPUTS.load(params.inputs)(params, progress)
    return q.to(device), k.to(device), v.to(device)


def row_metrics(weights: Tensor, exact: Tensor, z: Tensor) -> dict[str, Number]:
    """Failure metrics of attention rows. weights, exact: (..., L, L), rows sum to 1; z: (..., L).

    `row_tv`: the mean over rows of the total variation sum_j |p~_ij - p_ij| / 2, which exceeds 1
    where signed scores make weights negative. `nonpositive_share`: the share of rows with z_i <= 0.
    `min_normaliser`: the smallest value of `relative(z)`.
    """
    return {
        "row_tv": float((weights - exact).abs().sum(-1).mean() / 2),
        "nonpositive_share": float((z <= 0).double().mean()),
        "min_normaliser": float(relative(z).min()),
    }


def relative(z: Tensor) -> Tensor:
    """z_i / i over its mean magnitude: (..., L) -> (..., L). 1 is typical, 0 is a vanishing row."""
    mean = z.double() / torch.arange(1, z.shape[-1] + 1, device=z.device)
    return mean / mean.abs().mean()


def distribution(values: Tensor, steps: int = 50) -> list[dict[str, Number]]:
    """Quantiles of all values at evenly spaced shares from 0 to 1."""
    shares = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    found = np.quantile(values.flatten().double().cpu().numpy(), shares.numpy())
    return [
        {"share": s, "normaliser": z} for s, z in zip(shares.tolist(), found.tolist(), strict=True)
    ]


def kernel_error(mechanism: Attention, params: QualityParams, pairs: int = 8) -> float:
    """Relative Hilbert–Schmidt error of the mechanism's kernel over isotropic unit vectors.

    min_c ‖c k~ - k‖ / ‖k‖ with ‖f‖^2 = E f(q, k)^2: normalised attention is invariant to c. The
    mean over x = q·k is a quadrature; the mean over pairs at a given x is over `pairs` draws per
    head, so that rare near-duplicates carry their true weight.
    """
    device = choose_device(params.device)
    x, w = sphere_rule(params.head_dim, params.epsilon)
    step = max(1, len(x) // 2048)
    x, w = x[::step], w[::step] / w[::step].sum()  # (X,)
    draw = stream(params.seed, "pairs")
    shape = (pairs, len(x), params.n_heads, 1, params.head_dim)
    q = unit(torch.randn(shape, generator=draw))
    towards = torch.randn(shape, generator=draw)
    cosine = torch.from_numpy(x).float().clamp(-1.0, 1.0).view(-1, 1, 1, 1)
    k = at_cosine(q, towards, cosine)
    q, k = (t.flatten(0, 1).to(device) for t in (q, k))  # (pairs X, H, 1, d)
    approximate = mechanism.scores(q, k).double().cpu().view(pairs, len(x), -1)  # (pairs, X, H)
    weight = torch.from_numpy(w)
    exact = torch.from_numpy(yat_kernel(x, params.epsilon))
    norm = weight @ exact.square()
    product = weight @ (exact * approximate.mean((0, 2)))
    square = weight @ approximate.square().mean((0, 2))
    return math.sqrt(max(0.0, 1.0 - float(product**2 / (square * norm))))
