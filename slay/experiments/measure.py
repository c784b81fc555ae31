"""Clocks and peaks: how long a call takes, and how much memory it needs above its inputs."""

from __future__ import annotations

import ctypes
import math
import resource
import time
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]

SHORT = 0.02  # seconds; what a shorter call finds in the caches depends on what came before
NEW_PAGES = 16  # page faults a call from which on its memory counts as new
REPEATS = 12  # of a call, in all, where it got new memory


def seconds(call: Call, device: torch.device) -> float:
    """Duration of one call: by CUDA events on a GPU, by the monotonic clock on a CPU."""
    if device.type == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def interleaved(
    calls: Mapping[str, Call],
    device: torch.device,
    *,
    rounds: int,
    warmup: int = 2,
    warmup_seconds: float = 0.3,
    max_seconds: float = math.inf,
    least: int = 5,
) -> dict[str, list[float]]:
    """Durations of several calls in turns, so that a machine's mood falls on all of them alike.

    Every other round goes backwards, so that none is always the one after a certain other; and
    `SHORT` calls come after others of themselves. Before that come `warmup` rounds or more, for
    `warmup_seconds` at least. Returns `rounds` durations a call, in seconds, those of one round at
    the same index; fewer, but `least`, where they would take longer than `max_seconds`. On a CPU
    the process keeps its memory from here on, and a call that got new memory is made again: that
    the system clears its pages is no part of it.
    """
    if device.type == "cpu":
        _keep_memory()
    begin, warm = time.perf_counter(), 0
    shortest = dict.fromkeys(calls, math.inf)
    while warm < warmup or time.perf_counter() - begin < warmup_seconds:
        for name, call in calls.items():
            shortest[name] = min(shortest[name], seconds(call, device))
        warm += 1
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = dict.fromkeys(calls, REPEATS if device.type == "cpu" else 0)
    begin = time.perf_counter()
    for turn in range(rounds):
        if turn >= least and time.perf_counter() - begin > max_seconds:
            break
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            if shortest[name] < SHORT:
                _settle(calls[name], device)
            before, duration = _page_faults(), seconds(calls[name], device)
            while repeats[name] and _page_faults() - before > NEW_PAGES:
                repeats[name] -= 1
                before, duration = _page_faults(), seconds(calls[name], device)
            times[name].append(duration)
    return times


def _keep_memory() -> None:
    """Let glibc keep what is freed, as PyTorch does on a GPU. With other C libraries, do nothing.

    It gives large blocks back and has them anew at every call. That the system clears their pages
    can take most of a call's time, and whether it must depends on what was allocated before. Even
    so the first calls get new blocks: what is cut off to align one stays with its thread, up to
    seven times, and without it the block does not fit again.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(trim_threshold, -1)  # never
        library.mallopt(mmap_max, 0)


def _page_faults() -> int:
    """Pages that this process has had given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _settle(call: Call, device: torch.device, for_seconds: float = 0.01) -> None:
    """Make a call for a while, once at least, until caches and cores are as it leaves them."""
    until = time.perf_counter() + for_seconds
    seconds(call, device)
    while time.perf_counter() < until:
        seconds(call, device)


def peak_memory(call: Call, device: torch.device) -> int:
    """Most bytes that a call holds at once, above what was allocated before it; its result counts.

    On a CPU by following the allocator's own events, on a GPU by its counter.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        torch.cuda.synchronize(device)
        del result
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda item: item[0]):
        held += change
        peak = max(peak, held)
    return peak
