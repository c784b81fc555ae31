"""Stale records: which measurements of a run are due, why, and how long they took last time.

A record is current if it has the parameters and the code fingerprint of its job: with Triton
kernels on a GPU, without them on a CPU. If `device` is "auto", the record names the device that it
ran on. Snakemake's plan, `slay stale`, tables, drafts and `slay publish` all call `difference`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slay.pipeline.config import Config
from slay.pipeline.fingerprint import changed_files
from slay.pipeline.jobs import Job, expand
from slay.pipeline.record import Record, RecordError, read_record

CODE = "code"  # returned if the code differs; no parameter has this name


def difference(asked: Mapping[str, Any], params: Mapping[str, Any], code: str, device: str) -> str:
    """Return what makes a record stale: the name of a parameter, `CODE`, or "" if it is current.

    `asked` is `Job.expected()`, as in manifests; `params`, `code` (fingerprint) and `device` (name)
    are those of the record and its provenance.
    """
    if params != asked["params"]:
        for name in {**asked["params"], **params}:
            if params.get(name) != asked["params"].get(name):
                return name
    return "" if code == asked["codes"].get(kind_of(device)) else CODE


def kind_of(device: str) -> str:
    """Kind of a device that a record names: "cpu", or "cuda" for the name of a GPU."""
    return "cpu" if device == "cpu" else "cuda"


@dataclass(frozen=True)
class Due:
    """A measurement that would be made: its record is missing, broken or out of date."""

    job: Job
    kind: str  # "stale", or that of a `RecordError`
    error: str = ""  # on reading the record
    record: Record | None = None

    @property
    def reason(self) -> str:
        """What is wrong with the record, or which setting or files changed since."""
        return self.error if self.record is None else why(self.job, self.record)

    @property
    def seconds(self) -> float | None:
        """Time that the measurement took last, if a record tells."""
        return None if self.record is None else self.record.provenance.seconds


def check(job: Job, path: Path) -> Due | None:
    """Return None if the record of a job is current."""
    try:
        record = read_record(path)
    except RecordError as error:
        said = "no record" if error.kind == "missing" else str(error).removeprefix(f"{path}: ")
        return Due(job, error.kind, said)
    made = record.provenance
    if difference(job.expected(), record.params, made.code, made.device):
        return Due(job, "stale", record=record)
    return None


def due(config: Config, folder: Path | None = None) -> Iterator[Due]:
    """Every measurement of a run whose record is not current.

    `folder` is the run's, by default results/<run> in the working directory.
    """
    for job in (job for jobs in expand(config).values() for job in jobs):
        found = check(job, record_in(folder, job))
        if found is not None:
            yield found


def record_in(folder: Path | None, job: Job) -> Path:
    """Path of a job's record in the folder of its run."""
    return Path(job.path) if folder is None else folder / job.path.split("/", 2)[2]


def why(job: Job, record: Record) -> str:
    """Return which setting or files changed since a record was made; "" if none did."""
    asked, made = job.expected(), record.provenance
    name = difference(asked, record.params, made.code, made.device)
    if not name:
        return ""
    if name != CODE:
        return f"{name} was {record.params.get(name)!r}, is {asked['params'].get(name)!r}"
    commit = made.commit
    what = "the text that it reads or the code" if job.params.files() else "the code"
    if commit is None:
        return f"{what} changed (the record names no commit)"
    since = f"since {commit[:7]}" + (" and changes of its own" if made.dirty else "")
    kernels = job.params.needs_kernels(kind_of(made.device))
    files = _changed(tuple(job.params.modules()), commit, kernels)
    if files is None:
        return f"{what} changed {since}, a commit that is not here"
    if not files:
        return f"{what} differs from what was measured with ({since})"
    return f"{', '.join(files)} changed {since}"


@cache
def _changed(modules: tuple[str, ...], commit: str, kernels: bool) -> tuple[str, ...] | None:
    try:
        return tuple(changed_files(modules, commit, kernels=kernels))
    except (OSError, subprocess.SubprocessError):
        return None
