"""Folders that one process writes at a time, whole or not at all; one line where that fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from slay.errors import SlayError
from slay.files import WriteError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Have a folder to oneself; the lock beside it ends with the process, however that ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise SlayError(
            f"{folder}: another process is writing there; wait for its end, or give another name"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` at the end; nothing is left where that fails.

    What an interrupted attempt left is removed. Raises `SlayError` for an `out` that is not empty.
    """
    if out.exists() and not out.is_dir():
        raise SlayError(f"{out}: is no folder; give another")
    if out.exists() and any(out.iterdir()):
        raise SlayError(f"{out}: is not empty; give another folder, or remove it")
    final = out.resolve()  # also of "." and of a link
    partial = final.with_name(f".{final.name}.partial")
    with alone(final):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with writing(out):
                partial.mkdir()
                yield partial
                partial.replace(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def writing(what: Path, then: str = "") -> Iterator[None]:
    """Raise one line, a `WriteError`, where a file cannot be written. `then`: how it goes on."""
    try:
        yield
    except WriteError as error:  # of a file in a folder
        raise WriteError(what, error.why, then) from error
    except OSError as error:
        raise WriteError(what, error.strerror, then) from error
    except SafetensorError as error:
        raise WriteError(what, str(error), then) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in ("inline_container", "StreamWriter")):
            raise  # not from PyTorch's writer of files
        raise WriteError(what, "is the disk full?", then) from error
