"""The run: its configuration, its jobs, and what each rule asks about them."""

import gc
import json
import os
import shlex
import sys
from pathlib import Path

gc.set_threshold(
    50_000, 20, 50
)  # of thousands of jobs little is garbage: a tenth less time

# The workflow measures the code beside it, whatever else is installed, and with its own interpreter
# unless Snakemake was told to deploy software.
ROOT = str(workflow.basedir)
sys.path.insert(0, ROOT)
PYTHON = shlex.quote(os.path.dirname(sys.executable))
PREFIX = (
    "" if workflow.deployment_settings.deployment_method else f"PATH={PYTHON}:$PATH "
)
shell.prefix(f"export {PREFIX}PYTHONPATH={shlex.quote(ROOT)}; ")

from slay.config import load
from slay.errors import SlayError
from slay.jobs import digest, expand, manifest, plugins
from slay.provenance import file_digest, fingerprint
from slay.registry import ATTENTION
from slay.report.sources import FIGURES, TABLES

try:
    CONFIG = load(config)
    JOBS = expand(CONFIG)
except SlayError as error:
    sys.exit(f"{error}")

RUN = f"results/{CONFIG.run}"

BY_PATH = {job.path: job for jobs in JOBS.values() for job in jobs}
RECORDS = list(BY_PATH)

# What the report reads beside records, so small that it is written as it should be.
PLANS = {f"{RUN}/manifests/{name}.json": manifest(jobs) for name, jobs in JOBS.items()}
PLANS[f"{RUN}/config.json"] = json.dumps(config, sort_keys=True) + "\n"


wildcard_constraints:
    job=r"[^\s]+",
    experiment="|".join(JOBS) or "none",
    draft="(draft/)?",  # results/<run>/draft/ holds what paper_only makes


def job(wildcards, experiment):
    """The measurement whose record a rule's wildcards name."""
    return BY_PATH[f"{RUN}/records/{experiment}/{wildcards.job}.json"]


# Snakemake reruns a job whose params changed only where they come from the wildcards alone.
def arguments(experiment):
    """The measurement's command line, after `slay run`."""
    return lambda wildcards: shlex.join(job(wildcards, experiment).argv)


def code(experiment):
    """Fingerprint of the code that the measurement depends on."""
    return lambda wildcards: job(wildcards, experiment).code


def processes(wildcards):
    """How many processes the training of a language model runs in."""
    return job(wildcards, "language").params.processes


def megabytes(wildcards, attempt):
    """More memory at each attempt."""
    return 4000 * attempt


def records_there_are(wildcards):
    """Which records a draft finds, and their age: with these it is made again."""
    paths = [job.path for job in JOBS[wildcards.experiment]]
    return digest(
        " ".join(f"{p} {os.stat(p).st_mtime_ns}" for p in paths if os.path.exists(p))
    )


FACTS = [f"{RUN}/mechanisms.json", f"{RUN}/config.json"]
# Text that a table reads beside its own template.
ALSO_READS = {"quality": ["config/published.yaml"], "claims": ["paper/claims.yaml"]}


def data(experiments, draft="{draft}"):
    """What some experiments gave, those that this run has."""
    return [
        f"{RUN}/{draft}data/{name}.summary.csv"
        for name in experiments
        if JOBS.get(name)
    ]


def text(*patterns):
    """Digest of the text files that match: an edit reruns, a touch does not."""
    paths = sorted(path for pattern in patterns for path in Path(ROOT).glob(pattern))
    return digest(" ".join(file_digest(path) for path in paths))


def draft_flag(wildcards):
    return "--draft" if wildcards.draft else ""
