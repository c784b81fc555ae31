"""Whether kernels are right: every call of a case against PyTorch in float64.

Outputs are made in memory full of NaN, so that what a kernel forgets to write shows, and once more
for the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils import deterministic

from slay.attention.layer import Attention
from slay.experiments.kernels.calls import CheckedCall, calls_of, inputs_of
from slay.experiments.kernels.cases import Case
from slay.experiments.kernels.inputs import Inputs

BOUNDS = {"bfloat16": 1e-2, "float16": 1e-2, "float32": 1e-4}  # relative root mean square
GRADIENT = 2  # times that: gradients are made of a y that was rounded
ONE_TOKEN = 10  # times that: the worst token, so that none is lost among thousands of right ones
AMPLIFIED = 3  # times what such a rounding of q, k, v and g alone makes of an output
SMALLEST = 0.1  # of a norm that errors are relative to: gradients may vanish


def objection(case: Case, configs: Mapping[str, str], device: torch.device) -> str | None:
    """What is wrong with a case's kernels in these configurations, in a line; None for nothing."""
    from slay.ops.triton.configs import forced
    from slay.ops.triton.verified import config

    with poisoned(), forced({name: config(text) for name, text in configs.items()}):
        for call in calls_of(case):
            wrong = _wrong(call, case, device)
            if wrong:
                return f"{call.name}: {wrong}"
    return None


def launched(case: Case, device: torch.device) -> dict[tuple[str, str], list[str]]:
    """The configurations among which a case's calls choose, by class of calls and by kernel."""
    from slay.ops.triton.configs import recording

    with recording() as launches:
        for call in calls_of(case):
            mechanism = call.mechanism(case, backend="triton").to(device)
            call.make(mechanism, _on(device, inputs_of(call, case, mechanism)))
    return {
        (launch.key, launch.kernel.name): list(map(str, launch.kernel.candidates(launch.key)))
        for launch in launches
    }


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that nobody has written yet is not a number."""
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
    tokens = _on(device, inputs_of(call, case, mechanism))
    found = call.make(mechanism, tokens)
    if mechanism.backend_used != "triton":
        return f"computed by {mechanism.backend_used}"
    exact = call.mechanism(case, backend="torch").double().to(device)
    doubles = Inputs(*(t.double() for t in tokens))
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
    """Relative root mean square, of all tokens or of the worst one; inf for what is not finite."""
    if not found.isfinite().all():
        return float("inf")
    wrong = (found.double() - expected).flatten(0, -2).norm(dim=-1)
    right = expected.flatten(0, -2).norm(dim=-1)
    whole = float(wrong.norm() / right.norm().clamp(min=SMALLEST))
    usual = right.square().mean().sqrt()
    worst = float((wrong / right.clamp(min=usual).clamp(min=SMALLEST)).max())
    return max(whole, worst / ONE_TOKEN)


def cancellation(exact: Attention, tokens: Inputs, call: CheckedCall) -> float:
    """How many times larger scores of both signs are than their sum: digits that are lost."""
    if exact.nonnegative:
        return 1.0
    visible = call.visible().to(tokens.q.device)
    scores = exact.scores(tokens.q, tokens.k) * visible
    z, size = scores.sum(-1).abs(), scores.abs().sum(-1)
    return max(1.0, 3 * float((size[z > 0] / z[z > 0]).max()))


def rounded(tokens: Inputs, dtype: torch.dtype) -> Inputs:
    """Tokens off by as much as rounding to that precision may be."""
    draw = torch.Generator().manual_seed(0)
    size = torch.finfo(dtype).eps / 2
    noise = (2 * size * (torch.rand(t.shape, generator=draw) - 0.5) for t in tokens)
    return Inputs(*(t * (1 + n.to(t)) for t, n in zip(tokens, noise, strict=True)))


def _on(device: torch.device, tokens: Inputs) -> Inputs:
    return Inputs(*(t.to(device) for t in tokens))
