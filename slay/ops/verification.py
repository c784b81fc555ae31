"""Whether kernels may be used unasked: only where this device verified them."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def unverified(device: torch.device, keys: Iterable[str]) -> str | None:
    """Why kernels for these classes of calls are not used unasked; warns of it once a process."""
    from slay.ops.triton import verified

    for key in keys:
        reason = verified.reason(device, key)
        if reason is not None:
            verified.warn_once(reason)
            return reason
    return None
