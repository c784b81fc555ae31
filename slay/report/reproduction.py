"""A run compared with a published one: which numbers are reproduced."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from slay.report.diff import pairs
from slay.report.results import Results

LEVEL = 0.95
# Settings and counts, which are not results.
COUNTS = {"num_features", "parameters", "answers", "corpus", "corpus_tokens", "probes", "points"}


def reproduction(
    published: Results, own: Results, experiment: str | None = None, metric: str | None = None
) -> pd.DataFrame:
    """One row per number that both runs have: setting, metric, published, own, low, high, verdict.

    [low, high] is the 95% prediction interval for the mean of a repetition with as many seeds as
    `own`, by Student's t from the published mean and spread: a number inside is "reproduced", one
    outside "differs". For a latency it is the published interquartile range over rounds, with which
    that of `own` has to overlap. Other numbers of one seed have no interval: they are "reproduced"
    if they agree to four digits, else "open".
    """
    rows = pairs(published, own, experiment)
    if rows.empty:
        return rows
    before, after = (rows[f"mean_{side}"].to_numpy(float) for side in ("before", "after"))
    n, m = (rows[f"n_{side}"].to_numpy(float) for side in ("before", "after"))
    with np.errstate(invalid="ignore"):
        half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * rows["sd_before"] * np.sqrt(1 / n + 1 / m)
    first, third = (_quartile(rows, quartile) for quartile in ("_q1", "_q3"))
    timed = first["mean_before"].notna().to_numpy()
    low = np.where(timed, first["mean_before"], before - half)
    high = np.where(timed, third["mean_before"], before + half)
    own_low = np.where(timed, first["mean_after"], after)
    own_high = np.where(timed, third["mean_after"], after)
    near = np.isclose(before, after, rtol=5e-5, atol=1e-12)
    inside = near | ((own_low <= high) & (own_high >= low))
    found = rows[["setting", "metric"]].assign(published=before, own=after, low=low, high=high)
    found["verdict"] = np.select(
        [inside, ~np.isnan(low.astype(float))], ["reproduced", "differs"], "open"
    )
    shown = ~found["metric"].isin(COUNTS) & ~found["metric"].str.contains(r"_q[13]$")
    if metric is not None:
        shown &= found["metric"] == metric
    return found[shown].reset_index(drop=True)


def _quartile(rows: pd.DataFrame, suffix: str) -> pd.DataFrame:
    """Means of the metric with this suffix in the same setting; NaN if there is none."""
    key = pd.DataFrame({"setting": rows["setting"], "metric": rows["metric"] + suffix})
    columns = ["setting", "metric", "mean_before", "mean_after"]
    return key.merge(rows[columns], on=["setting", "metric"], how="left")
