"""Results of a run, for tables, figures and text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from slay.errors import SlayError
from slay.theory import mercer_bound, quadratic_shift


@dataclass(frozen=True)
class Estimate:
    """A number over n seeds, with standard deviation and 95% interval (NaN for one seed)."""

    mean: float
    sd: float
    n: int
    low: float
    high: float
    stale: bool = False


class Missing:
    """A number that this run does not have; `status` is that of its job, if not ok.

    It is shown as an em dash or its status, and so are its attributes; arithmetic and comparisons
    raise `MissingError`.
    """

    def __init__(self, what: str, status: str = ""):
        self.what = what
        self.status = status

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def _refuse(self, *_: object) -> Any:
        raise MissingError(self.what)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = _refuse


class MissingError(LookupError):
    """The run does not have a number that is needed."""


def parsed(file: Path | StringIO) -> pd.DataFrame:
    """Read a table of the run's data from CSV."""
    types = {"variant": "str"}
    frame = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype=types)
    return frame.assign(variant=frame["variant"].fillna(""))


@dataclass(frozen=True)
class Results:
    """The contents of results/<run>, or of its draft folder."""

    folder: Path
    draft: bool = False

    @property
    def base(self) -> Path:
        return self.folder / "draft" if self.draft else self.folder

    @cached_property
    def config(self) -> dict[str, Any]:
        return self._json("config.json")

    @cached_property
    def mechanisms(self) -> list[dict[str, Any]]:
        return self._json("mechanisms.json")

    @cached_property
    def names(self) -> list[str]:
        """Mechanisms of the run, in the order of every table and figure."""
        return [row["name"] for row in self.mechanisms]

    @cached_property
    def experiments(self) -> list[str]:
        """Experiments of the run's configuration, without those that `only` leaves out."""
        names = list(self.config["experiments"])
        only = self.config.get("only", {}).get("experiment", names)
        return [name for name in names if name in ([only] if isinstance(only, str) else only)]

    @cached_property
    def planned(self) -> int:
        """Number of records that the run's configuration asks for."""
        return sum(len(self._json(f"manifests/{name}.json")) for name in self.experiments)

    def summary(self, experiment: str) -> pd.DataFrame:
        """Rows of setting and metric, see `slay.report.aggregate.summarise`; empty if not run."""
        return self._read(f"{experiment}.summary.csv")

    def records(self, experiment: str) -> pd.DataFrame:
        """One row per record; empty if not run."""
        return self._read(f"{experiment}.csv")

    def curves(self, experiment: str) -> pd.DataFrame:
        """One row per point of a record's curve; empty if not run."""
        return self._read(f"{experiment}.curves.csv")

    def _json(self, name: str) -> Any:
        """Read a JSON file that the workflow wrote into the run's folder."""
        path = self.folder / name
        if not path.is_file():
            raise SlayError(f"{path}: not there yet; run: snakemake --cores all paper")
        return json.loads(path.read_text(encoding="utf-8"))

    def _read(self, name: str) -> pd.DataFrame:
        """Read a data file once; empty if absent or left there by an earlier configuration."""
        if name not in self._frames:
            path = self.base / "data" / name
            there = path.is_file() and name.partition(".")[0] in self.experiments
            self._frames[name] = parsed(path) if there else pd.DataFrame()
        return self._frames[name]

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        return {}

    def value(self, experiment: str, metric: str, **where: Any) -> Estimate | Missing:
        """The estimate of a metric in a setting; if several settings match, the first.

        `variant` is the default one unless it is given.
        """
        found = self._matching(experiment, metric, **{"variant": "", **where})
        frame = found[found["n"] > 0] if len(found) else found
        if frame.empty:
            setting = ", ".join(f"{key} = {value}" for key, value in where.items())
            bad = [status for status in found.get("status", []) if status != "ok"]
            return Missing(f"{experiment}: {metric} at {setting}", next(iter(bad), ""))
        row = frame.iloc[0]
        numbers = (row["mean"], row["sd"], int(row["n"]), row["low"], row["high"])
        return Estimate(*numbers, stale=bool(row["stale"]))

    def worst(self, experiment: str, metric: str) -> float | Missing:
        """The largest mean of a metric over all settings."""
        if metric not in self.axis(experiment, "metric"):
            return Missing(f"{experiment}: {metric}")
        return float(self.select(experiment, metric)["mean"].max())

    def least(self, experiment: str, metric: str, **where: Any) -> float | Missing:
        """The smallest mean of a metric over the settings that match."""
        frame = self.select(experiment, metric, **where)
        return Missing(f"{experiment}: {metric}") if frame.empty else float(frame["mean"].min())

    def select(self, experiment: str, metric: str, **where: Any) -> pd.DataFrame:
        """Rows of the summary with a metric's numbers in the settings that match."""
        frame = self._matching(experiment, metric, **where)
        return frame[frame["n"] > 0] if len(frame) else frame

    def _matching(self, experiment: str, metric: str, **where: Any) -> pd.DataFrame:
        """Rows of the summary for a metric and some settings, with or without numbers."""
        frame = self.summary(experiment)
        for column, value in {"metric": metric, **where}.items():
            if column not in frame or isinstance(value, Missing):
                return frame.iloc[:0]
            frame = frame[frame[column] == value]
        return frame

    def axis(self, experiment: str, column: str, **where: Any) -> list[Any]:
        """Distinct values of a column, in the order of the configuration."""
        frame = self.summary(experiment)
        for key, value in where.items():
            frame = frame[frame[key] == value] if key in frame else frame.iloc[:0]
        return list(frame[column].unique()) if column in frame else []

    def bound(self, dim: int, num_features: int) -> float:
        """Mercer bound at this run's epsilon."""
        return mercer_bound(int(dim), self.config["epsilon"], int(num_features))

    def beta(self, dim: int) -> float:
        """Shift of the quadratic map at this run's epsilon."""
        return quadratic_shift(int(dim), self.config["epsilon"])

    @cached_property
    def machine(self) -> dict[str, Any]:
        """Machine, versions, commits, date and total time of the records."""
        frames = [frame for frame in map(self.records, self.experiments) if not frame.empty]
        records = pd.concat(frames or [pd.DataFrame()], ignore_index=True)
        facts = records.filter(like="provenance.").rename(
            columns=lambda name: name.removeprefix("provenance.")
        )
        if facts.empty:
            raise SlayError(f"{self.base}/data: no records there; run: snakemake --cores all paper")
        machine = {
            name: " / ".join(str(value) for value in facts[name].dropna().unique())
            for name in ("host", "platform", "processor", "cores", "device", "torch", "python")
        }
        facts = facts.sort_values("started", kind="stable")
        commits = [str(commit)[:7] for commit in facts["commit"].dropna().unique()]
        if len(commits) > 2:
            commits = [f"{commits[0]} to {commits[-1]} ({len(commits)} commits)"]
        if commits and facts["commit"].isna().any():
            commits.append("none")
        last = datetime.fromisoformat(facts["started"].max())
        return {
            **machine,
            "commit": " and ".join(commits) or None,
            "dirty": bool(facts["dirty"].eq(True).any()),
            "date": last.date().isoformat(),
            "records": len(facts),
            "seconds": float(facts["seconds"].sum()),
        }

    def epoch(self, experiments: Iterable[str]) -> int:
        """Start time of the last record of some experiments, in seconds since 1970.

        Used as the date in generated files, so that the same records give the same bytes.
        """
        started = [
            frame["provenance.started"].max()
            for frame in map(self.records, experiments)
            if not frame.empty
        ]
        return int(datetime.fromisoformat(max(started)).timestamp()) if started else 0

    def code(self, experiments: list[str]) -> str:
        """One digest of the code fingerprints of some experiments' records."""
        codes = set()
        for experiment in experiments:
            codes |= set(self.records(experiment).get("provenance.code", []))
        return hashlib.sha256(" ".join(sorted(codes)).encode()).hexdigest()[:8]
