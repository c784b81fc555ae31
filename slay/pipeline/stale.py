"""Stale records: which measurements of a run are due, why, and how long they took last time.

A record is current if it has the parameters and the code fingerprint of its job: with Triton
kernels on a GPU, without them on a CPU. If `device` is "auto", the record names the device that it
ran on. Snakemake's plan, `slay stale`, tables, drafts and `slay publish` all call `difference`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slay.pipeline.config import Config
from slay.pipeline.fingerprint import changed_files
from slay.pipeline.jobs import Job, expand
from slay.pipeline.record import SCHEMA, Record, RecordError, read_record

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
    """A measurement that would be made."""

    job: Job
    reason: str
    seconds: float | None  # that it took last time


def due(config: Config, folder: Path | None = None) -> Iterator[Due]:
    """Every measurement of a run that is missing, broken or out of date.

    `folder` is the run's, by default results/<run> in the working directory.
    """
    for jobs in expand(config).values():
        for job in jobs:
            path = record_in(folder, job)
            if not path.exists():
                yield Due(job, "no record", None)
                continue
            try:
                record = read_record(path)
            except RecordError as error:
                yield Due(job, str(error).removeprefix(f"{path}: "), None)
                continue
            reason = why(job, record)
            if reason:
                yield Due(job, reason, record.provenance.seconds)


def record_in(folder: Path | None, job: Job) -> Path:
    """Path of a job's record in the folder of its run."""
    return Path(job.path) if folder is None else folder / job.path.split("/", 2)[2]


def to_be_renewed(jobs: Iterable[Job]) -> tuple[list[str], list[str]]:
    """Truncated records and stale records, to be measured again whatever Snakemake remembers.

    Stale records have other code, other settings or an older schema. Records that are broken in
    other ways are in neither list: the error on reading them says what is wrong.
    """
    cut_short, others = [], []
    for job in jobs:
        try:
            data = json.loads(Path(job.path).read_bytes())
            made = data["provenance"]
            differs = difference(job.expected(), data["params"], made["code"], made["device"])
            older = data["schema"] != SCHEMA
        except ValueError:
            cut_short.append(job.path)
        except (OSError, LookupError, TypeError):
            continue
        else:
            if older or (differs and _is_sound(Path(job.path))):
                others.append(job.path)
    return cut_short, others


def _is_sound(path: Path) -> bool:
    """Return True if a record can be read and is valid."""
    try:
        read_record(path)
    except RecordError:
        return False
    return True


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
