"""Check kernels before they are timed: against PyTorch code in float32, and for crashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.benchmarks.backends import by_kernels, call_of, mechanism_of
from slay.benchmarks.calls import Inputs
from slay.benchmarks.settings import BenchConfig, KernelParams, Mode, ModelParams
from slay.benchmarks.timing import Graph

LENGTH = 2200  # more than one chunk of states, and not a multiple of it
BOUNDS = {torch.bfloat16: 2e-2, torch.float16: 2e-2, torch.float32: 1e-4}


class Subject(NamedTuple):
    """Kernels that are checked together."""

    attention: str
    mode: Mode
    n_heads: int
    head_dim: int

    def __str__(self) -> str:
        heads = f"{self.n_heads} heads of {self.head_dim}"
        return f"{self.attention} by triton, {self.mode} of {heads}"


def subject(params: KernelParams) -> Subject:
    """The kernels that compute a call; a training step uses forward and backward kernels."""
    mode: Mode = "forward_backward" if params.mode == "training_step" else params.mode
    return Subject(params.attention, mode, params.n_heads, params.head_dim)


def subjects(bench: BenchConfig) -> dict[Subject, list[KernelParams]]:
    """All kernels of a benchmark, each with its calls that will be timed."""
    found: dict[Subject, list[KernelParams]] = {}
    for group in bench.groups:
        for contestant in bench.contestants(group):
            for length in group.lengths:
                params = bench.params(group, length, contestant)
                if params.backend == "triton":
                    calls = found.setdefault(subject(params), [])
                    calls += [params] if params not in calls else []
    return found


def passed(calls: Sequence[KernelParams], device: torch.device) -> dict[str, float]:
    """Return the errors of some kernels, after running all their calls, also as CUDA graphs.

    To be run in its own process, which a kernel may crash. Training steps are left to the process
    that times them.
    """
    first = calls[0]
    mode, dtype = subject(first).mode, getattr(torch, first.dtype)
    with torch.set_grad_enabled(mode == "forward_backward"):
        tokens = Inputs.drawn(first.shape._replace(batch_size=1).at(LENGTH), dtype, device)
        reference = mechanism_of(first, "torch").to(device)
        found = errors(by_kernels(first, tokens), reference, tokens, mode)
        del tokens, reference
        for params in calls:
            if not isinstance(params, ModelParams):
                _live_through(params, device)
    return found


def _live_through(params: KernelParams, device: torch.device) -> None:
    dtype = getattr(torch, params.dtype)
    call = call_of(params, Inputs.drawn(params.shape.at(params.seq_len), dtype, device))
    call()
    torch.cuda.synchronize(device)
    graph = Graph(call, device)
    for _ in range(3):
        graph()
    torch.cuda.synchronize(device)


def errors(own: Attention, reference: Attention, tokens: Inputs, mode: Mode) -> dict[str, float]:
    """Relative RMS error of the output, of output and gradients, or of one token's output.

    `reference` computes in float32 from the same numbers.
    """
    exact = Inputs(*(t.float() for t in tokens))
    parts = _PARTS[mode]
    found, wanted = parts(own, tokens), parts(reference, exact)
    return {name: error(found[name], wanted[name]) for name in found}


def error(found: Tensor, expected: Tensor) -> float:
    """Relative RMS error; infinite if any value is not finite."""
    if not found.isfinite().all():
        return float("inf")
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def refusal(found: dict[str, float], dtype: torch.dtype) -> str:
    """Return the reason not to time a kernel with these errors; "" if there is none."""
    wrong = [
        f"{name} by {value:.2g}" for name, value in found.items() if not value <= BOUNDS[dtype]
    ]
    if not wrong:
        return ""
    return f"differs from PyTorch in float32: {', '.join(wrong)} (allowed {BOUNDS[dtype]:g})"


def _output(mechanism: Attention, tokens: Inputs) -> dict[str, Tensor]:
    with torch.no_grad():
        return {"y": mechanism.attend(*tokens.qkv)}


def _gradients(mechanism: Attention, tokens: Inputs) -> dict[str, Tensor]:
    leaves = [t.detach().requires_grad_() for t in tokens.qkv]
    with torch.enable_grad():
        y = mechanism.attend(*leaves)
        dq, dk, dv = torch.autograd.grad(y, leaves, tokens.g)
    return {"y": y.detach(), "dq": dq, "dk": dk, "dv": dv}


def _token(mechanism: Attention, tokens: Inputs) -> dict[str, Tensor]:
    """Output of the last token, decoded from the state of all others."""
    context = [t[:, :, :-1].contiguous() for t in tokens.qkv]
    last = [t[:, :, -1:].contiguous() for t in tokens.qkv]
    with torch.no_grad():
        _, state = mechanism.attend(*context, output_final_state=True)
        spent = state._replace(expendable=True)
        y, _ = mechanism.attend(*last, initial_state=spent, output_final_state=True)
    return {"token": y}


_PARTS = {"forward": _output, "forward_backward": _gradients, "decode": _token}
