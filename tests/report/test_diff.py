"""What differs between two runs is told from what may be chance."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from slay.cli import main
from slay.report.diff import differences
from slay.report.reproduction import reproduction
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


def test_a_number_is_reproduced_within_its_interval(tmp_path):
    published = {"linear": [1.0, 1.1, 0.9], "uniform": [2.0, 2.1, 1.9], "rff": [5.0]}
    published |= {"yat": [3.0], "cosformer": [1.0, 1.0]}
    own = {"linear": [1.05, 1.15, 0.95], "uniform": [3.0, 3.1, 2.9], "rff": [5.00001]}
    own |= {"yat": [3.3], "cosformer": [1.0, 1.0]}
    pair = run_with(tmp_path / "published", published), run_with(tmp_path / "own", own)
    rows = reproduction(*map(Results, pair))
    found = {row["setting"].split()[-1]: row["verdict"] for row in rows.to_dict("records")}
    assert found == {
        "linear": "reproduced",
        "uniform": "differs",
        "rff": "reproduced",
        "yat": "open",
        "cosformer": "reproduced",
    }


def test_the_interval_is_where_a_repetition_falls(tmp_path):
    draw = np.random.default_rng(0)
    mechanisms = [f"m{i}" for i in range(400)]
    sides = [{name: draw.normal(size=3) for name in mechanisms} for _ in range(2)]
    pair = [run_with(tmp_path / str(i), side) for i, side in enumerate(sides)]
    rows = reproduction(*map(Results, pair))
    share = (rows["verdict"] == "reproduced").mean()
    assert 0.92 < share < 0.98


@pytest.mark.parametrize(
    ("own", "verdict"), [((4.0, 5.0, 6.0), "reproduced"), ((7, 8, 9), "differs")]
)
def test_timings_are_judged_by_their_quartiles(tmp_path, own, verdict):
    pair = []
    for name, (first, middle, third) in (("published", (2.0, 3.0, 4.5)), ("own", own)):
        folder = run_with(tmp_path / name, {"linear": [middle]})
        path = folder / "data/quality.summary.csv"
        row = pd.read_csv(path)
        parts = [
            row.assign(metric=f"latency_ms{suffix}", mean=float(value))
            for suffix, value in (("", middle), ("_q1", first), ("_q3", third))
        ]
        pd.concat(parts).to_csv(path, index=False)
        pair.append(Results(folder))
    rows = reproduction(*pair)
    assert rows["metric"].tolist() == ["latency_ms"]
    assert rows["verdict"].tolist() == [verdict]
