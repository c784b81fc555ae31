"""The record of a job: one JSON file, validated, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, ValidationError

from slay.errors import SlayError

SCHEMA: Literal[1] = 1
Number = StrictInt | FiniteFloat | None
Status = Literal["ok", "oom", "diverged", "timeout", "unsupported"]


class Provenance(BaseModel):
    """Where, when and with which code a record was made."""

    model_config = ConfigDict(extra="forbid")

    code: str  # fingerprint of the import closure
    commit: str | None
    dirty: bool | None
    device: str
    host: str
    platform: str
    processor: str
    cores: int | None
    threads: int
    python: str
    torch: str | None
    triton: str | None = None
    driver: str | None = None  # NVIDIA's
    command: str = ""  # where it is not what the parameters give
    started: str  # ISO 8601, UTC
    seconds: FiniteFloat
    peak_memory_bytes: int  # of the whole process


class Record(BaseModel):
    """One job's parameters, results and provenance."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    experiment: str
    params: dict[str, Any]
    status: Status
    message: str = ""  # why the status is not ok
    metrics: dict[str, Number]
    curve: list[dict[str, Number]] = []
    provenance: Provenance


class RecordError(SlayError):
    """A record that cannot be read or written."""


def write_record(path: Path, record: Record) -> None:
    """Write a record under a temporary name, then rename it: a reader sees all of it or nothing."""
    _write_whole(Path(path), record.model_dump(by_alias=True))


def write_records(path: Path, records: list[Record]) -> None:
    """Write several records as one list, in the same way."""
    _write_whole(Path(path), [record.model_dump(by_alias=True) for record in records])


def _write_whole(path: Path, data: Any) -> None:
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RecordError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        Path(name).unlink(missing_ok=True)


def read_record(path: Path) -> Record:
    """Read and validate a record. Raises `RecordError`, one line that says what to do."""
    return _validated(_read(path), path)


def read_records(path: Path) -> list[Record]:
    """Read and validate a list of records. Raises `RecordError` as `read_record` does."""
    data = _read(path)
    if not isinstance(data, list):
        raise RecordError(f"{path}: holds no list of records")
    return [_validated(item, path) for item in data]


def _read(path: Path) -> Any:
    """The JSON of a file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such record") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(
            f"{path}: broken record, cannot be read ({error}); {_remedy(path)}"
        ) from error
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{path}: broken record, cut short or edited (line {error.lineno}: {error.msg}); "
            f"{_remedy(path)}"
        ) from error


def _validated(data: Any, path: Path) -> Record:
    if isinstance(data, dict) and data.get("schema") != SCHEMA:
        raise RecordError(
            f"{path}: record of schema {data.get('schema')!r}, this version reads {SCHEMA}; "
            f"{_remedy(path)}"
        )
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "record"
        raise RecordError(
            f"{path}: broken record ({key}: {first['msg']}); {_remedy(path)}"
        ) from error


def _remedy(path: Path) -> str:
    return f"delete it and run again: rm {path}"


def cut_short(path: Path) -> bool:
    """Whether a record is there whose end is not: looked at without reading all of it."""
    try:
        with Path(path).open("rb") as file:
            file.seek(-min(2, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return file.read() != b"}\n"
    except OSError:
        return False
