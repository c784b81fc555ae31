"""Published runs: measured on real devices and kept in git, with their records.

results/published/<name>/ holds about.json (the run, its machine, the command), config.json and
mechanisms.json as the workflow wrote them, and records/<experiment>.jsonl (one record per line).
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from slay import files
from slay.errors import SlayError
from slay.pipeline.config import load
from slay.pipeline.jobs import expand
from slay.pipeline.provenance import commit
from slay.pipeline.record import (
    Record,
    RecordError,
    read_by_path,
    read_record,
    read_records,
    write_records,
)
from slay.pipeline.stale import due, record_in
from slay.report.aggregate import points, summarise, tabulate
from slay.report.results import Results, parsed
from slay.yaml_files import read_yaml

ROOT = Path(__file__).parents[2]  # of the checkout, wherever the run lies
FOLDER = ROOT / "results" / "published"
DEVICES = ROOT / "slay" / "ops" / "triton" / "devices"  # files that ship with the package
PRINTED = FOLDER / "printed.yaml"
LEFT_OUT = {"analysis"}  # neither trained nor timed: any machine computes it again


def printed() -> dict[str, Any]:
    """The numbers printed in the original study."""
    return read_yaml(PRINTED)


class Published(Results):
    """A published run, with the interface of any other run."""

    @cached_property
    def about(self) -> dict[str, Any]:
        return self._json("about.json")

    @property
    def name(self) -> str:
        return self.folder.name

    def _read(self, name: str) -> pd.DataFrame:
        """The table that the workflow would write to data/<name>, built from the records."""
        if name not in self._frames:
            experiment, _, kind = name.removesuffix(".csv").partition(".")
            records = self._records(experiment)
            table = tabulate((path, record, False) for path, record in records.items())
            if kind == "summary" and records:
                table = summarise(table)
            if kind == "curves" and records:
                table = points(table, records)
            text = StringIO(table.to_csv(index=False))
            self._frames[name] = parsed(text) if len(table) else table
        return self._frames[name]

    def _records(self, experiment: str) -> dict[str, Record]:
        """Records by their original path."""
        path = self.folder / "records" / f"{experiment}.jsonl"
        if not path.is_file():
            return {}
        try:
            return read_by_path(path)
        except RecordError as error:
            raise SlayError(f"{path}: broken records; run: git checkout {path}") from error


class Measured(Published):
    """A run that is read from its records, without the tables that the workflow makes of them."""

    def _records(self, experiment: str) -> dict[str, Record]:
        paths = [job["path"] for job in self._json(f"manifests/{experiment}.json")]
        return {path: read_record(self.folder / path) for path in paths}


def published(folder: Path = FOLDER) -> list[Published]:
    """Every published run, sorted by name."""
    return [Published(path.parent) for path in sorted(folder.glob("*/about.json"))]


def benchmarks(folder: Path = FOLDER) -> dict[str, list[Record]]:
    """Published benchmarks of the kernels (`slay bench kernels`) by name, without empty ones."""
    found = {path.stem: read_records(path) for path in sorted(folder.glob("kernels/*.jsonl"))}
    return {name: records for name, records in found.items() if records}


def others(results: Results) -> list[Published]:
    """The published runs other than these results themselves."""
    begun = _begun(results)
    return [run for run in published() if _begun(run) != begun]


def counterpart(own: Results) -> Published:
    """The published run of the same name, on the same device if there is one.

    Raises `SlayError` if there is none.
    """
    run, device = own.config["run"], own.machine["device"]
    same = [there for there in published() if there.about["run"] == run]
    same.sort(key=lambda there: there.about["device"] != device)
    if not same:
        names = ", ".join(f"{there.folder} (run {there.about['run']})" for there in published())
        raise SlayError(f"no run {run!r} is published (there are: {names or 'none yet'})")
    return same[0]


def open_results(folder: Path) -> Results:
    """A run's results, published or not."""
    return Published(folder) if (folder / "about.json").is_file() else Results(folder)


