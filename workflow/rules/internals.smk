"""All that this workflow reads and changes inside Snakemake, where Snakemake has no public way.

Written for Snakemake 9.27. tests/workflow/test_internals.py has one test per function, so that
after an upgrade the names of failing tests say what to mend here.
"""

import os
import socket
from pathlib import Path

import psutil
from snakemake.io import IOFile
from snakemake.logging import logger

# The folder of this project. `workflow.basedir` is that of the main Snakefile, perhaps of another
# project that imports this one as a module; `workflow.source_path` gives a copy in a cache.
ROOT = str(Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1])


def is_main():
    """Whether this workflow is the main one. Two may share a `workflow.basedir`."""
    return workflow.main_snakefile in (
        f"{ROOT}/Snakefile",
        f"{ROOT}/workflow/Snakefile",
    )


def configured():
    """Whether --configfile was given. `configfile:` would be merged into it, list by list."""
    return bool(workflow.config_settings.configfiles)


def config_sources():
    """Configuration files and KEY=VALUE arguments. `config` has lost how numbers were written."""
    return workflow.configfiles, workflow.config_settings.config_args or []


def prefixed(path):
    """Return a path with the prefix of a module, which Snakemake itself adds to rules only."""
    return str(workflow.modifier.modify_path(path))


def deploys():
    """Whether Snakemake makes the environments of jobs, which then lack this interpreter."""
    return bool(workflow.deployment_settings.deployment_method)


def is_planning():
    """Whether this process plans the run; it does not in a job that reads the Snakefile again."""
    return workflow.is_main_process


def plans_here():
    """Whether it plans jobs for this machine; known while rules are read, unlike `runs_here`."""
    return workflow.is_main_process and workflow.resource_settings.nodes is None


def runs_here():
    """Whether jobs are executed on this machine, which they are not with --touch."""
    return workflow.local_exec and not workflow.touch


def touches():
    """Whether --touch was given: nothing runs then."""
    return workflow.touch


def executor():
    """Name of the executor, such as "slurm"; known once jobs are planned."""
    return getattr(workflow.executor_plugin, "name", "")


def cores():
    """Number given by --cores, None on a cluster: there `workflow.cores` is an error."""
    return workflow.resource_settings.cores


def default_resources():
    """Whether --default-resources was given, which the constants of rules would override."""
    return workflow.resource_settings.default_resources is not None


def limit(resource, number):
    """Set what --resources sets, unless it was given; rules cannot set the total of a resource."""
    if resource not in workflow.resource_settings.resources:
        workflow.register_resource(resource, number)


def due_jobs():
    """Jobs of the plan that are to run: handlers such as `onstart` are told nothing of it."""
    return list(workflow.dag.needrun_jobs())


def planned_files():
    """Output files of all jobs of the plan, due or not."""
    return {path for job in workflow.dag.jobs for path in job.output}


def rerun(paths):
    """Do what --forcerun does, while the plan is made; has an effect in input functions only."""
    workflow.dag.forcefiles.update(paths)


def is_known(path):
    """Whether Snakemake has metadata of a file, and so compares its params by itself."""
    return workflow.persistence.params(IOFile(path)) is not None


def log_to(handler):
    """Log to `handler` too, whose `line` replaces the progress line.

    Snakemake has logger plugins, but each is a package of its own and asked for with --logger.
    """
    for other in logger.handlers:
        if hasattr(other.formatter, "format_progress"):
            other.formatter.format_progress = handler.line
    logger.addHandler(handler)


def lift_job_rate():
    """Disable --max-jobs-per-timespan for jobs on this machine; it has no value for "no limit".

    With it, each check of the queue schedules another one a second later, and so does each job
    that ends: after some hundreds of jobs the scheduler checks all the time and occupies a core.
    """
    if workflow.local_exec and workflow.scheduler is not None:
        workflow.scheduler.job_rate_limiter = None


def run_in_threads():
    """Let rules with `run:`, which only write a file, do so here: not in a Snakemake for each."""
    for job in workflow.dag.needrun_jobs():
        if job.is_run and workflow.scheduler is not None:
            workflow.scheduler.get_executor(job).use_threads = True


OWNER = Path(".snakemake/slay.pid")  # which process holds the lock


def sign_lock():
    """Write down which process holds the lock of the folder: the lock itself does not say."""
    OWNER.write_text(f"{socket.gethostname()} {os.getpid()}")


def sign_with_lock():
    """Sign when the lock is taken: a run that is killed before `onstart` leaves a lock, too."""
    persistence = workflow.persistence
    if "_write_locks" not in vars(persistence):
        write = persistence._write_locks

        def write_and_sign(kind, files):
            write(kind, files)
            sign_lock()

        persistence._write_locks = write_and_sign


def release_lock():
    """Do what --unlock does if the process that holds the lock was killed on this machine."""
    locks = list(Path(".snakemake/locks").glob("*.lock"))
    if locks and OWNER.exists():
        host, number = OWNER.read_text().split()
        signed = OWNER.stat().st_mtime >= max(lock.stat().st_mtime for lock in locks)
        if (
            signed
            and host == socket.gethostname()
            and not psutil.pid_exists(int(number))
        ):
            for lock in locks:
                lock.unlink()
