"""A group of contestants and their floors, timed round-robin in one process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

import torch

from slay.benchmarks.calls import call_of, mechanism_of
from slay.benchmarks.floors import Work, copy_of, product_of, work_of
from slay.benchmarks.graphs import Graph
from slay.benchmarks.inputs import Inputs
from slay.benchmarks.settings import (
    BASELINE,
    BenchConfig,
    Contestant,
    KernelParams,
    ModelParams,
    Shape,
    TimingGroup,
)
from slay.benchmarks.timing import Call, interleaved, peak_memory, seconds
from slay.benchmarks.training import TrainingStep
from slay.errors import SlayError
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.isolated import Parent
from slay.experiments.result import choose_device
from slay.experiments.run import provenance
from slay.pipeline.jobs import code
from slay.pipeline.record import SCHEMA, Number, Record, Status

GRAPH_SECONDS = 0.05  # calls shorter than that are timed as CUDA graphs
CALL_SECONDS = 4.0  # longer ones are not timed
GROUP_SECONDS = 8.0  # time limit of a group's rounds
STEPS = 3  # of a model before its memory is measured, so that AdamW's moments are allocated


@dataclass
class Entry:
    """A contestant at one length: its call, its work and its metrics so far."""

    params: KernelParams
    status: Status = "ok"
    message: str = ""
    call: Call | None = None
    work: Work | None = None
    metrics: dict[str, Number] = field(default_factory=dict)


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
                entry.metrics |= _metrics(entry, times)
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
                    entries.append(Entry(params, "unsupported", refused[params.key]))
                else:
                    entries.append(self._prepare(params, tokens))
        return entries

    def _tokens(self, length: int) -> Inputs:
        """q, k, v and the gradient of y; minimal for a training step, which has its own inputs."""
        shape = self.group.shape
        if self.group.mode == "training_step":
            shape, length = Shape(1, 1, 1), 1
        return Inputs.drawn(shape, length, self.dtype, self.device)

    def _prepare(self, params: KernelParams, tokens: Inputs) -> Entry:
        """Prepare a contestant for timing, or record why it cannot be timed."""
        try:
            with memory_guard():
                if isinstance(params, ModelParams):
                    return self._prepare_step(params)
                return self._prepare_call(params, tokens)
        except OutOfMemory as error:
            return Entry(params, "oom", str(error))
        except Exception as error:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # raises if the GPU is lost to this process
            return Entry(params, "unsupported", self._said(error))

    def _prepare_call(self, params: KernelParams, tokens: Inputs) -> Entry:
        call = call_of(params, tokens)
        call()  # compiles and makes one-time allocations
        once = seconds(call, self.device)
        if once > CALL_SECONDS:
            return Entry(params, "timeout", f"one call takes {once:.2g} s")
        peak = peak_memory(call, self.device)
        timed, graph = self._graphed(call, once, params.label)
        metrics = {**_memory(tokens, peak, params.mode), "graph": int(graph)}
        work = work_of(params, mechanism_of(params, "torch"))
        return Entry(params, call=timed, work=work, metrics=metrics)

    def _prepare_step(self, params: ModelParams) -> Entry:
        before = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0
        step = TrainingStep(params, self.device)
        step()
        step.check()
        once = min(seconds(step, self.device) for _ in range(STEPS - 1))
        if once > CALL_SECONDS:
            return Entry(params, "timeout", f"one step takes {once:.2g} s")
        kept = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else before
        peak = kept - before + peak_memory(step, self.device)
        work = work_of(params, mechanism_of(params, "torch"), step.n_parameters)
        metrics: dict[str, Number] = {"peak_memory_bytes": peak, "graph": 0}
        return Entry(params, call=step, work=work, metrics=metrics)

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
        threads = torch.get_num_threads()
        fingerprint, command = code(entry.params, self.device.type), self.bench.command
        return Record(
            schema=SCHEMA,
            experiment=entry.params.experiment,
            params=entry.params.model_dump(),
            status=entry.status,
            message=entry.message,
            metrics=entry.metrics,
            provenance=provenance(fingerprint, self.device, threads, started, taken, command),
        )

    def _said(self, error: Exception) -> str:
        """Return an error as one line; an unexpected one is also reported in full."""
        if isinstance(error, SlayError):
            return str(error)
        self.parent.say("".join(traceback.format_exception(error)).rstrip())
        return f"{type(error).__name__}: {_first(error)}"


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
    first, middle, third = quantiles(own, n=4, method="inclusive")
    tokens = params.batch_size * (1 if params.mode == "decode" else params.seq_len)
    metrics: dict[str, Number] = {
        "latency_ms": 1e3 * middle,
        "latency_ms_q1": 1e3 * first,
        "latency_ms_q3": 1e3 * third,
        "tokens_per_second": tokens / middle,
        "rounds": len(own),
    }
    if entry.work is not None:
        metrics |= _floor(entry.work, middle, times)
    if params.backend == "fla":
        kernels = times.get(_of_other(params, (params.attention, "triton")))
        if kernels is not None:
            ratios = [a / b for a, b in zip(kernels, own, strict=True)]
            metrics["kernels_latency_ms"] = 1e3 * median(kernels)
            metrics["kernels_ratio"] = median(ratios)
    baseline = times.get(_of_other(params, (BASELINE, "flash")))
    if baseline is not None:
        ratios = [a / b for a, b in zip(own, baseline, strict=True)]
        low, ratio, high = quantiles(ratios, n=4, method="inclusive")
        metrics["baseline_latency_ms"] = 1e3 * median(baseline)
        metrics |= {"ratio": ratio, "ratio_q1": low, "ratio_q3": high}
    return metrics


def _floor(work: Work, middle: float, times: dict[str, list[float]]) -> dict[str, Number]:
    """The work of a call, and the time of a copy and of a matrix product of as much work."""
    metrics: dict[str, Number] = {"bytes": work.bytes, "operations": work.operations}
    floors: dict[str, Any] = {
        "copy_ms": times.get(_copy(work)),
        "product_ms": times.get(_product(work)),
    }
    known = {name: 1e3 * median(some) for name, some in floors.items() if some}
    metrics |= known
    if len(known) == len(floors):
        metrics["floor_ms"] = max(known.values())
        metrics["floor_ratio"] = 1e3 * middle / max(known.values())
    return metrics


def _of_other(params: KernelParams, contestant: Contestant) -> str:
    attention, backend = contestant
    return params.model_copy(update={"attention": attention, "backend": backend}).key
