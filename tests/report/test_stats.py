"""Intervals and fits against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from slay.report.stats import growth_exponent, interval, paired

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8, unique=True).map(np.array)


@given(values=VALUES, level=st.sampled_from([0.5, 0.95, 0.99]))
def test_interval_is_students(values, level):
    found = interval(values, level)
    scale = stats.sem(values)
    low, high = stats.t.interval(level, len(values) - 1, values.mean(), scale)
    assert found["n"] == len(values)
    assert found["sd"] == pytest.approx(scale * math.sqrt(len(values)))
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([2.0], 2.0)])
def test_too_few_values_leave_the_rest_undefined(values, mean):
    found = interval(np.array(values))
    assert found["n"] == len(values)
    assert found["mean"] == pytest.approx(mean, nan_ok=True)
    assert all(math.isnan(found[key]) for key in ("sd", "low", "high"))


@given(power=st.floats(-3, 3), factor=st.floats(1e-3, 1e3))
def test_growth_of_a_power_is_its_exponent(power, factor):
    lengths = np.array([64.0, 256.0, 4096.0])
    assert growth_exponent(lengths, factor * lengths**power) == pytest.approx(power, abs=1e-9)
    assert math.isnan(growth_exponent(lengths[:1], lengths[:1]))


def test_a_paired_test_judges_only_differences_that_spread():
    values = np.array([0.25, 0.5, 0.75])
    spread = values + np.array([0.1, 0.2, 0.4])
    assert paired(values, spread) == pytest.approx(stats.ttest_rel(values, spread).pvalue)
    assert paired(values, values) == 1.0
    assert math.isnan(paired(values, values + 0.1))
    assert math.isnan(paired(values[:1], spread[:1]))
