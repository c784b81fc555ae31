"""HTML pages for the workflow's report: an experiment's numbers, the run's configuration."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pandas as pd
import yaml

from slay.errors import unknown
from slay.report.results import Results

FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #1e293b; }}
h1 {{ font-size: 1.3em; margin: 0 0 .4em; }}
p {{ max-width: 60em; color: #475569; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2em .8em; border-bottom: 1px solid #e2e8f0; white-space: nowrap; }}
td {{ text-align: right; }}
th {{ text-align: left; vertical-align: top; font-weight: 600; }}
thead {{ background: #f1f5f9; position: sticky; top: 0; font-weight: 600; }}
tbody th {{ font-weight: 400; }}
pre {{ line-height: 1.4; }}
</style>
<h1>{title}</h1>
{body}
"""


def page(name: str, results: Results) -> str:
    """The page of an experiment, or of the run's configuration. Raises `UnknownNameError`."""
    if name == "configuration":
        return FRAME.format(title=f"Run {results.config['run']}", body=_configuration(results))
    if name not in results.experiments:
        raise unknown("page", name, ["configuration", *results.experiments])
    return FRAME.format(title=name, body=_numbers(results.summary(name).copy()))


def _configuration(results: Results) -> str:
    """The machine, and the configuration as YAML."""
    machine = [[name, value] for name, value in results.machine.items() if value is not None]
    first = {key: results.config[key] for key in ("run", "title")}
    text = yaml.safe_dump(
        first | results.config, sort_keys=False, default_flow_style=None, allow_unicode=True
    )
    return f"{_table([], machine, names=2)}<pre>{escape(text)}</pre>"


NOT_SETTINGS = ("status", "stale", "metric", "n", "mean", "sd", "low", "high")


def _numbers(summary: pd.DataFrame) -> str:
    """One row per setting, one column per metric; settings that all rows share are shown above."""
    settings = [str(c) for c in summary if c not in NOT_SETTINGS]
    summary[settings] = summary[settings].astype(object).fillna("")
    axes = [c for c in settings if c == "attention" or summary[c].nunique() > 1]
    shared = [(c, summary[c].iloc[0]) for c in settings if c not in axes]
    rows: dict[Any, dict[str, str]] = {}
    for row in summary.to_dict("records"):
        rows.setdefault(tuple(row[c] for c in axes), {})[row["metric"]] = _cell(row)
    metrics = list(summary["metric"].unique())
    body = [[*key, *(cells.get(m, "") for m in metrics)] for key, cells in rows.items()]
    note = ", ".join(f"{name} {value}" for name, value in shared if value != "")
    return f"<p>{escape(note)}</p>{_table([*axes, *metrics], body, names=len(axes))}"


def _cell(row: dict[Any, Any]) -> str:
    """Mean ± half the 95% interval, with a dagger if stale; the status if there is no number."""
    if math.isnan(row["mean"]):
        return "" if row["status"] == "ok" else row["status"]
    half = (row["high"] - row["low"]) / 2
    digits = ".4g" if abs(row["mean"]) < 1e4 else ",.0f"
    text = f"{row['mean']:{digits}}" + (f" ± {half:.2g}" if half > 0 else "")
    return f"{text} †" if row["stale"] else text


def _table(head: list[str], body: list[list[Any]], names: int) -> str:
    """An HTML table; the first `names` cells of each row are headers."""

    def line(cells: list[Any], names: int) -> str:
        tags = ["th"] * names + ["td"] * (len(cells) - names)
        pairs = zip(tags, map(str, cells), strict=True)
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in pairs)

    rows = "\n".join(line(cells, names) for cells in body)
    top = f"<thead>{line(head, names)}</thead>" if head else ""
    return f"<table>{top}<tbody>{rows}</tbody></table>"
