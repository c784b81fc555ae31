"""Check kernels before they are timed: against PyTorch code in float32, and for crashes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.benchmarks.backends import by_kernels, call_of, mechanism_of
from slay.benchmarks.calls import Inputs, decoding, with_gradients
from slay.benchmarks.settings import BenchConfig, KernelParams, Mode, ModelParams
from slay.benchmarks.timing import Graph

LENGTH = 2200  # more than one chunk of states, and not a multiple of it
BOUNDS = {torch.bfloat16: 2e-2, torch.float16: 2e-2, torch.float32: 1e-4}


def kinds(bench: BenchConfig) -> dict[str, list[KernelParams]]:
    """All kinds of kernels of a benchmark, each with its calls that will be timed."""
    found: dict[str, list[KernelParams]] = {}
    for group in bench.groups:
        for call in bench.calls(group):
            if call.backend == "triton":
                calls = found.setdefault(_kind(call), [])
                calls += [call] if call not in calls else []
    return found


def _kind(call: KernelParams) -> str:
    heads = f"{call.n_heads} heads of {call.head_dim}"
    return f"{call.label}, {_mode(call)} of {heads}"


def _mode(call: KernelParams) -> Mode:
    """Mode of the kernels that compute a call; a training step uses forward and backward."""
    return "forward_backward" if call.mode == "training_step" else call.mode


def passed(calls: Sequence[KernelParams], device: torch.device) -> dict[str, float]:
    """Return the errors of some kernels, after running all their calls, also as CUDA graphs.

    To be run in its own process, which a kernel may crash. Training steps are left to the process
    that times them.
    """
    first = calls[0]
    mode, dtype = _mode(first), getattr(torch, first.dtype)
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
    found, wanted = _outputs(own, tokens, mode), _outputs(reference, tokens.to(torch.float), mode)
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


def _outputs(mechanism: Attention, tokens: Inputs, mode: Mode) -> dict[str, Tensor]:
    """What a timed call computes, by name."""
    if mode == "forward_backward":
        with torch.enable_grad():
            leaves = tokens.leaves()
            return with_gradients(mechanism.attend(*leaves), leaves, tokens.g)
    with torch.no_grad():
        if mode == "decode":
            return {"token": decoding(mechanism, tokens, in_place=True)()[0]}
        return {"y": mechanism.attend(*tokens.qkv)}
