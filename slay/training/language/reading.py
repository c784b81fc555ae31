"""Documents of .txt, .jsonl and .json files, gzipped or not, and of .parquet files, in UTF-8.

Text is not changed, line ends included, except for a byte order mark at the start. Anything that
is not a document raises a one-line error with its location; nothing is skipped.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from slay.errors import SlayError, shown

BOM = b"\xef\xbb\xbf"


def kind_of(path: str) -> str:
    """File extension that selects the reader, without .gz."""
    return Path(path.removesuffix(".gz")).suffix


def documents(path: str, column: str) -> Iterator[str]:
    """Yield every document of a file, empty ones too; a file without any yields an empty one."""
    number = 0
    try:
        for number, text in enumerate(KINDS[kind_of(path)](path, column), 1):  # noqa: B007
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SlayError(f"{path}: is no whole gzip file ({error})") from error
    except OSError as error:
        raise SlayError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not number:
        yield ""


def _opened(path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.endswith(".gz") else open(path, "rb")


def _text(path: str, column: str) -> Iterator[str]:
    """One document per file."""
    with _opened(path) as file:
        yield _decoded(file.read().removeprefix(BOM), path)


def _lines(path: str, column: str) -> Iterator[str]:
    """One document per line of JSON."""
    with _opened(path) as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}, line {number}"
            raw = raw.removeprefix(BOM) if number == 1 else raw
            if raw.strip():
                yield _of_row(_parsed(raw, where), column, where)


def _json(path: str, column: str) -> Iterator[str]:
    """One document per entry of a list, or per line."""
    with _opened(path) as file:
        raw = file.read().removeprefix(BOM)
    if not raw.lstrip().startswith(b"["):
        yield from _lines(path, column)
        return
    for number, row in enumerate(_parsed(raw, path), 1):
        yield _of_row(row, column, f"{path}, entry {number}")


def _parquet(path: str, column: str) -> Iterator[str]:
    """One document per row."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        file = parquet.ParquetFile(path)
        if column not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names)
            raise SlayError(f"{path}: has no column {column!r}, only {columns}")
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield text_of(value, column, f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        line = str(error).partition("\n")[0]
        raise SlayError(f"{path}: is no whole Parquet file ({line})") from error


KINDS = {".txt": _text, ".jsonl": _lines, ".json": _json, ".parquet": _parquet}


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw.count(b"\n", 0, error.start)
        place = where if ", line " in where else f"{where}, line {1 + before}"
        raise SlayError(
            f"{place}: is not UTF-8 ({error.reason}); convert it, as by iconv -t utf-8"
        ) from error


def _parsed(raw: bytes, where: str) -> Any:
    try:
        return json.loads(_decoded(raw, where))
    except SlayError:
        raise
    except (ValueError, RecursionError) as error:
        raise SlayError(f"{where}: is no JSON ({error}); mend or remove it") from error


def _of_row(row: Any, column: str, where: str) -> str:
    if not isinstance(row, dict):
        raise SlayError(f"{where}: {shown(row)} should be an object with a key {column!r}")
    if column not in row:
        keys = ", ".join(map(str, row)) or "none"
        raise SlayError(f"{where}: has no key {column!r}, only {shown(keys)[1:-1]}")
    return text_of(row[column], column, where)


def text_of(value: Any, column: str, where: str) -> str:
    """Return a column's value, which must be text that UTF-8 can encode."""
    if not isinstance(value, str):
        raise SlayError(f"{where}: {column!r} is {shown(value)}, which is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SlayError(f"{where}: {column!r} holds half of a character ({error})") from error
    return value
