"""What differs between two runs is told from what may be chance."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from slay.cli import main
from slay.report.diff import differences
from slay.report.results import Results
from slay.report.stats import interval


def run_with(folder, values):
    """A run's folder with one experiment: the values of a metric by mechanism."""
    (folder / "data").mkdir(parents=True)
    rows = [
        {"attention": name, "head_dim": 32, "variant": "", "status": "ok", "stale": False}
        | {"metric": "rel_l2", **interval(np.array(numbers, dtype=float))}
        for name, numbers in values.items()
    ]
    pd.DataFrame(rows).to_csv(folder / "data/quality.summary.csv", index=False)
    (folder / "config.json").write_text(json.dumps({"experiments": {"quality": []}}))
    return folder


@pytest.fixture
def runs(tmp_path):
    before = {"linear": [1.0, 1.1, 0.9], "uniform": [2.0, 2.1, 1.9], "rff": [5.0], "gone": [1.0]}
    after = {"linear": [3.0, 3.1, 2.9], "uniform": [2.05, 2.1, 1.95], "rff": [6.0]}
    return run_with(tmp_path / "a", before), run_with(tmp_path / "b", after)


def test_only_what_both_runs_have_is_compared_and_one_seed_says_nothing(runs):
    rows = differences(*map(Results, runs)).set_index("setting")
    assert list(rows.index) == ["quality linear", "quality uniform", "quality rff"]
    p = rows["p"]
    assert p["quality linear"] < 0.05 < p["quality uniform"]
    assert np.isnan(p["quality rff"])
    assert rows["change"]["quality rff"] == pytest.approx(0.2)


def test_the_command_shows_what_is_significant_and_counts_the_rest(runs):
    def said(*more):
        return CliRunner().invoke(main, ["diff", *map(str, runs), *more])

    lines = said().output.splitlines()
    assert lines[0].startswith("* quality linear")
    assert lines[1].startswith("1 of 3 numbers")
    assert lines[2].startswith("1 have one seed")
    assert len(said("--all").output.splitlines()) == 4
    assert said("--metric", "none").exit_code == 1
