"""Correctness of kernels: every call of a case against PyTorch in float64.

Uninitialised memory is filled with NaN, so that elements that a kernel does not write are found,
and every call is repeated and compared bitwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils import deterministic

from slay.attention.layer import Attention
from slay.benchmarks.calls import Inputs
from slay.kernel_tools.calls import CheckedCall, calls_of, inputs_of
from slay.kernel_tools.cases import Case

BOUNDS = {"bfloat16": 1e-2, "float16": 1e-2, "float32": 1e-4}  # relative RMS error
GRADIENT = 2  # times that for gradients, which are computed from a rounded y
ONE_TOKEN = 10  # times that for the worst token, so that one wrong token among thousands is found
AMPLIFIED = 3  # times the error that rounding q, k, v and g alone causes in an output
SMALLEST = 0.1  # lower bound on the norm that errors are relative to: gradients may vanish


def objection(case: Case, configs: Mapping[str, str], device: torch.device) -> str | None:
    """Return the first error of a case's kernels in these configurations, or None, as one line."""
    from slay.ops.triton.configs import forced
    from slay.ops.triton.verified import config

    with poisoned(), forced({name: config(text) for name, text in configs.items()}):
        for call in calls_of(case):
            wrong = _wrong(call, case, device)
            if wrong:
                return f"{call.name}: {wrong}"
    return None


def launched(case: Case, device: torch.device) -> dict[tuple[str, str], list[str]]:
    """Candidate configurations of a case's calls, by class of calls and kernel."""
    from slay.ops.triton.configs import recording

    with recording() as launches:
        for call in calls_of(case):
            mechanism = call.mechanism(case, backend="triton").to(device)
            call.make(mechanism, inputs_of(call, case, mechanism).to(device))
    return {
        (launch.key, launch.kernel.name): list(map(str, launch.kernel.candidates(launch.key)))
        for launch in launches
    }


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill uninitialised memory with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _wrong(call: CheckedCall, case: Case, device: torch.device) -> str | None:
    mechanism = call.mechanism(case, backend="triton").to(device)
    tokens = inputs_of(call, case, mechanism).to(device)
    found = call.make(mechanism, tokens)
    if mechanism.backend_used != "triton":
        return f"computed by {mechanism.backend_used}"
    exact = call.mechanism(case, backend="torch").double().to(device)
    doubles = tokens.to(torch.double)
    wanted = call.make(exact, doubles)
    least = BOUNDS[case.dtype] * cancellation(exact, doubles, call)
    moved = call.make(exact, rounded(doubles, tokens.q.dtype))
    for name, tensor in found.items():
        usual = GRADIENT * least if name in ("dq", "dk", "dv") else least
        bound = max(usual, AMPLIFIED * error(moved[name], wanted[name]))
        worst = error(tensor, wanted[name])
        if not worst <= bound:
            return f"{name} by {worst:.2g} (allowed {bound:.2g})"
    again = call.make(mechanism, tokens)
    changed = [name for name in found if not torch.equal(found[name], again[name])]
    return f"{', '.join(changed)} not the same twice" if changed else None


def error(found: Tensor, expected: Tensor) -> float:
    """Relative RMS error of all tokens, or of the worst token over `ONE_TOKEN` if that is larger.

    Infinite if any value is not finite.
    """
    if not found.isfinite().all():
        return float("inf")
    wrong = (found.double() - expected).flatten(0, -2).norm(dim=-1)
    right = expected.flatten(0, -2).norm(dim=-1)
    whole = float(wrong.norm() / right.norm().clamp(min=SMALLEST))
    usual = right.square().mean().sqrt()
    worst = float((wrong / right.clamp(min=usual).clamp(min=SMALLEST)).max())
    return max(whole, worst / ONE_TOKEN)


def cancellation(exact: Attention, tokens: Inputs, call: CheckedCall) -> float:
    """Loss of digits by cancellation in signed scores: 3 max sum |s| / |sum s|, at least 1."""
    if exact.nonnegative:
        return 1.0
    visible = call.visible().to(tokens.q.device)
    scores = exact.scores(tokens.q, tokens.k) * visible
    z, size = scores.sum(-1).abs(), scores.abs().sum(-1)
    return max(1.0, 3 * float((size[z > 0] / z[z > 0]).max()))


def rounded(tokens: Inputs, dtype: torch.dtype) -> Inputs:
    """Perturb inputs at random by as much as rounding to `dtype` may."""
    draw = torch.Generator().manual_seed(0)
    size = torch.finfo(dtype).eps / 2
    noise = (2 * size * (torch.rand(t.shape, generator=draw) - 0.5) for t in tokens)
    return Inputs(*(t * (1 + n.to(t)) for t, n in zip(tokens, noise, strict=True)))
