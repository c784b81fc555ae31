"""Means and intervals over seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def interval(values: NDArray[np.float64], level: float = 0.95) -> dict[str, float]:
    """n, mean, sd (n - 1 degrees of freedom), t interval of the mean; NaN where undefined."""
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    sd = float(values.std(ddof=1)) if n > 1 else np.nan
    low = high = np.nan
    if n > 1:
        half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / np.sqrt(n)
        low, high = mean - half, mean + half
    return {"n": n, "mean": mean, "sd": sd, "low": low, "high": high}


def growth_exponent(lengths: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """p of the least-squares fit values = c lengths^p; NaN for fewer than two points."""
    if len(lengths) < 2:
        return np.nan
    return float(stats.linregress(np.log(lengths), np.log(values)).slope)


def paired(values: NDArray[np.float64], against: NDArray[np.float64]) -> float:
    """p value of a paired t test that two means are equal; 1 if all pairs are equal.

    NaN if the test is undefined: fewer than two pairs, or differences without spread.
    """
    if len(values) < 2:
        return np.nan
    if np.array_equal(values, against):
        return 1.0
    differences = values - against
    if np.ptp(differences) <= 1e-9 * np.abs(differences).max():
        return np.nan
    return float(stats.ttest_rel(values, against).pvalue)


def corrected(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values corrected for multiple comparisons under any dependence; NaN stays NaN.

    Benjamini and Yekutieli (2001): a threshold on these bounds the false discovery rate.
    """
    known = ~np.isnan(p)
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known], method="by")
    return adjusted
