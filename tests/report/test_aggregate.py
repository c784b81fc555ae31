"""Records to tables: nothing stale or broken gets in, seeds become intervals."""

from __future__ import annotations

import json
import math
from io import StringIO

import pandas as pd
import pytest

from slay.errors import SlayError
from slay.pipeline.params import PARAMS
from slay.pipeline.record import Record, write_record
from slay.report.aggregate import collect, points, summarise
from slay.report.results import Estimate, Missing, Results, parsed
from slay.report.stats import interval

PROVENANCE = {
    "code": "c0de",
    "commit": None,
    "dirty": None,
    "device": "cpu",
    "host": "here",
    "platform": "Linux",
    "processor": "one",
    "cores": 2,
    "threads": 1,
    "python": "3.11",
    "torch": "2.8",
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 1.0,
    "peak_memory_bytes": 1,
}


class Run:
    """A run's folder under construction."""

    def __init__(self, folder):
        self.folder = folder
        self.jobs = []

    def add(self, experiment="quality", *, variant="", metrics=None, status="ok", **asked):
        params = PARAMS[experiment](**{"attention": "linear", **asked})
        path = self.folder / params.attention / variant / f"{len(self.jobs)}.json"
        record = Record(
            schema=1,
            experiment=experiment,
            params=params.model_dump(),
            status=status,
            metrics=metrics or {},
            provenance=PROVENANCE,
        )
        write_record(path, record)
        self.jobs.append(
            {"path": str(path), "params": params.model_dump(), "codes": {"cpu": "c0de"}}
        )
        return path

    def collect(self, **settings):
        manifest = self.folder / "manifest.json"
        manifest.write_text(json.dumps(self.jobs))
        return collect(manifest, **settings)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def rows(table):
    """The summary as {(mechanism, variant, metric): row}."""
    summary = summarise(table)
    return {(r["attention"], r["variant"], r["metric"]): r for r in summary.to_dict("records")}


def test_seeds_become_an_interval(run):
    values = [0.1, 0.2, 0.4]
    for seed, value in enumerate(values):
        run.add(seed=seed, metrics={"rel_l2": value, "num_features": 8})
    found = rows(run.collect())
    assert set(found) == {("linear", "", "rel_l2"), ("linear", "", "num_features")}
    row = found["linear", "", "rel_l2"]
    expected = interval(pd.Series(values).to_numpy())
    assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert (row["status"], row["stale"]) == ("ok", False)


def test_settings_keep_their_order_and_variants_stay_apart(run):
    for name in ("yat-quadratic", "linear", "uniform"):
        run.add(attention=name, metrics={"rel_l2": 0.1})
    run.add(attention="linear", variant="bias=True", metrics={"rel_l2": 0.9})
    found = rows(run.collect())
    names = [(name, variant) for name, variant, _ in found]
    assert names == [
        ("yat-quadratic", ""), ("linear", ""), ("uniform", ""), ("linear", "bias=True"),
    ]  # fmt: skip
    assert found["linear", "bias=True", "rel_l2"]["mean"] == 0.9
    assert found["linear", "", "rel_l2"]["mean"] == 0.1


def test_a_job_out_of_memory_stands_in_its_setting(run):
    run.add("scaling", attention="standard", seq_len=8, metrics={"ratio": 1.0})
    run.add("scaling", attention="standard", seq_len=16, status="oom")
    summary = summarise(run.collect()).set_index("seq_len")
    assert summary.loc[8, ["status", "n", "mean"]].tolist() == ["ok", 1, 1.0]
    assert summary.loc[16, ["status", "n"]].tolist() == ["oom", 0]
    assert math.isnan(summary.loc[16, "mean"])


def test_score_is_zero_at_the_null_and_one_at_the_ceiling(run):
    for seed, accuracy in enumerate([0.25, 1.0, 0.625, None]):
        metrics = {"accuracy": accuracy, "null": 0.25, "ceiling": 1.0}
        run.add("tasks", task="copy", seed=seed, metrics=metrics)
    assert run.collect()["metric.score"].tolist() == pytest.approx(
        [0, 1, 0.5, math.nan], nan_ok=True
    )


def test_a_manifest_of_another_version_is_refused(run):
    run.add(metrics={"rel_l2": 0.1})
    run.jobs[0]["code"] = run.jobs[0].pop("codes")["cpu"]
    with pytest.raises(SlayError, match=r"manifest\.json: written by another version"):
        run.collect()


def test_stale_records_are_refused_and_marked_in_a_draft(run):
    stale_params = run.add(seed=0, metrics={"rel_l2": 0.1})
    stale_code = run.add(seed=1, metrics={"rel_l2": 0.2})
    fresh = run.add(seed=2, head_dim=8, metrics={"rel_l2": 0.3})
    run.jobs[0]["params"]["epsilon"] = 0.5
    run.jobs[1]["codes"] = {"cpu": "0ther", "cuda": "c0de"}
    draft = run.collect(draft=True).set_index("path")["stale"]
    assert draft.to_dict() == {str(stale_params): True, str(stale_code): True, str(fresh): False}
    for path, why in ((stale_params, r"epsilon = 0\.001, now 0\.5"), (stale_code, "code c0de")):
        with pytest.raises(SlayError, match=why) as caught:
            run.collect()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        run.jobs.pop(0)
    assert run.collect()["stale"].tolist() == [False]


def test_missing_records_are_refused_and_left_out_of_a_draft(run):
    gone, there = run.add(seed=0, metrics={"rel_l2": 0.1}), run.add(seed=1)
    gone.unlink()
    assert run.collect(draft=True)["path"].tolist() == [str(there)]
    with pytest.raises(SlayError, match="no such record"):
        run.collect()
    there.unlink()
    nothing = run.collect(draft=True)
    for frame in (nothing, summarise(nothing), points(nothing)):
        assert parsed(StringIO(frame.to_csv(index=False))).empty


@pytest.mark.parametrize("draft", [True, False])
def test_broken_records_are_refused(run, draft):
    path = run.add()
    path.write_text(path.read_text()[:-50])
    with pytest.raises(SlayError, match="cut short"):
        run.collect(draft=draft)


def results(run):
    """Results over what the run's CSV files keep."""
    table = run.collect()
    (run.folder / "data").mkdir()
    (run.folder / "config.json").write_text('{"experiments": {"scaling": []}}')
    for name, frame in (("scaling", table), ("scaling.summary", summarise(table))):
        frame.to_csv(run.folder / "data" / f"{name}.csv", index=False)
    return Results(run.folder)


def test_results_find_what_the_files_keep(run):
    for length in (16, 8):
        run.add("scaling", seq_len=length, metrics={"ratio": length / 4})
    run.add("scaling", seq_len=16, variant="bias=True", metrics={"ratio": 9.0})
    found = results(run)
    assert found.axis("scaling", "seq_len") == [16, 8]
    value = found.value("scaling", "ratio", attention="linear", seq_len=16)
    assert isinstance(value, Estimate)
    assert (value.mean, value.n, value.stale) == (4.0, 1, False)
    assert found.value("scaling", "ratio", seq_len=16, variant="bias=True").mean == 9.0
    for where in ({"seq_len": 32}, {"nowhere": 1}, {"attention": "standard"}):
        assert isinstance(found.value("scaling", "ratio", **where), Missing)
    assert isinstance(found.value("tasks", "accuracy"), Missing)


def test_a_run_in_which_nothing_fitted_has_no_numbers(run):
    run.add("scaling", status="oom")
    found = results(run)
    assert isinstance(found.value("scaling", "ratio", attention="linear"), Missing)
    assert found.records("scaling")["status"].tolist() == ["oom"]
