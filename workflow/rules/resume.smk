"""Recover stale outputs, truncated records and locks of killed runs."""

import socket
from dataclasses import replace
from pathlib import Path

from snakemake.io import IOFile

from slay.pipeline.stale import to_be_renewed

STALE = set()  # existing records that are out of date
OTHERS = []  # other existing files that are out of date
if workflow.is_main_process:
    cut_short, stale = to_be_renewed(
        replace(job, path=here(job.path)) for job in BY_PATH.values()
    )
    STALE.update(stale)
    for path in cut_short:
        os.replace(path, f"{path}.cut-short")
        print(f"{path}: cut short; put aside, to be measured again", file=sys.stderr)
    for path, plan in PLANS.items():
        if os.path.exists(path) and Path(path).read_text() != plan:
            OTHERS.append(path)
    OTHERS.extend(made_of_others())

ME = Path(".snakemake/slay.pid")


def out_of_date(experiment):
    """Input function without input files that makes Snakemake rerun the job of a stale record."""

    def look(wildcards):
        look_for_slurm()
        path = f"{HERE}/records/{experiment}/{wildcards.job}.json"
        if path in STALE:
            workflow.dag.forcefiles.add(path)
        return []

    return look


def renewed(targets):
    """Input function that returns `targets` and makes Snakemake remake stale files that exist.

    Snakemake detects other code and settings itself, but only for files of which it has metadata:
    not if .snakemake was deleted or results were copied.
    """

    def look(wildcards):
        forgotten = (
            f for f in OTHERS if workflow.persistence.params(IOFile(f)) is None
        )
        workflow.dag.forcefiles.update(forgotten)
        look_for_slurm()
        unlock()
        sign_with_lock()
        return targets

    return look


def sign():
    """Record which process holds the lock of the working directory."""
    ME.write_text(f"{socket.gethostname()} {os.getpid()}")


def sign_with_lock():
    """Sign when the lock is taken: a run that is killed before it starts leaves one, too."""
    persistence = workflow.persistence
    if "_write_locks" not in vars(persistence):
        write = persistence._write_locks

        def write_and_sign(kind, files):
            write(kind, files)
            sign()

        persistence._write_locks = write_and_sign


def unlock():
    """Remove Snakemake's lock if the process that held it was killed on this machine."""
    locks = list(Path(".snakemake/locks").glob("*.lock"))
    if not locks or not ME.exists():
        return
    host, number = ME.read_text().split()
    signed_since = ME.stat().st_mtime >= max(lock.stat().st_mtime for lock in locks)
    if host == socket.gethostname() and signed_since and not is_alive(int(number)):
        for lock in locks:
            lock.unlink()


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
