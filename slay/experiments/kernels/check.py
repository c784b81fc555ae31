"""What is timed must be right: our kernels against our PyTorch code in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.experiments.kernels.contestants import Tokens
from slay.experiments.kernels.settings import Mode

LENGTH = 2200  # more than a chunk of states, and no multiple of one
BOUNDS = {torch.bfloat16: 2e-2, torch.float16: 2e-2, torch.float32: 1e-4}


def errors(own: Attention, reference: Attention, tokens: Tokens, mode: Mode) -> dict[str, float]:
    """Relative root mean square of the output, of its gradients too, or of one token's output.

    `reference` computes in float32 from the same numbers.
    """
    exact = Tokens(*(t.float() for t in tokens))
    parts = _PARTS[mode]
    found, wanted = parts(own, tokens), parts(reference, exact)
    return {name: error(found[name], wanted[name]) for name in found}


def error(found: Tensor, expected: Tensor) -> float:
    """Relative root mean square; infinite where something is not finite."""
    if not found.isfinite().all():
        return float("inf")
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def refusal(found: dict[str, float], dtype: torch.dtype) -> str:
    """Why a kernel with such errors is not timed; "" if it may be."""
    wrong = [
        f"{name} by {value:.2g}" for name, value in found.items() if not value <= BOUNDS[dtype]
    ]
    if not wrong:
        return ""
    return f"differs from PyTorch in float32: {', '.join(wrong)} (allowed {BOUNDS[dtype]:g})"


def _output(mechanism: Attention, tokens: Tokens) -> dict[str, Tensor]:
    with torch.no_grad():
        return {"y": mechanism.attend(*tokens.qkv)}


def _gradients(mechanism: Attention, tokens: Tokens) -> dict[str, Tensor]:
    leaves = [t.detach().requires_grad_() for t in tokens.qkv]
    with torch.enable_grad():
        y = mechanism.attend(*leaves)
        dq, dk, dv = torch.autograd.grad(y, leaves, tokens.g)
    return {"y": y.detach(), "dq": dq, "dk": dk, "dv": dv}


def _token(mechanism: Attention, tokens: Tokens) -> dict[str, Tensor]:
    """The output of the last token, after a state of all others."""
    context = [t[:, :, :-1].contiguous() for t in tokens.qkv]
    last = [t[:, :, -1:].contiguous() for t in tokens.qkv]
    with torch.no_grad():
        _, state = mechanism.attend(*context, output_final_state=True)
        spent = state._replace(expendable=True)
        y, _ = mechanism.attend(*last, initial_state=spent, output_final_state=True)
    return {"token": y}


_PARTS = {"forward": _output, "forward_backward": _gradients, "decode": _token}
