"""A group of contestants and their floors, timed round-robin in one process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

import torch

from slay.benchmarks.backends import call_of, mechanism_of, work_of
from slay.benchmarks.calls import Inputs
from slay.benchmarks.floors import Work, copy_of, product_of
from slay.benchmarks.settings import (
    BenchConfig,
    Contestant,
    KernelParams,
    ModelParams,
    TimingGroup,
)
from slay.benchmarks.summary import BASELINE, latency, ratio, versus
from slay.benchmarks.timing import Call, Graph, interleaved, peak_memory, seconds
from slay.benchmarks.training import TrainingStep
from slay.errors import SlayError
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.isolated import Parent
from slay.experiments.result import Result, choose_device
from slay.experiments.run import provenance, recorded
from slay.pipeline.jobs import code
from slay.pipeline.record import Number, Record, Status

GRAPH_SECONDS = 0.05  # calls shorter than that are timed as CUDA graphs
CALL_SECONDS = 4.0  # longer ones are not timed
GROUP_SECONDS = 8.0  # time limit of a group's rounds
STEPS = 3  # of a model before its memory is measured, so that AdamW's moments are allocated


@dataclass
class Entry:
    """A contestant at one length: its result so far; call and work if it is to be timed."""

    params: KernelParams
    result: Result
    call: Call | None = None
    work: Work | None = None


class Timing:
    """Measurement of one group, which reports its progress to `parent`."""

    def __init__(self, bench: BenchConfig, group: TimingGroup, parent: Parent):
        self.bench, self.group, self.parent = bench, group, parent
        self.device = choose_device(bench.base.device)
        self.dtype = getattr(torch, bench.base.dtype)

    def records(self, refused: Mapping[str, str]) -> list[Record]:
        """Return one record per contestant; `refused`: why some are not timed, by their key."""
        started, begin = datetime.now(UTC), time.perf_counter()
        backward = self.group.mode in ("forward_backward", "training_step")
        with torch.set_grad_enabled(backward):
            entries = self._entries(refused)
            calls = {e.params.key: e.call for e in entries if e.call is not None}
            calls |= self._floors(entries)
            times = self._times(calls) if calls else {}
        taken = time.perf_counter() - begin
        for entry in entries:
            if entry.call is not None:
                entry.result.metrics.update(_metrics(entry, times))
        wanted = [e for e in entries if not self.group.fla or e.params.backend == "fla"]
        return [self._record(entry, started, taken) for entry in wanted]

    def _entries(self, refused: Mapping[str, str]) -> list[Entry]:
        entries = []
        for length in self.group.lengths:
            tokens = self._tokens(length)
            for contestant in self.bench.contestants(self.group):
                params = self.bench.params(self.group, length, contestant)
                self.parent.at(params.key)
                if params.key in refused:
                    entries.append(_left_out(params, "unsupported", refused[params.key]))
                else:
                    entries.append(self._prepare(params, tokens))
        return entries

    def _tokens(self, length: int) -> Inputs:
        """q, k, v and the gradient of y; minimal for a training step, which has its own inputs."""
        training = self.group.mode == "training_step"
        size = (1, 1, 1, 1) if training else self.group.shape.at(length)
        return Inputs.drawn(size, self.dtype, self.device)

    def _prepare(self, params: KernelParams, tokens: Inputs) -> Entry:
        """Prepare a contestant for timing, or record why it cannot be timed."""
        try:
            with memory_guard():
                if isinstance(params, ModelParams):
                    return self._prepare_step(params)
                return self._prepare_call(params, tokens)
        except OutOfMemory as error:
            return _left_out(params, "oom", str(error))
        except Exception as error:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # raises if the GPU is lost to this process
            return _left_out(params, "unsupported", self._said(error))

    def _prepare_call(self, params: KernelParams, tokens: Inputs) -> Entry:
        call = call_of(params, tokens)
        call()  # compiles and makes one-time allocations
        once = seconds(call, self.device)
        if once > CALL_SECONDS:
            return _left_out(params, "timeout", f"one call takes {once:.2g} s")
        peak = peak_memory(call, self.device)
        timed, graph = self._graphed(call, once, params.label)
        metrics = {**_memory(tokens, peak, params.mode), "graph": int(graph)}
        work = work_of(params, mechanism_of(params, "torch"))
        return Entry(params, Result(metrics), timed, work)

    def _prepare_step(self, params: ModelParams) -> Entry:
        before = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0
        step = TrainingStep(params, self.device)
        step()
        step.check()
        once = min(seconds(step, self.device) for _ in range(STEPS - 1))
        if once > CALL_SECONDS:
            return _left_out(params, "timeout", f"one step takes {once:.2g} s")
        kept = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else before
        peak = kept - before + peak_memory(step, self.device)
        work = work_of(params, mechanism_of(params, "torch"), step.n_parameters)
        metrics: dict[str, Number] = {"peak_memory_bytes": peak, "graph": 0}
        return Entry(params, Result(metrics), step, work)

    def _graphed(self, call: Call, once: float, label: str) -> tuple[Call, bool]:
        """Return the call and False, or a short call captured as a CUDA graph and True."""
        if self.device.type != "cuda" or once > GRAPH_SECONDS:
            return call, False
        try:
            return Graph(call, self.device), True
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            self.parent.say(f"{label}: no CUDA graph, timed with its launches ({_first(error)})")
            return call, False

    def _floors(self, entries: list[Entry]) -> dict[str, Call]:
        """One copy and one matrix product for every distinct amount of work."""
        floors: dict[str, Call] = {}
        for work in (e.work for e in entries if e.work is not None):
            for name, make in (
                (_copy(work), lambda work=work: copy_of(work, self.device)),
                (_product(work), lambda work=work: product_of(work, self.dtype, self.device)),
            ):
                if name in floors:
                    continue
                self.parent.at(name)
                try:
                    with memory_guard():
                        call = make()
                        call()
                        once = seconds(call, self.device)
                        floors[name], _ = self._graphed(call, once, name)
                except OutOfMemory:
                    self.parent.say(f"{name}: no floor, the memory is full")
        return floors

    def _times(self, calls: Mapping[str, Call]) -> dict[str, list[float]]:
        """Time calls round-robin; before each call, the parent is told whose it is."""

        def noted(name: str, call: Call) -> Call:
            def both() -> None:
                self.parent.at(name)
                call()

            return both

        return interleaved(
            {name: noted(name, call) for name, call in calls.items()},
            self.device,
            rounds=self.bench.base.repeats,
            max_seconds=GROUP_SECONDS,
        )

    def _record(self, entry: Entry, started: datetime, taken: float) -> Record:
        threads, fingerprint = torch.get_num_threads(), code(entry.params, self.device.type)
        command = self.bench.command
        where = provenance(fingerprint, self.device, threads, started, taken, command)
        return recorded(entry.params, entry.result, where)

    def _said(self, error: Exception) -> str:
        """Return an error as one line; an unexpected one is also reported in full."""
        if isinstance(error, SlayError):
            return str(error)
        self.parent.say("".join(traceback.format_exception(error)).rstrip())
        return f"{type(error).__name__}: {_first(error)}"


def _left_out(params: KernelParams, status: Status, why: str) -> Entry:
    return Entry(params, Result({}, status=status, message=why))


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _copy(work: Work) -> str:
    return f"copy of {work.bytes} bytes"


def _product(work: Work) -> str:
    return f"product of {work.operations} operations"


def _memory(tokens: Inputs, peak: int, mode: str) -> dict[str, Number]:
    """Peak bytes of a call beyond its inputs.

    In the forward pass also `memory_ratio`: the peak with inputs, over the bytes of q, k, v and y.
    """
    metrics: dict[str, Number] = {"peak_memory_bytes": peak}
    if mode == "forward":
        each = tokens.q.numel() * tokens.q.element_size()
        metrics["memory_ratio"] = (3 * each + peak) / (4 * each)
    return metrics


def _metrics(entry: Entry, times: dict[str, list[float]]) -> dict[str, Number]:
    """Latency quartiles, floors, and ratios to other contestants of the same rounds."""
    params, own = entry.params, times[entry.params.key]
    tokens = params.batch_size * (1 if params.mode == "decode" else params.seq_len)
    metrics = {**latency(own), "tokens_per_second": tokens / median(own), "rounds": len(own)}
    if entry.work is not None:
        metrics |= _floor(entry.work, median(own), times)
    kernels = times.get(_of_other(params, (params.attention, "triton")))
    if params.backend == "fla" and kernels is not None:
        metrics["kernels_latency_ms"] = 1e3 * median(kernels)
        metrics["kernels_ratio"] = ratio(kernels, own)["ratio"]
    baseline = times.get(_of_other(params, (BASELINE, "flash")))
    if baseline is not None:
        metrics |= versus(own, baseline)
    return metrics


def _floor(work: Work, middle: float, times: dict[str, list[float]]) -> dict[str, Number]:
    """The work of a call, and the time of a copy and of a matrix product of as much work."""
    floors = {"copy_ms": times.get(_copy(work)), "product_ms": times.get(_product(work))}
    known = {name: 1e3 * median(some) for name, some in floors.items() if some}
    metrics: dict[str, Number] = {"bytes": work.bytes, "operations": work.operations, **known}
    if len(known) == len(floors):
        floor = max(known.values())
        metrics |= {"floor_ms": floor, "floor_ratio": 1e3 * middle / floor}
    return metrics


def _of_other(params: KernelParams, contestant: Contestant) -> str:
    attention, backend = contestant
    return params.model_copy(update={"attention": attention, "backend": backend}).key
