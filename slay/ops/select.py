"""Backend selection: PyTorch everywhere, Triton kernels where supported."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from slay.errors import SlayError, unknown
from slay.ops.modes import transformed

Backend = Literal["auto", "torch", "triton"]
WIDEST = 128  # head and value dimensions
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def check_backend(backend: str) -> None:
    """Raise `UnknownNameError` for an unknown backend."""
    if backend not in get_args(Backend):
        raise unknown("backend", backend, get_args(Backend))


def choose(backend: str, reason: str | None) -> Literal["torch", "triton"]:
    """Return the backend of a call; `reason` is why kernels cannot compute it, None if they can.

    Raises `SlayError` with the reason for backend="triton".
    """
    if backend == "torch" or (backend == "auto" and reason is not None):
        return "torch"
    if reason is not None:
        raise SlayError(f'backend="triton": {reason}; backend="auto" falls back to PyTorch')
    return "triton"


# True if Triton's interpreter runs the kernels, also on a CPU; None without Triton. Triton itself
# is imported only where kernels are used.
_interpreted = None
if find_spec("triton") is not None:
    _interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def interpreted() -> bool | None:
    return _interpreted


def tensor_limit(backend: str, q: Tensor, v: Tensor) -> str | None:
    """Return why kernels do not support queries (B, H, L, d) and values (B, K, Lk, e), or None.

    On a CPU, Triton's slow interpreter is used only for backend="triton".
    """
    interpreter = interpreted()
    if interpreter is None:
        return "Triton is not installed"
    if q.device.type != "cuda" and not (interpreter and backend == "triton"):
        return f"kernels run on a CUDA GPU, and the tensors are on {q.device.type}"
    if transformed():
        return "kernels have no rules for torch.func and forward mode"
    if q.dtype not in DTYPES:
        names = ", ".join(str(dtype) for dtype in DTYPES)
        return f"kernels take {names}, not {q.dtype}"
    for name, width in (("head", q.shape[-1]), ("value", v.shape[-1])):
        if width > WIDEST:
            return f"kernels take {name} dimensions up to {WIDEST}, not {width}"
    return None
