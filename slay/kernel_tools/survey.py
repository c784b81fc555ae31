"""Compile every Triton kernel in every configuration ahead of time, for any GPU.

Nothing is executed, so that it works on any machine: kernel launches are recorded, then compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slay.attention.linear import LinearAttention
from slay.attention.yat_spherical import SphericalYatAttention
from slay.errors import SlayError
from slay.ops.triton import assembler
from slay.registry import get_attention_class

TARGETS = {"sm_80": 80, "sm_90": 90}
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}  # bytes of shared memory per program
LENGTH, HEADS = 131072, 8
CALLS = {  # key heads, and True for packed sequences and padded keys
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


def capability(target: str) -> int:
    """Compute capability of a target, such as 90. Raises `SlayError`."""
    if target not in TARGETS:
        raise SlayError(f"target {target!r}: must be one of {', '.join(TARGETS)}")
    return TARGETS[target]


def processes() -> ProcessPoolExecutor:
    """Processes that compile, one per core."""
    # Spawn, not fork: a forked copy of a process that has used OpenMP may deadlock.
    return ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))


def survey(subjects: Iterable[Subject], target: str) -> Iterator[tuple[Subject, Any]]:
    """Yield each subject with a `slay.ops.triton.compile.Compiled` per kernel and configuration."""
    with processes() as pool:
        seen: set[Any] = set()
        tasks = []
        for subject in subjects:
            for index, launch in enumerate(_different(subject)):
                if _compiled_for(launch) not in seen:  # else compiled already
                    seen.add(_compiled_for(launch))
                    task = pool.submit(_compile, subject, capability(target), index)
                    tasks.append((subject, task))
        for subject, task in tasks:
            for compiled in task.result():
                yield subject, compiled


def objections(compiled: Any, subject: Subject, target: str) -> list[str]:
    """List a compiled kernel's problems: spilling, too much memory, unsafe PTX, slow products."""
    wrong = []
    if compiled.spilled:
        wrong.append(f"spills {compiled.spilled} bytes")
    if compiled.shared > SHARED[target]:
        wrong.append(f"needs {compiled.shared} bytes of shared memory")
    version = assembler.find(divmod(capability(target), 10)).version
    unsafe = assembler.objection(compiled.ptx, version)
    if unsafe is not None:
        wrong.append(unsafe)
    slow = compiled.multiplies and not compiled.warpgroup and not compiled.matrix
    if subject.dtype == "bfloat16" and slow:
        wrong.append("multiplies matrices without the matrix units")
    return wrong


def _compile(subject: Subject, architecture: int, index: int) -> list[Any]:
    from slay.ops.triton.compile import compile_launch

    launch, target = _different(subject)[index], divmod(architecture, 10)
    version = assembler.find(target).version
    return [
        compile_launch(launch, config, architecture)
        for config in launch.kernel.candidates(launch.key)
        if assembler.safe(config, target, version)  # unsafe ones are never used
    ]


@lru_cache(maxsize=2)
def _different(subject: Subject) -> list[Any]:
    """A subject's launches that compile to different code."""
    made = (launch for launches in record(subject) for launch in launches)
    return list({_compiled_for(launch): launch for launch in made}.values())


def _compiled_for(launch: Any) -> tuple[Any, ...]:
    """Key of a launch: launches with equal keys compile to the same code."""
    parameters = launch.kernel.function.params
    given = [p for p in parameters if p.name in launch.arguments]
    return launch.kernel.name, *(
        launch.arguments[p.name] if p.is_constexpr else _form(launch.arguments[p.name])
        for p in given
    )


def _form(value: Any) -> Any:
    """Types of a non-constexpr argument, which are all that compilation depends on."""
    if isinstance(value, tuple):
        return tuple(map(_form, value))
    return value.dtype if isinstance(value, Tensor) else type(value)


class Recorded(NamedTuple):
    """Kernel launches of a call's forward and backward pass and of a decoded token, in order."""

    forward: list[Any]
    backward: list[Any]
    decode: list[Any]  # of a token


@lru_cache(maxsize=2)
def record(subject: Subject, length: int = LENGTH) -> Recorded:
    """Record a subject's kernel launches without executing them; its tensors are never written."""
    from slay.ops.triton.configs import recording

    cls = get_attention_class(subject.attention)
    kv_heads, general = CALLS[subject.call]
    mechanism = cls.heads_only(subject.head_dim, HEADS, n_kv_heads=kv_heads)
    dtype = getattr(torch, subject.dtype)
    q, k, v = (
        torch.empty(1, heads, length, subject.head_dim, dtype=dtype, requires_grad=True)
        for heads in (HEADS, kv_heads, kv_heads)
    )
    padding = torch.zeros(1, length, dtype=torch.bool) if general else None
    bounds = [0, length // 3, length] if general else None
    if isinstance(mechanism, LinearAttention):
        attend, decode = _linear(mechanism, q, k, v)
    elif isinstance(mechanism, SphericalYatAttention):
        attend, decode = _exact(mechanism, q, k, v)
    else:
        raise SlayError(f"{subject.attention}: has no Triton kernels")
    with recording() as launches:
        y = attend(padding, bounds)
        number = len(launches)
        y.backward(torch.empty_like(y))
    with recording() as token, torch.no_grad():
        decode()
    return Recorded(launches[:number], launches[number:], token)


Attend = Callable[[Tensor | None, list[int] | None], Tensor]


def _linear(
    mechanism: LinearAttention, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Attend, Callable[[], Any]]:
    """A call that takes padding and bounds of packed sequences, and one that decodes a token."""
    from slay.ops.triton.decode import decode_attention
    from slay.ops.triton.launch import kernel_attention

    i = torch.arange(q.shape[2]).view(1, 1, -1)
    q, k = mechanism.feature_map.prepare(q), mechanism.feature_map.prepare(k)
    told, reason = mechanism.feature_spec(q.shape[-1])
    if told is None or reason is not None:
        raise SlayError(f"{type(mechanism).__name__}: {reason}")
    spec = mechanism.with_given(told, q, k, i, i)

    def attend(padding: Tensor | None, bounds: list[int] | None) -> Tensor:
        lengths = None if bounds is None else [last - first for first, last in pairwise(bounds)]
        masked: Any = {"key_padding_mask": padding, "lengths": lengths}
        return kernel_attention(q, k, v, spec, causal=mechanism.causal, **masked)[0]

    def decode() -> None:
        token_q, token_k, token_v = (t[:, :, :1] for t in (q, k, v))
        first = mechanism.with_given(told, token_q, token_k, i[..., :1], i[..., :1])
        decode_attention(token_q, token_k, token_v, first, mechanism.empty_state(v))

    return attend, decode


def _exact(
    mechanism: SphericalYatAttention, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Attend, Callable[[], Any]]:
    """The same for exact attention, whose decoding has no kernel."""
    from slay.ops.triton.yat import exact_yat

    def attend(padding: Tensor | None, bounds: list[int] | None) -> Tensor:
        masked: Any = {"key_padding_mask": padding, "bounds": bounds}
        return exact_yat(q, k, v, mechanism.epsilon, causal=mechanism.causal, **masked)

    return attend, lambda: None
