"""The files that training text is read from, and a digest of their contents.

The digest ties a record or a checkpoint to its text, whatever the file is called. Data sets of the
hub and the standard library's sources are identified by name.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

HUB = {  # path, configuration, split
    "fineweb": ("HuggingFaceFW/fineweb", "sample-10BT", "train"),
    "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "validation"),
}
LARGE = 2**24  # bytes; digests of larger files are cached on disk
KEPT = Path(".slay/digests.json")  # size, modification time and digest, by path


def files_of(data: str, eval_data: str = "", tokenizer: str = "") -> list[str]:
    """Files behind the settings `data`, `eval_data` and `tokenizer`, existing or not."""
    files = _files(data)
    if not eval_data and files and files[0].endswith(".bin"):
        eval_data = os.path.join(os.path.dirname(files[0]), "validation.bin")
    codec = [tokenizer] if os.path.isfile(tokenizer) else []
    return [*files, *_files(eval_data), *codec]


def _files(name: str) -> list[str]:
    if name in ("", "stdlib"):
        return []
    if os.path.isdir(name):
        name = os.path.join(name, "train.bin")
    if name in HUB:
        return []
    if name.endswith(".bin"):
        return [name, f"{name.removesuffix('.bin')}.json"]
    return sorted(glob.glob(name)) or [name]


def digest(paths: list[str]) -> str:
    """Digest of the contents of some files, in order: 16 hex digits, or "" for no files."""
    parts = [file_digest(path) if os.path.isfile(path) else "absent" for path in paths]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16] if parts else ""


def file_digest(path: str) -> str:
    """SHA-256 of a file, cached while its size and modification time stay the same."""
    known = os.stat(path)
    return _digest(os.path.abspath(path), known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(path: str, size: int, changed: int) -> str:
    kept = _kept() if size > LARGE else {}
    if kept.get(path, [])[:2] == [size, changed]:
        return kept[path][2]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if size > LARGE:
        _keep({**_kept(), path: [size, changed, found]})
    return found


def _kept() -> dict[str, list]:
    with suppress(OSError, ValueError):
        return dict(json.loads(KEPT.read_text(encoding="utf-8")))
    return {}


def _keep(digests: dict[str, list]) -> None:
    """Cache digests for later processes; if the cache cannot be written, they hash again."""
    with suppress(OSError):
        KEPT.parent.mkdir(exist_ok=True)
        part = KEPT.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
        part.replace(KEPT)
