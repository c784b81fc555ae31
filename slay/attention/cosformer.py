"""Linear attention that favours near tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError, whole
from slay.features.forms import Dense, Product
from slay.ops.modes import readable
from slay.ops.triton.spec import FeatureSpec


class CosformerAttention(FeatureAttention):
    """k(q_i, k_j) = relu(q_i)·relu(k_j) cos(pi/2 (i - j) / M) (Qin et al. 2022), m = 2 d.

    cos(a - b) = cos a cos b + sin a sin b splits the weight into per-token features. M = `max_len`
    is fixed, and no sequence may be longer, so that outputs do not change when a sequence is
    extended.
    """

    kernel = r"\mathrm{relu}(q)^\top\mathrm{relu}(k)\cos\tfrac{\pi(i-j)}{2M}"
    exact = True
    nonnegative = True
    paper = "qin2022cosformer"

    numbers: Tensor  # (2, d), for `FeatureSpec`

    def __init__(self, embed_dim: int, n_heads: int, *, max_len: int = 8192, **layer: Any):
        super().__init__(embed_dim, n_heads, **layer)
        self.max_len = whole("max_len", max_len, 1)
        self.register_drawn()

    def draw(self) -> dict[str, Tensor]:
        return {"numbers": torch.tensor((0.0, 1.0)).unsqueeze(1).repeat(1, self.head_dim)}

    def feature_map(self, u: Tensor, position: Tensor) -> Product:
        turn = self.turn(position, u.dtype)
        return Product(Dense(turn.expand(*u.shape[:-1], 2)), Dense(F.relu(u)))

    def turn(self, position: Tensor, dtype: torch.dtype) -> Tensor:
        """cos and sin of pi/2 i / M: (B or 1, 1, n) -> (B or 1, 1, n, 2)."""
        angle = (0.5 * math.pi / self.max_len) * position.to(dtype).unsqueeze(-1)
        return torch.cat((angle.cos(), angle.sin()), dim=-1)

    def check_length(self, length: int, start: Tensor | None) -> None:
        if start is not None and start.numel() and readable(start):
            length += int(start.max())
        if length > self.max_len:
            raise SlayError(
                f"a sequence of {length} tokens is longer than max_len = {self.max_len}; "
                "give a larger max_len"
            )

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        turns = [
            self.turn(place, torch.float32).expand(*t.shape[:3], 2) for place, t in ((i, q), (j, k))
        ]
        return FeatureSpec(
            p="given", given_p=(turns[0], turns[1]), f="relu", f_numbers=self.numbers
        )
