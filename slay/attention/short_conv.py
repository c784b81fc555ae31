"""Short causal depthwise convolution with packed sequences, padding and a carried state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slay.errors import SlayError


class ShortConvolution(nn.Module):
    """y_t = sum_{j < W} w_j x_{t-j}, channel by channel, x = 0 before a sequence begins.

    Initialised to the identity (w_0 = 1), so that a layer with it starts as one without.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        if width < 2:
            raise SlayError(f"short_conv = {width}: must be 0 (off) or a width of at least 2")
        self.width = width
        self.weight = nn.Parameter(torch.empty(width, channels))  # (W, C)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reset to the identity."""
        self.weight.zero_()[0] = 1.0

    def forward(
        self,
        x: Tensor,
        recent: Tensor | None = None,
        lengths: list[int] | None = None,
        padding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x: (B, L, C); `recent`: (B or N, W - 1, C), the inputs before; `lengths` of N sequences.

        Returns y: (B, L, C) and the last W - 1 inputs of every sequence. Positions where `padding`,
        (B, L), is True are skipped.
        """
        if padding is not None:
            return self._between(x, recent, padding)
        if lengths is None:
            return self._one(x, recent)
        before = [None] * len(lengths) if recent is None else recent.split(1)
        parts = [self._one(*p) for p in zip(x.split(lengths, dim=1), before, strict=True)]
        ys, ends = zip(*parts, strict=True)
        return torch.cat(ys, dim=1), torch.cat(ends)

    def _between(self, x: Tensor, recent: Tensor | None, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the tokens that are not padding, convolve them and scatter the results back."""
        place = padding.byte().argsort(dim=1, stable=True).unsqueeze(-1).expand_as(x)
        if recent is None:
            recent = x.new_zeros(x.shape[0], self.width - 1, x.shape[2])
        x = x.gather(1, place)
        y, _ = self._one(x, recent)
        there = (~padding).sum(1, keepdim=True)  # (B, 1)
        last = there + torch.arange(self.width - 1, device=x.device)  # (B, W - 1)
        ends = torch.cat((recent.to(x.dtype), x), dim=1)
        ends = ends.gather(1, last.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        return torch.empty_like(y).scatter(1, place, y), ends

    def _one(self, x: Tensor, recent: Tensor | None) -> tuple[Tensor, Tensor]:
        if recent is None:
            recent = x.new_zeros(x.shape[0], self.width - 1, x.shape[2])
        padded = torch.cat((recent.to(x.dtype), x), dim=1)  # (B, W - 1 + L, C)
        length = x.shape[1]
        weight = self.weight.to(x.dtype)
        y = weight[0] * x
        for j in range(1, self.width):
            y = y + weight[j] * padded[:, self.width - 1 - j :][:, :length]
        return y, padded[:, length:].clone()  # a view would keep the whole sequence in memory
