"""Exclusive GPUs: a job waits for devices that no other job of this user holds.

A device is held by a file lock, which the system releases however the process ends.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from slay.errors import SlayError

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """Devices that this process may use: those in CUDA_VISIBLE_DEVICES, or all of the machine."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return list(takewhile(lambda n: n and n != "-1", (n.strip() for n in named.split(","))))
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--list-gpus"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in lines))]


@contextmanager
def claimed(number: int) -> Iterator[list[str]]:
    """Hold `number` devices exclusively and hide all others; enter before CUDA is initialised.

    If no NVIDIA device is found, none is held, and torch may find other vendors' devices. Raises
    `SlayError` if there are too few.
    """
    names = visible() if number else []
    if not names:
        yield []
        return
    if len(names) < number:
        raise SlayError(f"{number} GPUs are asked for, {len(names)} can be seen here")
    before = os.environ.get(VARIABLE)
    held = _hold(names, number)
    os.environ[VARIABLE] = ",".join(held)
    try:
        yield list(held)
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        for lock in held.values():
            lock.release()


def _hold(names: list[str], number: int) -> dict[str, FileLock]:
    """Lock `number` of the devices, all or none, so that waiting jobs cannot deadlock.

    Slurm numbers each job's devices from 0: there the lock files are per job.
    """
    folder = Path(tempfile.gettempdir(), f"slay-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    scope = os.environ.get("SLURM_JOB_ID", "here")
    while True:
        held: dict[str, FileLock] = {}
        for name in names:
            lock = FileLock(folder / f"{scope}-{name}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            held[name] = lock
            if len(held) == number:
                return held
        for lock in held.values():
            lock.release()
        time.sleep(random.uniform(0.05, 0.2))
