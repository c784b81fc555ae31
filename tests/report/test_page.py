"""Pages of the report: every number is there once, text stays text, what is missing says why."""

from __future__ import annotations

import json
import math
import re

import pandas as pd
import pytest

from slay.errors import SlayError
from slay.report.page import page
from slay.report.results import Results

COLUMNS = ["attention", "seq_len", "note", "status", "stale", "metric", "n", "mean", "low", "high"]
ROWS = [
    ("linear", 64, "<b>", "ok", False, "loss", 2, 0.51234, 0.41234, 0.61234),
    ("linear", 64, "<b>", "ok", False, "parameters", 2, 1234567, 1234567, 1234567),
    ("linear", 128, "<b>", "ok", True, "loss", 1, 0.25, math.nan, math.nan),
    ("rff", 64, "<b>", "oom", False, "loss", 0, math.nan, math.nan, math.nan),
]


@pytest.fixture
def results(tmp_path):
    (tmp_path / "data").mkdir()
    rows = pd.DataFrame(ROWS, columns=COLUMNS).assign(sd=math.nan, variant="")
    rows.to_csv(tmp_path / "data/tasks.summary.csv", index=False)
    config = {"run": "made", "title": "a <script> & more", "experiments": {"tasks": []}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return Results(tmp_path)


def test_a_row_a_setting_and_a_column_a_metric(results):
    text = page("tasks", results)
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", line) for line in text.split("<tr>")[1:]]
    assert rows == [
        ["attention", "seq_len", "loss", "parameters"],
        ["linear", "64", "0.5123 ± 0.1", "1,234,567"],
        ["linear", "128", "0.25 †", ""],
        ["rff", "64", "oom", ""],
    ]
    assert "note &lt;b&gt;" in text  # what all rows share stands above


def test_an_unknown_page_gives_the_nearest(results):
    with pytest.raises(SlayError, match="did you mean 'tasks'"):
        page("taks", results)
