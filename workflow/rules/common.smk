"""The run: its configuration, its jobs, and functions by which rules query them."""

import gc
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

# Imports and thousands of planned jobs contain little garbage, so collection is made rare.
gc.freeze()
gc.set_threshold(200_000, 20, 1000)

# The folder of this project, also if another Snakefile uses it as a module.
ROOT = str(Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1])
if not os.path.isdir(os.path.join(ROOT, "slay")):
    sys.exit(f"{ROOT}: slay measures the code beside its workflow; clone the project")
sys.path.insert(0, ROOT)


def put_first(variable, folder):
    """Prepend a folder to a path variable, for this process and its jobs."""
    others = os.environ.get(variable, "").split(os.pathsep)
    kept = [path for path in others if path and path != folder]
    os.environ[variable] = os.pathsep.join([folder, *kept])


# Jobs run the code beside the workflow, whatever else is installed, with the interpreter of this
# process unless Snakemake deploys software.
put_first("PYTHONPATH", ROOT)
if not workflow.deployment_settings.deployment_method:
    put_first("PATH", os.path.dirname(sys.executable))

from slay.pipeline.config import as_typed, load
from slay.errors import SlayError
from slay.pipeline import plugins
from slay.pipeline.jobs import digest, expand, plans

MAIN = workflow.main_snakefile in (f"{ROOT}/Snakefile", f"{ROOT}/workflow/Snakefile")

try:
    if MAIN:
        typed = workflow.config_settings.config_args or []
        as_typed(config, workflow.configfiles, typed)
    CONFIG = load(config)
    JOBS = expand(CONFIG)
except SlayError as error:
    sys.exit(f"{error}")

RUN = f"results/{CONFIG.run}"
HERE = str(workflow.modifier.modify_path(RUN))  # with the prefix of a module

BY_PATH = {job.path: job for jobs in JOBS.values() for job in jobs}
RECORDS = list(BY_PATH)


def here(path):
    """Return the path of a file of the run, with the prefix of a module."""
    return HERE + path.removeprefix(RUN)


# Contents of the files that the report reads besides records; small enough to be planned here.
PLANS = {f"{HERE}/{name}": text for name, text in plans(CONFIG, config, JOBS).items()}


def write_plan(path, log):
    """Write one of PLANS. The report takes the start time of the step from the new, empty log."""
    Path(log).write_text("")
    Path(path).write_text(PLANS[path])


wildcard_constraints:
    job=r"[^\s]+",
    experiment="|".join(JOBS) or "none",
    draft="(draft/)?",  # results/<run>/draft/ holds what paper_only makes


def job(wildcards, experiment):
    """Return the job whose record a rule's wildcards name."""
    return BY_PATH[f"{RUN}/records/{experiment}/{wildcards.job}.json"]


# Snakemake does not store params that take `output`. It need not: a record contains its settings
# and code fingerprint, and slay/pipeline/stale.py compares them with the job's (see out_of_date).
def arguments(experiment):
    """The measurement's command line, after `slay run`."""
    return lambda wildcards, output: shlex.join(job(wildcards, experiment).argv)


def code(experiment):
    """Fingerprints of the code that the measurement may run: one, or one per device for "auto"."""
    return lambda wildcards, output: ",".join(job(wildcards, experiment).codes.values())


def processes(wildcards):
    """Number of processes that train a language model."""
    return job(wildcards, "language").params.processes


# True in the main process if jobs run on this machine; False on a cluster, and in its jobs.
LOCAL = workflow.is_main_process and workflow.resource_settings.nodes is None

# Resources of a measurement. On a cluster each attempt requests more memory, and the temporary
# folder is that of the node. On this machine both are constants unless --default-resources is set:
# constants speed up the planning of thousands of jobs.
ASKS = {"mem_mb": lambda wildcards, attempt: 4000 * attempt}
if LOCAL and workflow.resource_settings.default_resources is None:
    ASKS = {"mem_mb": 4000, "tmpdir": tempfile.gettempdir()}


def records_there_are(wildcards):
    """Digest of existing records and their modification times: if it changes, a draft is remade."""
    paths = [here(job.path) for job in JOBS[wildcards.experiment]]
    return digest(
        " ".join(f"{p} {os.stat(p).st_mtime_ns}" for p in paths if os.path.exists(p))
    )


FACTS = [f"{RUN}/mechanisms.json", f"{RUN}/config.json"]


def data(experiments, draft="{draft}"):
    """Return the summaries of those experiments that this run has."""
    return [
        f"{RUN}/{draft}data/{name}.summary.csv"
        for name in experiments
        if JOBS.get(name)
    ]


def draft_flag(wildcards):
    return "--draft" if wildcards.draft else ""
