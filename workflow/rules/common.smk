"""The run: its configuration, its jobs, and what each rule asks about them."""

import json
import os
import shlex
import sys

# The workflow measures the code beside it, whatever else is installed, with its own interpreter.
ROOT = str(workflow.basedir)
sys.path.insert(0, ROOT)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])

from slay.config import load
from slay.errors import SlayError
from slay.jobs import digest, expand, manifest
from slay.provenance import file_digest, fingerprint
from slay.registry import ATTENTION

try:
    CONFIG = load(config)
    JOBS = expand(CONFIG)
except SlayError as error:
    sys.exit(f"{error}")

RUN = f"results/{CONFIG.run}"
BY_PATH = {job.path: job for jobs in JOBS.values() for job in jobs}


wildcard_constraints:
    job=r"[^\s]+",
    experiment="|".join(JOBS) or "none",
    draft="(draft/)?",  # results/<run>/draft/ holds what paper_only makes


def arguments(wildcards, output):
    """The measurement's command line, after `slay run`."""
    return shlex.join(BY_PATH[output[0]].argv)


def code(wildcards, output):
    """Fingerprint of the code that the measurement depends on."""
    return BY_PATH[output[0]].code


def megabytes(wildcards, attempt):
    """More memory at each attempt."""
    return 4000 * attempt


GPU = 1 if CONFIG.device == "cuda" else 0


def records_there_are(wildcards):
    """Which records a draft finds, and their age: with these it is made again."""
    paths = [job.path for job in JOBS[wildcards.experiment]]
    return digest(" ".join(f"{p} {os.stat(p).st_mtime_ns}" for p in paths if os.path.exists(p)))
