"""What earlier runs left: files made of other code, records that were cut short, locks of the dead."""

import socket
from dataclasses import replace
from pathlib import Path

from snakemake.io import IOFile

from slay.stale import to_be_renewed

STALE = set()  # records that are there and are not what is asked for
OTHERS = []  # other files that are there and are not this run's
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
    """No input file, but word for Snakemake to make a record again that is not what is asked for."""

    def look(wildcards):
        look_for_slurm()
        path = f"{HERE}/records/{experiment}/{wildcards.job}.json"
        if path in STALE:
            workflow.dag.forcefiles.add(path)
        return []

    return look


def renewed(targets):
    """Some targets, as a rule's input; what there is and is not this run's will be made again.

    Snakemake sees other code or settings too, but only where it remembers how a file was made: not
    where .snakemake was deleted, nor where results were copied.
    """

    def look(wildcards):
        forgotten = (
            f for f in OTHERS if workflow.persistence.params(IOFile(f)) is None
        )
        workflow.dag.forcefiles.update(forgotten)
        look_for_slurm()
        unlock()
        return targets

    return look


def sign():
    """Note which process has the lock of this folder."""
    ME.write_text(f"{socket.gethostname()} {os.getpid()}")


def unlock():
    """Drop Snakemake's lock where the process that took it was killed on this machine."""
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
