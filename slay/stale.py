"""Which measurements of a run would be made, why, and how long they took last time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from slay.config import Config
from slay.jobs import Job, expand
from slay.provenance import changed_files
from slay.record import SCHEMA, Record, RecordError, read_record


@dataclass(frozen=True)
class Due:
    """A measurement that would be made."""

    job: Job
    reason: str
    seconds: float | None  # that it took last time


def due(config: Config) -> Iterator[Due]:
    """Every measurement of a run that is missing, broken or out of date."""
    for jobs in expand(config).values():
        for job in jobs:
            path = Path(job.path)
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


def to_be_renewed(jobs: Iterable[Job]) -> tuple[list[str], list[str]]:
    """Records to be measured again, whatever a workflow system remembers: cut short, or another's.

    Another's is a record of other code, other settings or an older schema. One that is broken in
    other ways is in neither list: whoever reads it says what is wrong.
    """
    cut_short, others = [], []
    for job in jobs:
        try:
            data = json.loads(Path(job.path).read_bytes())
            told = data["schema"], data["params"], data["provenance"]["code"]
        except ValueError:
            cut_short.append(job.path)
        except (OSError, LookupError, TypeError):
            continue
        else:
            if told != (SCHEMA, job.params.model_dump(), job.code):
                others.append(job.path)
    return cut_short, others


def why(job: Job, record: Record) -> str:
    """The setting or the files that changed since a record was made; "" if none did."""
    asked = job.params.model_dump()
    for name in {**asked, **record.params}:
        before, now = record.params.get(name), asked.get(name)
        if before != now:
            return f"{name} was {before!r}, is {now!r}"
    if record.provenance.code == job.code:
        return ""
    commit = record.provenance.commit
    if commit is None:
        return "the code changed (the record names no commit)"
    since = f"since {commit[:7]}" + (" and changes of its own" if record.provenance.dirty else "")
    files = _changed(tuple(job.params.modules()), commit)
    if files is None:
        return f"the code changed {since}, a commit that is not here"
    if not files:
        return f"the code differs from what was measured with ({since})"
    return f"{', '.join(files)} changed {since}"


@cache
def _changed(modules: tuple[str, ...], commit: str) -> tuple[str, ...] | None:
    try:
        return tuple(changed_files(modules, commit))
    except (OSError, subprocess.SubprocessError):
        return None
