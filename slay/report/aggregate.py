"""Records to tidy data: a table with one row per record, a summary by setting and metric."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from slay.errors import SlayError
from slay.pipeline.record import Record, read_record
from slay.pipeline.stale import CODE, difference, kind_of
from slay.report.stats import interval

PROVENANCE = ["code", "commit", "dirty", "device", "host", "platform", "processor", "cores"]
PROVENANCE += ["threads", "python", "torch", "started", "seconds"]
REPEATED = ["seed", "options", "device", "epsilon"]  # parameters that do not distinguish settings


def collect(manifest: Path, *, draft: bool = False) -> pd.DataFrame:
    """Read the records that a manifest lists: one row each, in the manifest's order.

    The manifest is in a subfolder of the run's folder, to which the paths of records are relative.

    A record whose parameters or code differ from the manifest's is stale: it raises `SlayError`,
    or is marked in the column `stale` for a draft. A draft skips missing records, even if all of
    them are; otherwise a missing one raises. A broken record always raises.
    """
    expected = json.loads(manifest.read_text(encoding="utf-8"))
    if any("codes" not in job for job in expected):
        raise SlayError(
            f"{manifest}: written by another version; write it again with: "
            "snakemake --cores all results"
        )
    found = []
    for job in expected:
        path = manifest.parent.parent / job["path"]
        if draft and not path.is_file():
            continue
        record = read_record(path)
        why = _stale(record, job)
        if why and not draft:
            raise SlayError(
                f"{path}: stale record, {why}; measure it again with: "
                f"snakemake --cores all paper --forcerun {path}"
            )
        found.append((str(path), record, bool(why)))
    return tabulate(found)


def tabulate(records: Iterable[tuple[str, Record, bool]]) -> pd.DataFrame:
    """Tabulate (path, record, stale) triples, one row each."""
    rows = [_row(record, Path(path), stale) for path, record, stale in records]
    return pd.DataFrame(rows, columns=None if rows else ["path", "variant", "status", "stale"])


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """n, mean, standard deviation and 95% t interval over seeds, by setting and metric.

    Settings keep their order of appearance. A job that is not "ok" has no metrics; its status is
    that of every row of its setting.
    """
    metrics = [column for column in table.columns if column.startswith("metric.")]
    metrics = metrics or ["metric.none"]  # no job was ok
    table = table.reindex(columns=[*table.columns, *set(metrics).difference(table.columns)])
    setting = list(table.columns[: table.columns.get_loc("status")])
    setting = [column for column in setting if column not in (*REPEATED, "path")]
    rows = []
    for key, group in table.groupby(setting, sort=False, dropna=False):
        bad = group.loc[group["status"] != "ok", "status"]
        common = dict(zip(setting, key, strict=True))
        common["status"] = "ok" if bad.empty else bad.iloc[0]
        common["stale"] = bool(group["stale"].any())
        for metric in metrics:
            values = group[metric].dropna().to_numpy(dtype=float)
            name = metric.removeprefix("metric.")
            rows.append({**common, "metric": name, **interval(values)})
    return pd.DataFrame(rows, columns=None if rows else [*setting, "status", "stale", "metric"])


def points(table: pd.DataFrame, records: Mapping[str, Record] | None = None) -> pd.DataFrame:
    """The curves of collected records: one row per point, preceded by its record's parameters.

    A job that is not "ok" keeps its partial curve. `records` are by path; without them, they are
    read from their paths.
    """
    setting = list(table.columns[: table.columns.get_loc("status")])
    rows = []
    for row in table[setting].to_dict("records"):
        path = str(row["path"])
        curve = (records[path] if records else read_record(Path(path))).curve
        rows += [{**row, **{f"curve.{k}": v for k, v in point.items()}} for point in curve]
    return pd.DataFrame(rows, columns=None if rows else setting)


def _stale(record: Record, job: dict[str, Any]) -> str:
    """Return why a record is stale with respect to its manifest; "" if it is current."""
    made = record.provenance
    name = difference(job, record.params, made.code, made.device)
    if name == CODE:
        return f"made with code {made.code}, now {job['codes'].get(kind_of(made.device))}"
    if name:
        return f"made with {name} = {record.params.get(name)!r}, now {job['params'].get(name)!r}"
    return ""


def _row(record: Record, path: Path, stale: bool) -> dict[str, Any]:
    """A record as one row: path, parameters, status, metrics, provenance."""
    params = dict(record.params)
    params["options"] = json.dumps(params["options"], sort_keys=True)
    metrics = {f"metric.{name}": value for name, value in record.metrics.items()}
    if record.experiment == "tasks":
        metrics["metric.score"] = _score(record.metrics)
    provenance = record.provenance.model_dump()
    return {
        "path": str(path),
        **params,
        "variant": _variant(path),
        "status": record.status,
        "message": record.message,
        "stale": stale,
        **metrics,
        **{f"provenance.{name}": provenance[name] for name in PROVENANCE},
    }


def _variant(path: Path) -> str:
    """The options that a grid sets, as spelt in the record's path; "" for the default."""
    return next((part for part in path.parts if "=" in part), "")


def _score(metrics: dict[str, Any]) -> float | None:
    """(accuracy - null) / (ceiling - null): 0 for the best null predictor, 1 for the ceiling."""
    if metrics.get("accuracy") is None:
        return None
    return (metrics["accuracy"] - metrics["null"]) / (metrics["ceiling"] - metrics["null"])