def configuration(run: str) -> str:
    """The configuration file of a run; the run's config.json if config/ has none for it."""
    for path in sorted((ROOT / "config").glob("*.yaml")):
        if re.search(rf"^run: *{re.escape(run)} *$", path.read_text("utf-8"), re.MULTILINE):
            return path.relative_to(ROOT).as_posix()
    return f"results/{run}/config.json"


def publish(run: Path, name: str | None, to: Path, *, dirty: bool = False) -> Path:
    """Copy a complete, current run to `to`/<name>; returns that folder.

    Raises `SlayError` if a record is missing or out of date, or was measured with uncommitted
    changes (unless `dirty`), and if another run has that name already.
    """
    results = Measured(run)
    config = load(results.config, f"{run}/config.json")
    waiting = list(due(config, run))
    if waiting:
        raise SlayError(
            f"{run}: {len(waiting)} measurements are missing or out of date, the first is "
            f"{waiting[0].job.path} ({waiting[0].reason}); measure them, or see: slay stale"
        )
    machine = results.machine
    if machine["commit"] is None:  # no git there: its code is this checkout's, as `due` has checked
        head, changed = commit()
        machine |= {"commit": head and head[:7], "dirty": bool(changed)}
    if machine["dirty"] and not dirty:
        raise SlayError(
            f"{run}: measured with uncommitted changes, so that its commit does not say what ran; "
            "commit and measure again, or publish it as it is with --dirty"
        )
    folder = to / (name or _slug(results))
    if (folder / "about.json").is_file() and Published(folder).about["run"] != config.run:
        raise SlayError(f"{folder}: holds run {Published(folder).about['run']}; give --name")
    jobs = {name: jobs for name, jobs in expand(config).items() if name not in LEFT_OUT}
    for old in (folder / "records").glob("*.jsonl"):
        old.unlink()
    made = [(job, read_record(record_in(run, job))) for group in jobs.values() for job in group]
    for experiment in dict.fromkeys(job.experiment for job, _ in made):
        records = {job.path: record for job, record in made if job.experiment == experiment}
        write_records(folder / "records" / f"{experiment}.jsonl", records)
    for file in ("config.json", "mechanisms.json"):
        files.copy(run / file, folder / file)
    about = {
        "run": config.run,
        "title": config.title,
        "command": f"snakemake --cores all results --configfile {configuration(config.run)}",
        **machine,
    }
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    files.write(folder / "about.json", text)
    return folder


def publish_benchmark(file: Path, name: str | None, to: Path, *, dirty: bool = False) -> Path:
    """Copy a benchmark's records, and its log, to `to`/kernels; returns the path of the records.

    Raises `SlayError` if there are none, and for uncommitted changes as `publish` does.
    """
    records = read_records(file)
    if not records:
        raise SlayError(f"{file}: has no records")
    if any(record.provenance.dirty for record in records) and not dirty:
        raise SlayError(
            f"{file}: measured with uncommitted changes, so that its commit does not say what ran; "
            "commit and measure again, or publish it as it is with --dirty"
        )
    copy = to / "kernels" / f"{name or _device_slug(records[0].provenance.device)}.jsonl"
    for suffix in (".log", ".jsonl"):
        if file.with_suffix(suffix).is_file():
            files.copy(file.with_suffix(suffix), copy.with_suffix(suffix))
    return copy


def publish_devices(folder: Path, to: Path = DEVICES) -> list[Path]:
    """Copy the device files of `slay kernels verify` into the package; returns the copies."""
    return [files.copy(file, to / file.name) for file in sorted(folder.glob("*.json"))]


def _slug(results: Results) -> str:
    """Folder name: from the device, or the run's name if that is a CPU."""
    device = results.machine["device"]
    if device == "cpu":
        return str(results.config["run"])
    return _device_slug(device)


def _device_slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("nvidia")).strip("-")


def _begun(results: Results) -> frozenset[str]:
    """Start times of a run's measurements, which identify the run."""
    names = set(results.experiments) - LEFT_OUT
    tables = map(results.records, names)
    return frozenset(t for table in tables for t in table.get("provenance.started", []))
