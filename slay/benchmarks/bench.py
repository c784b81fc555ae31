"""Benchmark of kernels, competitors and floors: check all kernels, then time group by group.

Every check and every group runs in its own process (`slay.experiments.isolated`). A kernel that
destroys the CUDA context loses only its own records: the group is timed again without it.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from slay.benchmarks import check
from slay.benchmarks.group import Timing
from slay.benchmarks.settings import BenchConfig, KernelParams, TimingGroup, params_of
from slay.benchmarks.tables import line
from slay.experiments import isolated
from slay.experiments.isolated import Died, Parent
from slay.experiments.result import Progress, choose_device
from slay.pipeline.jobs import code
from slay.pipeline.record import Number, Record, write_records

CHECKS = 8  # parallel check processes, each of which compiles its own kernels
CHECK_SECONDS, GROUP_SECONDS = 120.0, 90.0  # time limits of a process


class BenchRunner:
    """One run of the benchmark; `before` holds records of an earlier run, which it completes."""

    def __init__(
        self, bench: BenchConfig, out: Path, progress: Progress, before: Sequence[Record] = ()
    ):
        self.bench, self.out, self.progress = bench, out, progress
        calls = [call for group in bench.groups for call in self.bench.calls(group)]
        wanted = [(call.model_dump(), code(call, call.device)) for call in calls] if before else []
        self.records = [r for r in before if (r.params, r.provenance.code) in wanted]
        self.refused: dict[str, str] = {}  # why a call is not timed, by the call's key
        self.errors: dict[str, float] = {}  # of kernels, by the call's key
        self.left_out: list[str] = []
        self._said_before: set[str] = set()

    def run(self) -> list[Record]:
        """Measure all groups, rewriting the file of records after each."""
        begin = time.perf_counter()
        write_records(self.out, self.records)
        importlib.import_module("torch._inductor")  # takes seconds, and every child needs it
        groups = [group for group in self.bench.groups if not self._done(group)]
        if groups:
            self._check(groups)
        for group in groups:
            passed = time.perf_counter() - begin
            if passed > self.bench.seconds:
                self.left_out.append(str(group))
                self.progress(f"{group}: left out, {self.bench.seconds:g} s are over")
                continue
            self.progress(f"{group}  [{passed:.0f} s]")
            self.records += self._group(group)
            write_records(self.out, self.records)
        return self.records

    def _done(self, group: TimingGroup) -> bool:
        there = [record.params for record in self.records]
        calls = self.bench.calls(group)
        return all(
            call.model_dump() in there for call in calls if not group.fla or call.backend == "fla"
        )

    def _check(self, groups: Sequence[TimingGroup]) -> None:
        """Compare all kernels with PyTorch and record which must not be timed."""
        wanted = {call.key for group in groups for call in self.bench.calls(group)}
        kinds = {
            name: calls
            for name, calls in check.kinds(self.bench).items()
            if any(call.key in wanted for call in calls)
        }
        if self.bench.base.device != "cuda":
            why = f"kernels run on a CUDA GPU, not on a {self.bench.base.device}"
            self.refused |= {call.key: why for calls in kinds.values() for call in calls}
            return
        self.progress(f"{len(kinds)} kinds of kernels are compiled and checked")
        found = isolated.run_all(
            {name: partial(_passed, calls) for name, calls in kinds.items()},
            self._once,
            min(CHECK_SECONDS, max(1.0, self.bench.seconds / 2)),
            at_once=CHECKS,
        )
        for name, calls in kinds.items():
            self._judge(name, calls, found[name])

    def _judge(
        self, name: str, calls: Sequence[KernelParams], found: dict[str, float] | Died
    ) -> None:
        if isinstance(found, Died):
            why = f"its check died: {found}"
        else:
            why = check.refusal(found, getattr(torch, calls[0].dtype))
            self.errors |= {call.key: max(found.values()) for call in calls}
            shown = "  ".join(f"{part} {value:.1e}" for part, value in found.items())
            self.progress(f"{name}, against float32: {shown}")
        if why:
            self.refused |= {call.key: why for call in calls}

    def _group(self, group: TimingGroup) -> list[Record]:
        """Time a group. Contestants that kill the process get the status `unsupported`."""
        dead: dict[str, str] = {}
        keys = {call.key for call in self.bench.calls(group)}
        while not keys <= dead.keys():
            task = partial(_timed, self.bench, group, self.refused | dead)
            try:
                records = isolated.run(task, self._once, GROUP_SECONDS)
            except Died as death:
                self.progress(f"{group}: the process died at {death.at or 'its start'}: {death}")
                blamed = {death.at} if death.at in keys.difference(dead) else keys
                dead |= dict.fromkeys(blamed, f"its process died: {death}")
                continue
            for record in records:
                record.metrics |= self._error(record)
                self._tell(record)
            return records
        self.left_out.append(f"{group} (no process that timed it lived)")
        return []

    def _error(self, record: Record) -> dict[str, Number]:
        """Error of a record's kernels against PyTorch, from their check."""
        error = self.errors.get(params_of(record.params).key)
        return {} if error is None or record.status != "ok" else {"check_rel_rms": error}

    def _tell(self, record: Record) -> None:
        if record.status != "unsupported":
            self.progress(line(record))
        else:
            label = f"{record.params['attention']} by {record.params['backend']}"
            self._once(f"{label}: not timed, {record.message}")

    def _once(self, text: str) -> None:
        if text not in self._said_before:
            self._said_before.add(text)
            self.progress(text)


def _passed(calls: Sequence[KernelParams], parent: Parent) -> dict[str, float]:
    return check.passed(calls, choose_device(calls[0].device))


def _timed(
    bench: BenchConfig, group: TimingGroup, refused: dict[str, str], parent: Parent
) -> list[Record]:
    return Timing(bench, group, parent).records(refused)
