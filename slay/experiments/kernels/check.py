"""What is timed must be right: our kernels against our PyTorch code in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.experiments.kernels.contestants import Tokens

LENGTH = 2200  # more than a chunk of states, and no multiple of one
BOUNDS = {torch.bfloat16: 2e-2, torch.float16: 2e-2, torch.float32: 1e-4}


def errors(
    own: Attention, reference: Attention, tokens: Tokens, *, decode: bool
) -> dict[str, float]:
    """Relative root mean square of the output, its gradients and, if `decode`, a token's output.

    `reference` computes in float32 from the same numbers.
    """
    exact = Tokens(*(t.float() for t in tokens))
    found, wanted = _gradients(own, tokens), _gradients(reference, exact)
    pairs = dict(zip(("y", "dq", "dk", "dv"), zip(found, wanted, strict=True), strict=True))
    if decode:
        pairs["token"] = _token(own, tokens), _token(reference, exact)
    return {name: error(*pair) for name, pair in pairs.items()}


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


def _gradients(mechanism: Attention, tokens: Tokens) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tokens.qkv]
    with torch.enable_grad():
        y = mechanism.attend(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, tokens.g)]


def _token(mechanism: Attention, tokens: Tokens) -> Tensor:
    """The output of the last token, after a state of all others."""
    context = [t[:, :, :-1].contiguous() for t in tokens.qkv]
    last = [t[:, :, -1:].contiguous() for t in tokens.qkv]
    with torch.no_grad():
        _, state = mechanism.attend(*context, output_final_state=True)
        spent = state._replace(expendable=True)
        return mechanism.attend(*last, initial_state=spent, output_final_state=True)[0]
