"""Progress of the run, and a summary of failures (slay/pipeline/progress.py)."""

from collections import Counter

from snakemake.logging import logger

from slay.pipeline.progress import Progress

PROGRESS = []  # the run's, once it has started


def show_progress():
    """Count steps, and replace Snakemake's progress message by that of `Progress`."""
    planned = Counter(job.rule.name for job in workflow.dag.needrun_jobs())
    PROGRESS.append(Progress(planned))
    for handler in logger.handlers:
        if hasattr(handler.formatter, "format_progress"):
            handler.formatter.format_progress = PROGRESS[0].line
    logger.addHandler(PROGRESS[0])


def tell_failures():
    """Print the summary of failures last."""
    text = PROGRESS[0].summary()
    if text:
        logger.error(f"\n{text}\n")


def look_less_often():
    """Disable Snakemake's limit of jobs per second, if they run on this machine.

    With it, every check of the queue schedules another one a second later, and so does every job
    that ends: after some hundreds of jobs the scheduler would check all the time and occupy a core.
    """
    if workflow.local_exec and workflow.scheduler is not None:
        workflow.scheduler.job_rate_limiter = None
