"""Snakemake in forks of a process that has imported it: importing takes longer than most plans.

That process has no module of `slay`: each fork imports those of the checkout that it works in.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "snakemake.scheduling.job_scheduler", "forked"])
HERE = str(Path(__file__).parents[1])


def start(args: tuple[str, ...], folder: Path, env: dict[str, str], out: Path) -> BaseProcess:
    """Start `snakemake *args` in a session of its own; what it prints goes to a new file."""
    out.unlink(missing_ok=True)
    child = FORKS.Process(target=_main, args=(args, folder, env, out))
    child.start()
    while child.is_alive() and not out.exists():
        time.sleep(0.01)
    return child


def snakemake(
    args: tuple[str, ...], folder: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run(["snakemake", *args])` does; errors are part of the output."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "out")
        child = start(args, folder, env, out)
        child.join()
        return subprocess.CompletedProcess(args, child.exitcode or 0, out.read_text())


def _main(args: tuple[str, ...], folder: Path, env: dict[str, str], out: Path) -> None:
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [path for path in sys.path if not path.startswith(HERE)]
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    sys.argv = ["snakemake", *args]
    from snakemake.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a fork of multiprocessing does not
