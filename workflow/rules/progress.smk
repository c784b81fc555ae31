"""How far the run is, and what failed (slay/progress.py)."""

from collections import Counter

from snakemake.logging import logger

from slay.progress import Progress

PROGRESS = []  # of the run, once it has started


def show_progress():
    """Count steps, and say how they stand wherever Snakemake says how many are done."""
    planned = Counter(job.rule.name for job in workflow.dag.needrun_jobs())
    PROGRESS.append(Progress(planned))
    for handler in logger.handlers:
        if hasattr(handler.formatter, "format_progress"):
            handler.formatter.format_progress = PROGRESS[0].line
    logger.addHandler(PROGRESS[0])


def tell_failures():
    """Say last what failed."""
    text = PROGRESS[0].summary()
    if text:
        logger.error(f"\n{text}\n")


def look_less_often():
    """Lift Snakemake's limit to jobs a second, where they run on this machine.

    With it every look at the queue plans another one a second later, and so does every job that
    ends: after some hundreds of jobs it would look all the time, and take a core from them.
    """
    if workflow.local_exec and workflow.scheduler is not None:
        workflow.scheduler.job_rate_limiter = None
