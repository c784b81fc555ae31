"""Duration and peak memory of a call, and CUDA graphs of calls."""

from __future__ import annotations

import ctypes
import math
import resource
import time
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]

SHORT = 0.02  # seconds; shorter calls are sensitive to what earlier calls left in the caches
NEW_PAGES = 16  # page faults per call above which its memory counts as newly allocated
REPEATS = 12  # repetitions per call, in total, after it got new memory


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
    """Time calls round-robin, so that load and clock drift affect all of them equally.

    Every other round runs in reverse order, so that no call always follows the same other call. A
    call shorter than `SHORT` is preceded by untimed repetitions of itself. Warm-up takes at least
    `warmup` rounds and `warmup_seconds`. Returns `rounds` durations per call, in seconds, with the
    same index for the same round; fewer, but at least `least`, if they would take longer than
    `max_seconds`. On a CPU, the process keeps freed memory from here on, and a call that got new
    memory is timed again, so that the time in which the system clears pages is not counted.
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
    """Let glibc keep freed memory, as PyTorch does on a GPU. No effect with other C libraries.

    glibc returns large blocks to the system and requests them again at every call. Clearing their
    pages can take most of a call's time, and whether it is needed depends on earlier allocations.
    Even so, the first calls get new blocks: the remainder cut off to align a block stays in its
    thread's cache, up to seven times, and without it the block is too small to be reused.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(trim_threshold, -1)  # never
        library.mallopt(mmap_max, 0)


def _page_faults() -> int:
    """Number of minor page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _settle(call: Call, device: torch.device, for_seconds: float = 0.01) -> None:
    """Repeat a call for a while, at least once, so that caches and cores reach its steady state."""
    until = time.perf_counter() + for_seconds
    seconds(call, device)
    while time.perf_counter() < until:
        seconds(call, device)


def peak_memory(call: Call, device: torch.device) -> int:
    """Peak bytes that a call allocates beyond those allocated before it, its result included.

    On a CPU from the profiler's allocation events, on a GPU from the allocator's counter.
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


class Graph:
    """A call captured as a CUDA graph, which leaves out Python and launch overhead.

    Calling it replays the graph.

    A graph stores addresses but does not own its inputs. `call` is therefore kept as long as the
    graph, and with it every tensor, parameter and state that it reads; otherwise the next capture,
    which empties the allocator's cache, would return their memory to the device. The graph's own
    memory comes from a private pool, so that the order of replays does not matter.
    """

    def __init__(self, call: Call, device: torch.device):
        """Capture a call. Raises RuntimeError if it synchronises with the GPU."""
        self.call = call
        stream = torch.cuda.Stream(device)
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            call()  # makes one-time allocations, such as a stream's workspace, before the capture
        current.wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.result = call()

    def __call__(self) -> None:
        self.graph.replay()
