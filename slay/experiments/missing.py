"""`slay measure`: make a run's missing measurements without a workflow system."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import click

from slay import files
from slay.errors import SlayError
from slay.pipeline.config import Config, default_file, read
from slay.pipeline.jobs import Job, expand, plans
from slay.pipeline.stale import Due, due

JOB_SECONDS = 180.0  # time limit of one measurement


@click.command()
@click.option(
    "--configfile",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=default_file,
    show_default="config/config.yaml",
    help="The run's configuration.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    help="What has not begun by then is left for the next time.  [default: no end]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads to compute with.  [default: all cores]",
)
def measure(configfile: Path, seconds: float | None, threads: int | None) -> None:
    """Make a run's missing measurements, without Snakemake.

    Makes the absent and the outdated measurements one after another, each in its own process.
    Records and logs are written where the workflow expects them, and it accepts them as its own.
    Fails if measurements are still missing at the end.

    \b
    slay measure --configfile config/borrowed.yaml --seconds 120
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler
    data, config = read(configfile)
    missing = list(due(config))
    _write_plans(config, data)
    number = sum(map(len, expand(config).values()))
    click.echo(f"{len(missing)} of {number} measurements are missing or out of date", err=True)
    failed, done = _measure_all(missing, seconds, threads or os.cpu_count() or 1)
    for path, why in failed.items():
        click.echo(f"{path}: {why}", err=True)
    if done < len(missing):
        late = len(missing) - done - len(failed)
        raise SlayError(
            f"{len(missing) - done} measurements are missing ({len(failed)} failed, {late} were "
            "not begun); the same command goes on with them"
        )
    click.echo(f"{Path('results', config.run).absolute()}: all {number} measurements are there")


def _measure_all(
    missing: list[Due], seconds: float | None, threads: int
) -> tuple[dict[str, str], int]:
    """Return why measurements failed, by the record's path, and how many were made."""
    if not missing:
        return {}, 0
    from slay.experiments import isolated

    _import_once()
    begin = time.monotonic()
    failed: dict[str, str] = {}
    for number, item in enumerate(missing):
        taken = time.monotonic() - begin
        if seconds is not None and taken > seconds:
            return failed, number - len(failed)
        job = item.job
        log = _log(job)
        try:
            found = isolated.run(partial(_run, job, log, threads), _say, JOB_SECONDS)
        except isolated.Died as death:
            failed[job.path] = f"{death}, see {log}"
            found = f"FAILED, {death}"
        place = job.path.split("/", 3)[3].removesuffix(".json")
        _say(f"[{number + 1}/{len(missing)}] {place}: {found}  [{taken:.0f} s]")
    return failed, len(missing) - len(failed)


def _import_once() -> None:
    """Import the modules that every measurement needs, before its process is forked."""
    import torch._inductor  # noqa: F401


def _say(text: str) -> None:
    click.echo(text, err=True)


def _log(job: Job) -> Path:
    """Path of a job's log in the workflow's layout."""
    results, run, _, rest = job.path.split("/", 3)
    return Path(results, run, "logs", rest).with_suffix(".log")


def _run(job: Job, log: Path, threads: int, parent: Any) -> str:
    """Run one measurement in a child, with its output in the log; return a one-line summary."""
    from slay.experiments.run import run_job

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        record = run_job(
            job.params,
            Path(job.path),
            threads=threads,
            planned=list(job.codes.values()),
            progress=_note,
        )
    except BaseException:
        _note(traceback.format_exc().rstrip())
        raise
    shown = [f"{k} {v:.4g}" for k, v in record.metrics.items() if v is not None][:3]
    return f"{record.status}  {'  '.join(shown) or record.message}"


def _note(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def _write_plans(config: Config, data: dict[str, Any]) -> None:
    """Write the files that the report reads beside records, as the workflow does."""
    from slay.attention.facts import facts

    folder = Path("results") / config.run
    texts = plans(config, data, expand(config))
    texts["mechanisms.json"] = json.dumps([facts(n, 32) for n in config.attention], indent=1) + "\n"
    for name, text in texts.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue  # keep its modification time, which the workflow compares
        files.write(path, text)
