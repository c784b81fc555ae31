"""Files that are written whole or not at all, wherever their name leads."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from slay.errors import SlayError


class WriteError(SlayError):
    """A file that cannot be written, such as on a full disk."""

    def __init__(self, what: Path, why: str | None, then: str = ""):
        super().__init__(f"{what}: cannot be written ({why}){then}")
        self.why = why


def write(path: Path, data: str | bytes) -> None:
    """Write a file under another name, then rename it: a reader sees all of it or nothing.

    A symbolic link is followed and stays. What is there and is no regular file, such as a pipe, or
    is what this process prints to, is written into. A new file's permissions follow the umask, an
    older one's stay. Raises `WriteError`: one line with the file and why it cannot be written.
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
    """Write what a file holds into another one in the same way; returns that."""
    write(to, source.read_bytes())
    return to


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder whose name leaves room for a socket's, which has 107 bytes at most."""
    short = len(os.fsencode(tempfile.gettempdir())) < 80
    return tempfile.TemporaryDirectory(prefix="slay-", dir=None if short else "/tmp")


def remove(path: Path) -> None:
    """Remove a folder, or a link in its place; nothing where neither is there."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _there(path: Path) -> os.stat_result | None:
    """Facts of what is there, behind links; None if nothing is."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is(handle: int, there: os.stat_result) -> bool:
    """Whether that is what an open file leads to."""
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
    os.set_blocking(handle, True)  # it was not for a pipe that nobody reads, which would wait
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _unread(error: OSError, path: Path) -> bool:
    return error.errno == errno.ENXIO and path.is_fifo()
