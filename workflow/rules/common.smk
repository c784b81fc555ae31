"""The run: its configuration, its jobs, and what each rule asks about them."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

# The workflow measures the code beside it, whatever else is installed, and with its own interpreter
# unless Snakemake was told to deploy software.
ROOT = str(workflow.basedir)
sys.path.insert(0, ROOT)
PYTHON = shlex.quote(os.path.dirname(sys.executable))
PREFIX = (
    "" if workflow.deployment_settings.deployment_method else f"PATH={PYTHON}:$PATH "
)
shell.prefix(f"export {PREFIX}PYTHONPATH={shlex.quote(ROOT)}; ")

from snakemake.io import IOFile

from slay.config import load
from slay.devices import VARIABLE, visible
from slay.errors import SlayError
from slay.jobs import digest, expand, manifest, plugins
from slay.provenance import file_digest, fingerprint
from slay.registry import ATTENTION
from slay.report.sources import FIGURES, TABLES
from slay.stale import to_be_renewed

try:
    CONFIG = load(config)
    JOBS = expand(CONFIG)
except SlayError as error:
    sys.exit(f"{error}")

RUN = f"results/{CONFIG.run}"

# On this machine, and not on a cluster's nodes, jobs share what GPUs there are: one each.
LOCAL = workflow.is_main_process and workflow.resource_settings.nodes is None
GPUS = visible() if LOCAL and CONFIG.device != "cpu" else []
GPU = 1 if CONFIG.device == "cuda" or GPUS else 0
if GPUS:
    os.environ[VARIABLE] = ",".join(GPUS)  # jobs need not ask again
if LOCAL and GPU and "gpu" not in workflow.resource_settings.resources:
    workflow.register_resource("gpu", max(1, len(GPUS)))
# A timing job has the machine to itself, or its share of the cores where it has a GPU.
ALONE = max(1, (workflow.resource_settings.cores or 8) // max(1, len(GPUS)))

BY_PATH = {job.path: job for jobs in JOBS.values() for job in jobs}
RECORDS = list(BY_PATH)

# What the report reads beside records, so small that it is written as it should be.
PLANS = {f"{RUN}/manifests/{name}.json": manifest(jobs) for name, jobs in JOBS.items()}
PLANS[f"{RUN}/config.json"] = json.dumps(config, sort_keys=True) + "\n"

OTHERS = []  # files that are there and are not this run's
if workflow.is_main_process:
    cut_short, OTHERS = to_be_renewed(BY_PATH.values())
    for path in cut_short:
        os.replace(path, f"{path}.cut-short")
        print(f"{path}: cut short; put aside, to be measured again", file=sys.stderr)
    for path, text in PLANS.items():
        if os.path.exists(path) and Path(path).read_text() != text:
            OTHERS.append(path)


wildcard_constraints:
    job=r"[^\s]+",
    experiment="|".join(JOBS) or "none",
    draft="(draft/)?",  # results/<run>/draft/ holds what paper_only makes


def look_for_gpu():
    """Stop at once, not at every job, where measurements need a GPU and this machine has none."""
    if GPUS or not workflow.local_exec or CONFIG.device != "cuda":
        return
    if any(job.resources.get("gpu") for job in workflow.dag.needrun_jobs()):
        look = "import torch; raise SystemExit(not torch.cuda.is_available())"
        if subprocess.run([sys.executable, "-c", look]).returncode:
            sys.exit(
                "config: device: 'cuda', and torch sees no GPU here; take a configuration with "
                "device: cpu, or a cluster: --profile slurm"
            )


def records(wildcards):
    """Every record of the run; what there is and is not this run's will be made again.

    Snakemake sees other code or settings too, but only where it remembers how a file was made: not
    where .snakemake was deleted, nor where results were copied.
    """
    forgotten = (f for f in OTHERS if workflow.persistence.params(IOFile(f)) is None)
    workflow.dag.forcefiles.update(forgotten)
    return RECORDS


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
