"""Verification of kernels: backend="auto" uses only those verified on this device."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def unverified(device: torch.device, keys: Iterable[str]) -> str | None:
    """Return why kernels for these call classes are not used by default, or None.

    Warns of each reason once per process.
    """
    from slay.ops.triton import verified

    for key in keys:
        reason = verified.reason(device, key)
        if reason is not None:
            verified.warn_once(reason)
            return reason
    return None
