"""Recurrent state of a mechanism."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class State(NamedTuple):
    """State after earlier tokens, to be passed to the next call unchanged.

    `memory` depends on the mechanism: S, (B, K, e + 1, m), of constant size for feature maps; keys,
    values and padding so far, which grow with the context, for exact kernels. `length`: (B,),
    tokens seen. `recent`: (B, W - 1, ...), the last inputs of a layer's short convolution.
    `expendable`: the next call may overwrite it, which saves a copy
    (`state._replace(expendable=True)`).
    """

    memory: tuple[Tensor | None, ...]
    length: Tensor
    recent: Tensor | None = None
    expendable: bool = False


torch.serialization.add_safe_globals([State])  # for `torch.load` with `weights_only=True`
