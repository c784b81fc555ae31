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
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "snakemake.scheduling.job_scheduler", "forked"])
HERE = str(Path(__file__).parents[1])


def snakemake(
    args: tuple[str, ...], folder: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run(["snakemake", *args])` does; errors are part of the output."""
    with tempfile.NamedTemporaryFile("w+", errors="replace") as out:
        child = FORKS.Process(target=_main, args=(args, folder, env, out.name))
        child.start()
        child.join()
        return subprocess.CompletedProcess(args, child.exitcode or 0, Path(out.name).read_text())


def _main(args: tuple[str, ...], folder: Path, env: dict[str, str], out: str) -> None:
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [path for path in sys.path if not path.startswith(HERE)]
    sys.argv = ["snakemake", *args]
    from snakemake.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a fork of multiprocessing does not
