"""What compilers make of the Triton kernels: every kernel in every configuration, for any GPU.

Nothing is run, so that it works on any machine: launches are recorded with tensors that have no
memory, and compiled ahead of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slay.attention.linearised import FeatureAttention
from slay.attention.yat_spherical import SphericalYatAttention
from slay.errors import SlayError
from slay.registry import get_attention_class

TARGETS = {"sm_80": 80, "sm_90": 90}
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}  # bytes that a program can have
LENGTH, HEADS = 131072, 8
CALLS = {  # key heads, whether sequences are packed and keys padded
    "plain": (8, False),
    "general": (2, True),
}


@dataclass(frozen=True)
class Subject:
    """A mechanism at a head dimension and precision, and a key of `CALLS`."""

    attention: str
    head_dim: int
    dtype: str
    call: str = "plain"


# One of each kind of features; sizes and precisions where kernels differ most.
KINDS = ("linear", "performer", "cosformer", "rff", "yat-performer", "yat-performer-rm")
MAIN = ("linear", "yat-performer-anchor", "yat-quadratic", "yat-spherical")
SUBJECTS = (
    *(Subject(name, 32, "bfloat16") for name in (*KINDS, "yat-performer-tensor")),
    *(Subject(name, d, "bfloat16") for name in MAIN for d in (16, 32, 64, 128)),
    Subject("yat-cubic", 16, "bfloat16"),
    *(Subject(name, d, "float32") for name in MAIN for d in (32, 128)),
    *(Subject(name, d, "bfloat16", "general") for name in MAIN for d in (64, 128)),
)


class Inputs(NamedTuple):
    """What a call is given."""

    q: Tensor
    k: Tensor
    v: Tensor
    padding: Tensor | None
    bounds: list[int] | None  # of packed sequences


def survey(subjects: Iterable[Subject], target: str) -> Iterator[tuple[Subject, Any]]:
    """Each subject with a `slay.ops.triton_compile.Compiled` a kernel and configuration."""
    if target not in TARGETS:
        raise SlayError(f"target {target!r}: must be one of {', '.join(TARGETS)}")
    # Processes that begin anew: a copy of one that has used OpenMP may wait for ever.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        tasks = [
            (subject, pool.submit(_compile, subject, TARGETS[target], index))
            for subject in subjects
            for index in range(_number_of_launches(subject))
        ]
        for subject, task in tasks:
            for compiled in task.result():
                yield subject, compiled


def objections(compiled: Any, subject: Subject, target: str) -> list[str]:
    """What is wrong with a compiled kernel: spilled registers, too much memory, slow products."""
    wrong = []
    if compiled.spilled:
        wrong.append(f"spills {compiled.spilled} bytes")
    if compiled.shared > SHARED[target]:
        wrong.append(f"needs {compiled.shared} bytes of shared memory")
    fast = compiled.warpgroup if target == "sm_90" else compiled.matrix
    if subject.dtype == "bfloat16" and compiled.multiplies and not fast:
        wrong.append("multiplies matrices without the matrix units")
    return wrong


def _number_of_launches(subject: Subject) -> int:
    return len(_launches(subject))


def _compile(subject: Subject, capability: int, index: int) -> list[Any]:
    from slay.ops.triton_compile import compiled

    return list(compiled(_launches(subject)[index], capability))


def _launches(subject: Subject) -> list[Any]:
    """The launches of a forward pass, a backward pass if kernels have one, and a decoded token."""
    from slay.ops.triton_compile import launches

    cls = get_attention_class(subject.attention)
    kv_heads, general = CALLS[subject.call]
    mechanism = cls.heads_only(subject.head_dim, HEADS, n_kv_heads=kv_heads).to("meta")
    dtype = getattr(torch, subject.dtype)
    q, k, v = (
        torch.empty(1, heads, LENGTH, subject.head_dim, dtype=dtype, device="meta")
        for heads in (HEADS, kv_heads, kv_heads)
    )
    padding = torch.empty(1, LENGTH, dtype=torch.uint8, device="meta") if general else None
    bounds = [0, LENGTH // 3, LENGTH] if general else None
    inputs = Inputs(q, k, v, padding, bounds)
    if isinstance(mechanism, FeatureAttention):
        made = launches(lambda: _linear(mechanism, inputs))
    elif isinstance(mechanism, SphericalYatAttention):
        made = launches(lambda: _exact(mechanism, inputs))
    else:
        raise SlayError(f"{subject.attention}: has no Triton kernels")
    return list({_compiled_for(*launch): launch for launch in made}.values())


def _compiled_for(tuned: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What tells launches apart that are compiled for different things."""
    kernel = tuned.kernel
    constants = (v for p, v in zip(kernel.params, arguments, strict=False) if p.is_constexpr)
    return kernel, *constants


def _linear(mechanism: FeatureAttention, inputs: Inputs) -> None:
    from slay.ops.triton_decode import decode_launch
    from slay.ops.triton_linear import Call, arguments

    q, k, v, padding, bounds = inputs
    i = torch.arange(q.shape[2], device="meta").view(1, 1, -1)
    q, k = mechanism.prepare(q), mechanism.prepare(k)
    for gradient in (False, True):
        recipe, reason = mechanism.possible_recipe(q, k, v, i, i, gradient=gradient)
        if recipe is None or reason is not None:
            raise SlayError(f"{type(mechanism).__name__}: {reason}")
        tensors, kinds = arguments(recipe, padding)
        call = Call(q, k, v, *tensors, bounds, *kinds, True, 0)  # type: ignore[arg-type, call-arg]
        y, z, X, _ = call.forward(None)
        if gradient:
            call.backward(y, z, X, y, None)
    token = Call(*(t[:, :, :1] for t in (q, k, v)), *tensors, None, *kinds, True, 0)  # type: ignore[arg-type, call-arg]
    state = q.new_empty(1, k.shape[1], v.shape[3] + 1, 1, dtype=torch.float32)
    decode_launch(token, state, state)


def _exact(mechanism: SphericalYatAttention, inputs: Inputs) -> None:
    from slay.ops.triton_exact import Call

    q, k, v, padding, bounds = inputs
    call = Call(q, k, v, mechanism.epsilon, True, padding, bounds)
    output = call.forward(True)
    call.backward(*output, output[0])
