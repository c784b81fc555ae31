"""Kernels, their competitors and the floors, timed in turns."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from slay.errors import SlayError
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.kernels import check
from slay.experiments.kernels.contestants import Call, Tokens, by_kernels, call_of, mechanism_of
from slay.experiments.kernels.precompile import precompile
from slay.experiments.kernels.settings import EXACT, OPPONENT, Bench, Group, KernelParams, Mode
from slay.experiments.kernels.tables import line
from slay.experiments.kernels.work import Work, copy_of, launched, product_of, work_of
from slay.experiments.measure import Graphs, interleaved, peak_memory, seconds
from slay.experiments.result import Progress, choose_device, stream
from slay.experiments.run import provenance
from slay.jobs import code
from slay.record import SCHEMA, Number, Record, Status, write_records

GRAPH_SECONDS = 0.05  # calls shorter than that are timed as CUDA graphs
CALL_SECONDS = 4.0  # longer ones are not timed
GROUP_SECONDS = 8.0  # for the rounds of a group


@dataclass
class Entry:
    """A contestant at one length, and what is known of it."""

    params: KernelParams
    status: Status = "ok"
    message: str = ""
    call: Call | None = None
    work: Work | None = None
    metrics: dict[str, Number] = field(default_factory=dict)


class Session:
    """One run of the benchmark."""

    def __init__(self, bench: Bench, out: Path, progress: Progress):
        self.bench, self.out, self.progress = bench, out, progress
        self.device = choose_device(bench.base.device)
        self.dtype = getattr(torch, bench.base.dtype)
        self.records: list[Record] = []
        self.refused: dict[tuple[str, Mode], str] = {}  # why kernels are not timed, "" if they are
        self.errors: dict[tuple[str, Mode], float] = {}
        self.left_out: list[str] = []
        self.graphs: Graphs | None = None  # of the group that is timed
        self._said_before: set[str] = set()

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def run(self) -> list[Record]:
        """Measure all groups; after each the records so far are written whole."""
        begin = time.perf_counter()
        write_records(self.out, [])
        longest: dict[Mode, int] = {}  # lengths, for which kernels are chosen
        for group in self.bench.groups:
            longest[group.mode] = max(longest.get(group.mode, 0), *group.lengths)
        tokens = self._tokens(max(longest.values()))
        if self.on_gpu:
            precompile(self.bench, self.progress, seconds=self.bench.seconds / 3)
        for mode, length in longest.items():
            for attention in [*self.bench.mechanisms, EXACT]:
                self._admit(attention, mode, length, tokens)
        for group in self.bench.groups:
            at = f"{group.mode} at L = {', '.join(f'{length:,}' for length in group.lengths)}"
            at += ", flash-linear-attention" if group.fla else ""
            if time.perf_counter() - begin > self.bench.seconds:
                self.left_out.append(at)
                self.progress(f"{at}: left out, {self.bench.seconds:g} s are over")
                continue
            self.progress(f"{at}  [{time.perf_counter() - begin:.0f} s]")
            self.records += self._group(group, tokens)
            write_records(self.out, self.records)
        return self.records

    def _tokens(self, length: int) -> Tokens:
        base = self.bench.base
        shape = (base.batch_size, base.n_heads, length, base.head_dim)
        draws = (torch.randn(shape, generator=stream(i, "kernels")) for i in range(4))
        return Tokens(*(t.to(self.device, self.dtype) for t in draws))

    def _admit(self, attention: str, mode: Mode, length: int, tokens: Tokens) -> None:
        """Have Triton choose configurations at the greatest length, then check what they give."""
        key = attention, mode
        if not self.on_gpu:
            self.refused[key] = f"kernels run on a CUDA GPU, not on a {self.device.type}"
            return
        params = self.bench.params(mode, length, attention, "triton")
        try:
            own = by_kernels(params, tokens)
            with torch.set_grad_enabled(mode == "forward_backward"):
                call_of(params, tokens.first(length))()
            reference = mechanism_of(params, "torch").to(self.device)
            found = check.errors(own, reference, self._tokens(check.LENGTH), mode)
            self.refused[key] = check.refusal(found, self.dtype)
            self.errors[key] = max(found.values())
            shown = "  ".join(f"{name} {value:.1e}" for name, value in found.items())
            self.progress(f"{params.label}, {mode} against float32: {shown}")
        except Exception as error:
            self.refused[key] = self._said(error)
        if self.refused[key]:
            self._once(f"{params.label}, {mode}: not timed, {self.refused[key]}")

    def _group(self, group: Group, tokens: Tokens) -> list[Record]:
        """Records of all contestants of a group; of one with fla, of that alone."""
        started, begin = datetime.now(UTC), time.perf_counter()
        self.graphs = Graphs(self.device) if self.on_gpu else None
        with torch.set_grad_enabled(group.mode == "forward_backward"):
            entries = [
                self._prepare(self.bench.params(group.mode, length, *who), some)
                for length in group.lengths
                for some in [tokens.first(length)]
                for who in self.bench.contestants(group)
            ]
            calls = {_key(e.params): e.call for e in entries if e.call is not None}
            calls |= self._floors(entries)
            times = interleaved(
                calls,
                self.device,
                rounds=self.bench.base.repeats,
                max_seconds=GROUP_SECONDS,
            ) if calls else {}  # fmt: skip
        taken = time.perf_counter() - begin
        records = []
        for entry in entries:
            if group.fla and entry.params.backend != "fla":
                continue
            if entry.call is not None:
                entry.metrics |= _metrics(entry, times)
            record = Record(
                schema=SCHEMA,
                experiment=entry.params.experiment,
                params=entry.params.model_dump(),
                status=entry.status,
                message=entry.message,
                metrics=entry.metrics,
                provenance=provenance(
                    code(entry.params, self.device.type),
                    self.device,
                    torch.get_num_threads(),
                    started,
                    taken,
                    self.bench.command,
                ),
            )
            records.append(record)
            if record.status != "unsupported":
                self.progress(line(record))
            else:
                self._once(f"{entry.params.label}: not timed, {entry.message}")
        return records

    def _prepare(self, params: KernelParams, tokens: Tokens) -> Entry:
        """A contestant ready to be timed, or why it is not."""
        key = params.attention, params.mode
        if params.backend == "triton" and self.refused[key]:
            return Entry(params, "unsupported", self.refused[key])
        entry = Entry(params)
        try:
            with memory_guard():
                call = call_of(params, tokens)
                call()  # what is compiled or allocated once
                once = seconds(call, self.device)
                if once > CALL_SECONDS:
                    return Entry(params, "timeout", f"one call takes {once:.2g} s")
                entry.work = self._work(params, call)
                peak = peak_memory(call, self.device)
                entry.metrics |= _memory(tokens, peak, params.mode)
                entry.call, graph = self._graphed(call, once, params.label)
                entry.metrics["graph"] = int(graph)
        except OutOfMemory as error:
            return Entry(params, "oom", str(error))
        except Exception as error:
            return Entry(params, "unsupported", self._said(error))
        if params.backend == "triton":
            entry.metrics["check_rel_rms"] = self.errors[key]
        return entry

    def _work(self, params: KernelParams, call: Call) -> Work:
        mechanism = None
        if params.backend not in ("flash", "cudnn"):
            mechanism = mechanism_of(params, "torch")
        launches = launched(call) if params.backend == "triton" else []
        return work_of(params, mechanism, launches)

    def _graphed(self, call: Call, once: float, label: str) -> tuple[Call, bool]:
        """A short call as a CUDA graph, if it can be one."""
        if self.graphs is None or once > GRAPH_SECONDS:
            return call, False
        try:
            return self.graphs.of(call), True
        except RuntimeError as error:
            self.progress(f"{label}: no CUDA graph, timed with its launches ({_first(error)})")
            torch.cuda.synchronize(self.device)
            return call, False

    def _floors(self, entries: list[Entry]) -> dict[str, Call]:
        """A copy and a matrix product for all different amounts of work."""
        floors: dict[str, Call] = {}
        for work in (e.work for e in entries if e.work is not None):
            for name, make in (
                (_copy(work), lambda work=work: copy_of(work, self.device)),
                (_product(work), lambda work=work: product_of(work, self.dtype, self.device)),
            ):
                if name in floors:
                    continue
                try:
                    with memory_guard():
                        call = make()
                        call()
                        once = seconds(call, self.device)
                        floors[name], _ = self._graphed(call, once, name)
                except OutOfMemory:
                    self.progress(f"{name}: no floor, the memory is full")
        return floors

    def _said(self, error: Exception) -> str:
        """An error in one line; what nobody expects is shown in full too."""
        if isinstance(error, SlayError):
            return str(error)
        self._once("".join(traceback.format_exception(error)).rstrip())
        return f"{type(error).__name__}: {_first(error)}"

    def _once(self, text: str) -> None:
        if text not in self._said_before:
            self._said_before.add(text)
            self.progress(text)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _key(params: KernelParams) -> str:
    return f"{params.label} at {params.seq_len}"


def _copy(work: Work) -> str:
    return f"copy of {work.bytes} bytes"


def _product(work: Work) -> str:
    return f"product of {work.operations} operations"


def _memory(tokens: Tokens, peak: int, mode: Mode) -> dict[str, Number]:
    """Bytes that a call holds above its inputs, and with these over those of q, k, v and y."""
    metrics: dict[str, Number] = {"peak_memory_bytes": peak}
    if mode == "forward":
        each = tokens.q.numel() * tokens.q.element_size()
        metrics["memory_ratio"] = (3 * each + peak) / (4 * each)
    return metrics


def _metrics(entry: Entry, times: dict[str, list[float]]) -> dict[str, Number]:
    """Quartiles, floors, and the ratio to PyTorch's flash attention of the same rounds."""
    params, own = entry.params, times[_key(entry.params)]
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
        metrics |= {"bytes": entry.work.bytes, "operations": entry.work.operations}
        floors: dict[str, Any] = {
            "copy_ms": times.get(_copy(entry.work)),
            "product_ms": times.get(_product(entry.work)),
        }
        known = {name: 1e3 * median(some) for name, some in floors.items() if some}
        metrics |= known
        if len(known) == len(floors):
            metrics["floor_ms"] = max(known.values())
            metrics["floor_ratio"] = 1e3 * middle / max(known.values())
    if params.backend == "fla":
        kernels = times.get(_key(params.model_copy(update={"backend": "triton"})))
        if kernels is not None:
            metrics["kernels_latency_ms"] = 1e3 * median(kernels)
    opponent = times.get(
        _key(params.model_copy(update={"attention": OPPONENT, "backend": "flash"}))
    )
    if opponent is not None:
        ratios = [a / b for a, b in zip(own, opponent, strict=True)]
        low, ratio, high = quantiles(ratios, n=4, method="inclusive")
        metrics["opponent_latency_ms"] = 1e3 * median(opponent)
        metrics |= {"ratio": ratio, "ratio_q1": low, "ratio_q3": high}
    return metrics
