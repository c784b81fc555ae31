"""The Yat neuron: similarity and proximity to its weights in one number."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slay.epsilon import DEFAULT_EPSILON
from slay.errors import SlayError, positive, whole
from slay.ops.modes import without_autocast


def yat(
    x: Tensor, weight: Tensor, epsilon: float = DEFAULT_EPSILON, *, bias: Tensor | None = None
) -> Tensor:
    """y = (x·w + b)^2 / (‖x - w‖^2 + eps) for every row w of the weight (Bouhsine 2026).

    x: (..., in), weight: (out, in), bias: (out,) or None for b = 0. Returns (..., out) in x's
    dtype, evaluated in float32, or in float64 if an argument is, regardless of autocast. ‖x - w‖^2
    is a difference of larger numbers and is clamped from below at their rounding error.
    """
    _check(x, weight, epsilon)
    dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    with without_autocast(x.device):
        u, w = x.to(dtype), weight.to(dtype)
        dot = F.linear(u, w)  # (..., out)
        norms = u.square().sum(-1, keepdim=True) + w.square().sum(-1)
        distance = torch.maximum(norms - 2.0 * dot, norms * torch.finfo(dtype).eps)
        if bias is not None:
            dot = dot + bias.to(dtype)
        return (dot * (dot / (distance + epsilon))).to(x.dtype)


class YatLinear(nn.Module):
    """y = s (x·w + b)^2 / (‖x - w‖^2 + eps) for every row w: (..., in) -> (..., out).

    A linear layer and its activation in one. The bias b: (out,) lies inside the square, where a
    linear layer that follows cannot make up for it. The scale s: (1,) is learned.

    Rows are initialised from N(0, 1), with the norm of normalised inputs, b = 0 and s = 1: y is
    then half a chi-square variable at any width.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        scale: bool = True,
        epsilon: float = DEFAULT_EPSILON,
    ):
        super().__init__()
        self.in_features = in_features = whole("in_features", in_features, 1)
        self.out_features = out_features = whole("out_features", out_features, 1)
        self.epsilon = positive("epsilon", epsilon)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.scale = nn.Parameter(torch.empty(1)) if scale else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Redraw the weight; reset the bias to 0 and the scale to 1."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in). Returns (..., out), in x's dtype."""
        y = yat(x, self.weight, self.epsilon, bias=self.bias)
        return y if self.scale is None else y * self.scale.to(y.dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, "
            f"scale={self.scale is not None}, epsilon={self.epsilon}"
        )


def _check(x: Tensor, weight: Tensor, epsilon: float) -> None:
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[-1]:
        raise SlayError(
            f"x and weight have shapes {tuple(x.shape)} and {tuple(weight.shape)}; "
            "expected (..., in) and (out, in)"
        )
    if not x.dtype.is_floating_point:
        raise SlayError(f"x has dtype {x.dtype}; expected a floating-point dtype")
    positive("epsilon", epsilon)
