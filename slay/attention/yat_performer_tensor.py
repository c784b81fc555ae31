"""TensorSketch features for x^2 times random exponentials for the rest."""

from __future__ import annotations

import torch

from slay.attention.mixture import TensorAttention
from slay.features.polynomial import SketchedSquares, sketch_spectrum


class SketchAttention(TensorAttention):
    """p(u) = the TensorSketch of u (x) u in P dimensions (Pham & Pagh 2013), as its spectrum.

    Unbiased for x^2; scores can be negative.
    """

    kernel = r"\hat x^2_{\mathrm{sketch}}\cdot\sum_r w_r\,e^{2s_rx}"
    nonnegative = False

    def squares(self, draw: torch.Generator) -> SketchedSquares:
        shape = (2, self.n_kv_heads, self.head_dim)
        bucket = torch.randint(self.poly_dim, shape, generator=draw)
        sign = torch.randint(2, shape, generator=draw) * 2.0 - 1.0
        spectra = [sketch_spectrum(*c, self.poly_dim) for c in zip(bucket, sign, strict=True)]
        return SketchedSquares(torch.stack(spectra), self.poly_dim)
