"""Exclusive, atomic writing of folders, with one-line errors."""

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
    """Lock a folder for this process; the lock file is released however the process ends."""
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
    """Yield a temporary folder that is renamed to `out` at the end, or removed on failure.

    Remains of an interrupted attempt are removed. Raises `SlayError` if `out` is not empty.
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
    """Convert errors in writing a file to a one-line `WriteError`, which `then` completes."""
    try:
        yield
    except WriteError as error:  # about a file in the folder
        raise WriteError(what, error.why, then) from error
    except OSError as error:
        raise WriteError(what, error.strerror, then) from error
    except SafetensorError as error:
        raise WriteError(what, str(error), then) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in ("inline_container", "StreamWriter")):
            raise  # not from PyTorch's file writer
        raise WriteError(what, "is the disk full?", then) from error
