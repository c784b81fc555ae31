"""Atomic writes of files and folders, with one-line errors; locks; where sockets may be."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slay.errors import SlayError


class WriteError(SlayError):
    """A file that cannot be written, such as on a full disk."""

    def __init__(self, what: Path, why: str | None, then: str = ""):
        super().__init__(f"{what}: cannot be written ({why}){then}")
        self.why = why


def write(path: Path, data: str | bytes) -> None:
    """Write a file atomically: under another name, then renamed.

    Symbolic links are followed and kept. An existing path that is no regular file, such as a pipe,
    or that is this process's standard output or error, is written into directly. A new file's
    permissions follow the umask, an existing file keeps its own. Raises `WriteError`: one line
    with the file and the reason.
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        there = _there(path)
        printed = next((n for n in (1, 2) if there and _is(n, there)), None)
        if printed is not None:
            _write_into(os.dup(printed), raw)
        elif there is None or stat.S_ISREG(there.st_mode):
            _replace(Path(os.path.realpath(path)), raw, there)
        else:
            _write_into(os.open(path, os.O_WRONLY | os.O_NONBLOCK), raw)
    except OSError as error:
        why = "nobody reads from this pipe" if _unread(error, path) else error.strerror
        raise WriteError(path, why) from error


def copy(source: Path, to: Path) -> Path:
    """Copy a file's contents by `write`; returns `to`."""
    write(to, source.read_bytes())
    return to


def socket_folder() -> str:
    """The temporary folder, or /tmp if its name is too long for the path of a socket in it.

    Such a path has at most 107 bytes.
    """
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= 60 else "/tmp"


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """New temporary folder for a socket."""
    return tempfile.TemporaryDirectory(prefix="slay-", dir=socket_folder())


def remove(path: Path) -> None:
    """Remove a folder, or a symbolic link in its place; do nothing if neither exists."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; the lock file is released however the process ends."""
    from filelock import FileLock, Timeout

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
    except Exception as error:  # the writers of safetensors and PyTorch, which may be missing here
        if type(error).__name__ == "SafetensorError":
            raise WriteError(what, str(error), then) from error
        if not any(word in str(error) for word in ("inline_container", "StreamWriter")):
            raise
        raise WriteError(what, "is the disk full?", then) from error


def _there(path: Path) -> os.stat_result | None:
    """Return `os.stat` of a path, following links; None if it does not exist."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is(handle: int, there: os.stat_result) -> bool:
    """Return True if file descriptor `handle` refers to the same file as `there`."""
    try:
        return os.path.samestat(os.fstat(handle), there)
    except OSError:  # it is closed
        return False


def _replace(path: Path, data: bytes, there: os.stat_result | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        if there is not None:
            os.chmod(partial, stat.S_IMODE(there.st_mode))
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _write_into(handle: int, data: bytes) -> None:
    os.set_blocking(handle, True)  # opened non-blocking: else a pipe without a reader would wait
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _unread(error: OSError, path: Path) -> bool:
    return error.errno == errno.ENXIO and path.is_fifo()
