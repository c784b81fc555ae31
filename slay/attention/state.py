"""What a mechanism carries from token to token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class State(NamedTuple):
    """Everything that earlier tokens leave behind; hand it to the next call as it is.

    `memory` is the mechanism's own: S, (B, K, e + 1, m), for features, whatever the context; the
    keys, values and padding so far for exact kernels, which grow with it. `length`: (B,), tokens
    seen. `recent`: (B, W - 1, ...), the last inputs of a layer's short convolution. `expendable`:
    the next call may overwrite it, which saves a copy (`state._replace(expendable=True)`).
    """

    memory: tuple[Tensor | None, ...]
    length: Tensor
    recent: Tensor | None = None
    expendable: bool = False


torch.serialization.add_safe_globals([State])  # `torch.load` reads it with `weights_only=True`
