"""Kernels compiled by many processes before the clock starts: Triton's cache hands them on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures import TimeoutError as TooLate
from multiprocessing import get_context
from typing import NamedTuple

import torch

from slay.experiments.kernels.contestants import Tokens, by_kernels, call_of
from slay.experiments.kernels.settings import EXACT, Bench, Mode
from slay.experiments.result import Progress, choose_device

LAUNCHES = {"forward": 4, "forward_backward": 8, "decode": 1}  # at most


class Task(NamedTuple):
    """One launch of a call, in all its configurations."""

    bench: Bench
    mode: Mode
    length: int
    attention: str
    launch: int


def tasks(bench: Bench) -> Iterator[Task]:
    """What is to be compiled; kernels differ for long calls, short ones and those of one chunk."""
    lengths: dict[Mode, tuple[int, ...]] = {
        "forward_backward": bench.backward_lengths,
        "forward": bench.lengths,
        "decode": bench.contexts[:1],
    }
    for mode, all_lengths in lengths.items():
        ordered = sorted(all_lengths, reverse=True)
        for length in dict.fromkeys(
            [*ordered[:1], *ordered[len(ordered) // 2 :][:1], *ordered[-1:]]
        ):
            for name in [*bench.mechanisms, *([] if mode == "decode" else [EXACT])]:
                for launch in range(LAUNCHES[mode]):
                    yield Task(bench, mode, length, name, launch)


def precompile(bench: Bench, progress: Progress, seconds: float) -> None:
    """Compile what will be launched; what fails or is late is compiled when it is launched."""
    wanted = list(tasks(bench))
    workers = min(os.cpu_count() or 1, 16, len(wanted))
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        futures = [pool.submit(compile_launch, task) for task in wanted]
        compiled, complaints = 0, {}
        for future in as_completed(futures, timeout=seconds):
            try:
                compiled += future.result()
            except Exception as error:
                complaints[f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"] = True
        progress(f"compiled {compiled} kernels in {workers} processes")
        for line in complaints:
            progress(f"not compiled ahead: {line}")
    except TooLate:
        progress(f"not everything was compiled in {seconds:.0f} s; the rest is when it is launched")
    finally:
        pool.shutdown(cancel_futures=True)


def compile_launch(task: Task) -> int:
    """Compile one launch as Triton itself would when it is made; returns the number of kernels."""
    from slay.ops.triton_compile import launches

    params = task.bench.params(task.mode, task.length, task.attention, "triton")
    device = choose_device(params.device)
    shape = (params.batch_size, params.n_heads, params.seq_len, params.head_dim)
    dtype = getattr(torch, params.dtype)
    tokens = Tokens(*(torch.empty(shape, dtype=dtype, device=device) for _ in range(4)))
    by_kernels(params, tokens)

    def run() -> None:
        with torch.set_grad_enabled(params.mode == "forward_backward"):
            call_of(params, tokens)()

    recorded = launches(run)
    if params.mode == "decode":  # after the launches that make its state
        recorded = recorded[-1:]
    number = 0
    for tuned, args in recorded[task.launch : task.launch + 1]:
        for options in [c.all_kwargs() for c in tuned.configs] or [{}]:
            tuned.kernel.warmup(*args, grid=(1,), **options)
            number += 1
    return number
