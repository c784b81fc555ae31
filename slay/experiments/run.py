"""Run one job and write its record."""

from __future__ import annotations

import importlib
import math
import resource
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import torch

from slay.errors import SlayError
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.result import Progress, Result, choose_device
from slay.pipeline.devices import claimed
from slay.pipeline.jobs import code
from slay.pipeline.params import LanguageParams, Params
from slay.pipeline.provenance import PACKAGE, commit, machine
from slay.pipeline.record import SCHEMA, Provenance, Record, write_record
from slay.registry import EXPERIMENTS


def run_job(
    params: Params, out: Path, *, threads: int, planned: Collection[str], progress: Progress
) -> Record:
    """Measure a job, write its record to `out` and return it.

    `planned` holds the fingerprints that the workflow planned with, one per device that the job may
    run on; if it is empty, any is accepted. If the job would run other code, `SlayError` is raised,
    so that an edit during a run never mixes two versions.
    """
    for name in params.modules():  # before the fingerprint, so that a later edit is not loaded
        importlib.import_module(name.partition(":")[0])
    codes = {device: code(params, device) for device in params.devices}
    torch.set_num_threads(threads)
    with claimed(_gpus(params)):
        device = choose_device(params.device)
        fingerprint = codes[device.type]
        if planned and fingerprint not in planned:
            what = "the code or the text that it reads" if params.files() else "the code"
            raise SlayError(
                f"{what} changed since this job was planned (fingerprint "
                f"{' or '.join(planned)}, now {fingerprint}); start the workflow again"
            )
        record = _measured(params, device, fingerprint, threads, progress)
    if record.provenance.commit is None:
        progress(f"no commit is recorded: {PACKAGE.parent} is no git clone of this project")
    write_record(out, record)
    return record


def _gpus(params: Params) -> int:
    """Number of GPUs that a job uses."""
    if params.device == "cpu" or (params.device == "auto" and not torch.cuda.device_count()):
        return 0
    return params.processes if isinstance(params, LanguageParams) else 1


def _measured(
    params: Params, device: torch.device, fingerprint: str, threads: int, progress: Progress
) -> Record:
    started = datetime.now(UTC)
    begin = time.perf_counter()
    try:
        with memory_guard():
            result = _finite(EXPERIMENTS.load(params.experiment)(params, progress))
    except OutOfMemory as error:
        result = Result({}, status="oom", message=str(error))
    taken = time.perf_counter() - begin
    return recorded(params, result, provenance(fingerprint, device, threads, started, taken))


def recorded(params: Params, result: Result, where: Provenance) -> Record:
    """The record of a result."""
    return Record(
        schema=SCHEMA,
        experiment=params.experiment,
        params=params.model_dump(),
        provenance=where,
        **vars(result),
    )


def provenance(
    fingerprint: str,
    device: torch.device,
    threads: int,
    started: datetime,
    seconds: float,
    command: str = "",
) -> Provenance:
    """Provenance of what this process has just measured."""
    head, dirty = commit()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Provenance(
        code=fingerprint,
        commit=head,
        dirty=dirty,
        device=name,
        threads=threads,
        command=command,
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        peak_memory_bytes=_resident_peak(),
        **machine(),
    )


def _finite(result: Result) -> Result:
    """Replace metrics that are not finite by None and set the status to `diverged`."""
    bad = [k for k, v in result.metrics.items() if v is not None and not math.isfinite(v)]
    if not bad:
        return result
    metrics = {k: None if k in bad else v for k, v in result.metrics.items()}
    return Result(metrics, result.curve, "diverged", f"not finite: {', '.join(bad)}")


def _resident_peak() -> int:
    """Peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
