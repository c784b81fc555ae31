"""Differences between two runs, by setting and metric."""

from __future__ import annotations

import pandas as pd
from scipy.stats import ttest_ind_from_stats

from slay.report.results import Results
from slay.report.stats import corrected

NUMBERS = ["n", "mean", "sd", "low", "high"]
IGNORED = ["status", "stale", "metric", *NUMBERS]


def differences(
    before: Results, after: Results, experiment: str | None = None, metric: str | None = None
) -> pd.DataFrame:
    """One row per number that both runs have: setting, metric, before, after, p, change.

    p is that of Welch's t test over seeds, corrected for all comparisons together (Benjamini and
    Yekutieli 2001); NaN if a run has one seed.
    """
    rows = pairs(before, after, experiment)
    if metric is not None:
        rows = rows[rows["metric"] == metric]
    if rows.empty:
        return rows
    p = ttest_ind_from_stats(
        *(rows[f"{name}_before"].to_numpy(float) for name in ("mean", "sd", "n")),
        *(rows[f"{name}_after"].to_numpy(float) for name in ("mean", "sd", "n")),
        equal_var=False,
    ).pvalue
    found = pd.DataFrame(
        {
            "setting": rows["setting"],
            "metric": rows["metric"],
            "before": rows["mean_before"].astype(float),
            "after": rows["mean_after"].astype(float),
            "p": corrected(p),
        }
    )
    found["change"] = (found["after"] / found["before"] - 1).where(found["before"] != 0)
    return found


def pairs(before: Results, after: Results, experiment: str | None = None) -> pd.DataFrame:
    """The summaries of two runs side by side: one row per number that both have."""
    names = [name for name in before.experiments if name in after.experiments]
    parts = [_joined(before, after, name) for name in names if experiment in (None, name)]
    return pd.concat([pd.DataFrame(columns=["metric"]), *parts], ignore_index=True)


def _joined(before: Results, after: Results, experiment: str) -> pd.DataFrame:
    """The summaries of one experiment side by side: one row per number that both have."""
    left, right = before.summary(experiment), after.summary(experiment)
    if left.empty or right.empty:
        return pd.DataFrame(columns=["metric"])
    setting = [c for c in left.columns if c in right.columns and c not in IGNORED]
    left, right = (frame[frame["n"] > 0] for frame in (left, right))
    both = left.merge(right, on=[*setting, "metric"], suffixes=("_before", "_after"))
    varying = [c for c in setting if c == "attention" or both[c].nunique() > 1]
    both["setting"] = [
        f"{experiment} " + " ".join(str(value) for value in row if str(value))
        for row in both[varying].itertuples(index=False, name=None)
    ]
    return both
