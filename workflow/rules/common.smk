"""The run: its configuration, its jobs, the machine, and functions by which rules query them."""

import gc
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

# Imports and thousands of planned jobs contain little garbage, so collection is made rare.
gc.freeze()
gc.set_threshold(200_000, 20, 1000)

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
if not deploys():
    put_first("PATH", os.path.dirname(sys.executable))

from slay.errors import SlayError
from slay.pipeline import plugins, warm
from slay.pipeline.config import as_typed, load
from slay.pipeline.devices import VARIABLE, visible
from slay.pipeline.jobs import digest, expand, plans
from slay.pipeline.progress import Progress

MAIN = is_main()

try:
    if MAIN:
        as_typed(config, *config_sources())
    CONFIG = load(config)
    JOBS = expand(CONFIG)
except SlayError as error:
    sys.exit(f"{error}")

RUN = f"results/{CONFIG.run}"
HERE = prefixed(RUN)

BY_PATH = {job.path: job for jobs in JOBS.values() for job in jobs}
RECORDS = list(BY_PATH)

# Contents of the files that the report reads besides records; small enough to be planned here.
PLANS = {f"{HERE}/{name}": text for name, text in plans(CONFIG, config, JOBS).items()}
FACTS = [f"{RUN}/mechanisms.json", f"{RUN}/config.json"]


wildcard_constraints:
    job=r"[^\s]+",
    experiment="|".join(JOBS) or "none",
    draft="(draft/)?",  # results/<run>/draft/ holds what paper_only makes


def here(path):
    """Return the path of a file of the run, with the prefix of a module."""
    return HERE + path.removeprefix(RUN)


def data(experiments, draft="{draft}"):
    """Return the summaries of those experiments that this run has."""
    return [
        f"{RUN}/{draft}data/{name}.summary.csv"
        for name in experiments
        if JOBS.get(name)
    ]


def draft_flag(wildcards):
    return "--draft" if wildcards.draft else ""


def job_of(wildcards):
    """Return the job whose record the wildcards name."""
    return BY_PATH[f"{RUN}/records/{wildcards.experiment}/{wildcards.job}.json"]


# Snakemake does not store params that take `output`. It need not: a record contains its settings
# and code fingerprint, and slay/pipeline/stale.py compares them with the job's (see up_to_date).
def arguments(wildcards, output):
    """The measurement's command line, after `slay run`."""
    return shlex.join(job_of(wildcards).argv)


def code(wildcards, output):
    """Fingerprints of the code that the measurement may run: one, or one per device for "auto"."""
    return ",".join(job_of(wildcards).codes.values())


def processes(wildcards):
    """Number of processes that train a language model: each has a core, and a GPU on GPUs."""
    return job_of(wildcards).params.processes


def threads_each(wildcards, output, threads):
    """Threads of a measurement, or of each process that trains a language model."""
    return 1 if wildcards.experiment == "language" else threads


def write_plan(path, log):
    """Write one of PLANS. The report takes the start time of the step from the new, empty log."""
    Path(log).write_text("")
    Path(path).write_text(PLANS[path])


def records_there_are(wildcards):
    """Digest of existing records and their modification times: if it changes, a draft is remade."""
    paths = [here(job.path) for job in JOBS[wildcards.experiment]]
    return digest(
        " ".join(f"{p} {os.stat(p).st_mtime_ns}" for p in paths if os.path.exists(p))
    )


LOCAL = plans_here()  # not on a cluster, and not in a job that a cluster runs

# GPUs of this machine: each job takes one (slay/pipeline/devices.py). A timing job has all cores of
# the machine, or an equal share per GPU.
GPUS = visible() if LOCAL and CONFIG.device != "cpu" else []
GPU = 1 if CONFIG.device == "cuda" or GPUS else 0  # per job
ALONE = max(1, (cores() or 8) // max(1, len(GPUS)))
if GPUS:
    os.environ[VARIABLE] = ",".join(GPUS)  # jobs need not ask again
if LOCAL and GPU:
    limit("gpu", max(1, len(GPUS)))


# Checks for what a run needs besides Python, before anything is measured.
def look_for_slurm():
    """Fail early if jobs are to be submitted and sbatch is missing."""
    if executor() == "slurm" and shutil.which("sbatch") is None:
        sys.exit(
            "--profile slurm: there is no sbatch on this machine; type it where Slurm is, "
            "or leave the profile out to measure here: snakemake --cores all"
        )


def look_for_gpu():
    """Fail early, not in every job, if measurements need a GPU and this machine has none."""
    if GPUS or not runs_here() or CONFIG.device != "cuda":
        return
    if any(job.resources.get("gpu") for job in due_jobs()):
        look = "import torch; raise SystemExit(not torch.cuda.is_available())"
        if subprocess.run([sys.executable, "-c", look]).returncode:
            sys.exit(
                "config: device: 'cuda', and torch sees no GPU here; take a configuration with "
                "device: cpu, or a cluster: --profile slurm"
            )


def look_for_latex():
    """Fail early, not after hours, if the paper is requested and LaTeX is missing."""
    if deploys() or shutil.which("latexmk"):
        return
    if any(job.rule.name.endswith("build_paper") for job in due_jobs()):
        from slay.report.paper import TEX

        sys.exit(TEX)


SERVERS = (
    []
)  # import libraries once for the jobs of this machine; end with this process
PROGRESS = Progress()


def start_servers():
    """Start the fork servers (slay/pipeline/warm.py) whose jobs run here, in this interpreter.

    What is rendered is rendered here, also if measurements are submitted to a cluster.
    """
    if not deploys() and not touches():
        SERVERS.append(warm.start(warm.LIBRARIES if runs_here() else ["report"]))


def show_progress():
    """Count the steps of the plan, and replace Snakemake's progress line."""
    PROGRESS.left.update(job.rule.name for job in due_jobs())
    log_to(PROGRESS)


def show_failures():
    """Print the summary of failures last."""
    text = PROGRESS.summary()
    if text:
        logger.error(f"\n{text}\n")
