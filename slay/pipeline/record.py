"""Records: one in a JSON file, or many in the lines of one; validated, and written atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictInt,
    ValidationError,
    field_validator,
)

from slay import files
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
    command: str = ""  # if it differs from the one that the parameters give
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

    @field_validator("params")
    @classmethod
    def _are_numbers(cls, params: dict[str, Any]) -> dict[str, Any]:
        for name, value in params.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} = {value} is no number")
        return params


class RecordError(SlayError):
    """A record that cannot be read or written: "missing", "cut short", "stale" or "broken"."""

    def __init__(self, message: str, kind: str = "broken"):
        super().__init__(message)
        self.kind = kind


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically (see `slay.files`)."""
    _write_whole(Path(path), _text(_data(record), indent=1))


def write_records(path: Path, records: Sequence[Record] | Mapping[str, Record]) -> None:
    """Write several records atomically, one per line; each with its path if they are by path."""
    if isinstance(records, Mapping):
        lines = [{"path": place, "record": _data(record)} for place, record in records.items()]
    else:
        lines = [_data(record) for record in records]
    _write_whole(Path(path), "".join(map(_text, lines)))


def _data(record: Record) -> dict[str, Any]:
    return record.model_dump(by_alias=True)


def _text(data: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps(data, indent=indent, allow_nan=False) + "\n"


def _write_whole(path: Path, text: str) -> None:
    try:
        files.write(path, text)
    except SlayError as error:
        raise RecordError(str(error)) from error


def read_record(path: Path) -> Record:
    """Read and validate a record. Raises `RecordError`, one line that says what to do."""
    records = read_records(path)
    if len(records) != 1:
        found = "it is empty" if not records else f"it holds {len(records)} records"
        kind = "broken" if records else "cut short"
        raise _broken(path, f"broken record, cut short or edited ({found})", kind)
    return records[0]


def read_records(path: Path) -> list[Record]:
    """Read and validate a file of one or many records. Raises `RecordError` as `read_record`."""
    return [record for _, record in _read(path)]


def read_by_path(path: Path) -> dict[str, Record]:
    """Read records that were written by path. Raises `RecordError` as `read_record`."""
    records = dict(_read(path))
    if "" in records:
        raise _broken(path, "has a record without a path")
    return records


def _read(path: Path) -> Iterator[tuple[str, Record]]:
    """Each record of a file with the path beside it, or ""."""
    text, place = _text_of(path).strip(), 0
    while place < len(text):
        try:
            data, place = json.JSONDecoder().raw_decode(text, place)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}: {error.msg}"
            message = f"broken record, cut short or edited ({where})"
            raise _broken(path, message, "cut short") from error
        if isinstance(data, dict) and data.keys() == {"path", "record"}:
            yield data["path"], _validated(data["record"], path)
        else:
            yield "", _validated(data, path)
        while text[place : place + 1].isspace():
            place += 1


def _text_of(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such record", "missing") from error
    except (OSError, UnicodeDecodeError) as error:
        kind = "broken" if isinstance(error, OSError) else "cut short"
        raise _broken(path, f"broken record, cannot be read ({error})", kind) from error


def _validated(data: Any, path: Path) -> Record:
    if isinstance(data, dict) and data.get("schema") != SCHEMA:
        schema = data.get("schema")
        kind = "stale" if isinstance(schema, int) else "broken"
        raise _broken(path, f"record of schema {schema!r}, this version reads {SCHEMA}", kind)
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "record"
        raise _broken(path, f"broken record ({key}: {first['msg']})") from error


def _broken(path: Path, message: str, kind: str = "broken") -> RecordError:
    return RecordError(f"{path}: {message}; delete it and run again: rm {path}", kind)
