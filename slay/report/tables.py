"""The rows of each table; how they look is in paper/tables/<name>.tex.j2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from slay.errors import unknown
from slay.report import sources
from slay.report.context import basic, whole
from slay.report.latex import environment, render
from slay.report.results import Estimate, Missing, Results
from slay.report.stats import growth_exponent

PUBLISHED = Path("config/published.yaml")


def render_table(name: str, results: Results, templates: Path) -> str:
    """LaTeX of a table, environment and caption included. Raises `UnknownNameError`."""
    if name not in sources.TABLES:
        raise unknown("table", name, sources.TABLES)
    env = environment(templates)
    if name == "claims":
        context = whole(results, env, templates)
    else:
        context = basic(results) | TABLES[name](results)
    return render(env, f"tables/{name}.tex.j2", **context)


def mechanisms(results: Results) -> dict[str, Any]:
    """Facts of each mechanism, as its class states them."""
    return {"rows": results.mechanisms}


def quality(results: Results) -> dict[str, Any]:
    """A block a head dimension; first what needs no mechanism: answering zero."""
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["readme"]["quality"]
    length = next(iter(results.axis("quality", "seq_len")), None)
    blocks: list[dict[str, Any]] = []
    dims = sorted(results.axis("quality", "head_dim"))
    for dim in dims:
        rows = []
        for name in results.names:
            for variant in results.axis("quality", "variant", attention=name, head_dim=dim):
                where = {"attention": name, "head_dim": dim, "variant": variant, "seq_len": length}
                m = results.value("quality", "num_features", **where)
                rows.append(
                    {
                        "name": name,
                        "variant": variant,
                        "m": m,
                        "bound": _bound(results, dim, m),
                        "isotropic": _by_metric(results, inputs="isotropic", **where),
                        "planted": _by_metric(results, inputs="planted", **where),
                        "published": published.get(name, {}) if not variant else {},
                    }
                )
        zeros = {
            inputs: results.value("quality", "target_mse", head_dim=dim, inputs=inputs)
            for inputs in ("isotropic", "planted")
        }
        blocks.append({"dim": dim, "rows": rows, "zeros": zeros})
    widest = max((len(block["rows"]) for block in blocks), default=0)
    blocks.sort(key=lambda block: len(block["rows"]) != widest)  # the fullest first
    return {"blocks": blocks, "length": length}


def _bound(results: Results, dim: int, m: Estimate | Missing) -> float | None:
    return results.bound(dim, int(m.mean)) if isinstance(m, Estimate) else None


def _by_metric(results: Results, **where: Any) -> dict[str, Estimate | Missing]:
    metrics = ("rel_l2", "cosine", "mse", "kernel_error")
    return {metric: results.value("quality", metric, **where) for metric in metrics}


def scaling(results: Results) -> dict[str, Any]:
    """Latency, ratio to `standard` and memory at each length, with fitted growth."""
    lengths = sorted(results.axis("scaling", "seq_len"))
    rows = []
    for name in results.names:
        where = {"attention": name}
        rows.append(
            {
                "name": name,
                "cells": [
                    {
                        metric: results.value("scaling", metric, seq_len=length, **where)
                        for metric in ("latency_ms", "ratio", "peak_memory_bytes")
                    }
                    for length in lengths
                ],
                "time_growth": _growth(results, name, "latency_ms"),
                "memory_growth": _growth(results, name, "peak_memory_bytes"),
            }
        )
    return {"lengths": lengths, "rows": rows}


def _growth(results: Results, name: str, metric: str) -> float | None:
    """Exponent over the longer half of the lengths, where start-up costs no longer show."""
    frame = results.select("scaling", metric, attention=name).drop_duplicates("seq_len")
    frame = frame.sort_values("seq_len").tail(max(2, (len(frame) + 1) // 2))
    if len(frame) < 2:
        return None
    return growth_exponent(frame["seq_len"].to_numpy(float), frame["mean"].to_numpy(float))


def tasks(results: Results) -> dict[str, Any]:
    """Accuracy and normalised score by task and length, with each task's null."""
    frame = results.summary("tasks")
    columns = []
    if not frame.empty:
        pairs = frame[["task", "seq_len"]].drop_duplicates()
        columns = list(pairs.itertuples(index=False, name=None))
    rows = []
    for name in results.names:
        cells = [
            {
                metric: results.value("tasks", metric, attention=name, task=task, seq_len=length)
                for metric in ("accuracy", "score", "steps")
            }
            for task, length in columns
        ]
        rows.append({"name": name, "cells": cells})
    nulls = [results.value("tasks", "null", task=task, seq_len=length) for task, length in columns]
    return {"columns": columns, "rows": rows, "nulls": nulls}


TABLES: dict[str, Callable[[Results], dict[str, Any]]] = {
    "mechanisms": mechanisms,
    "quality": quality,
    "scaling": scaling,
    "tasks": tasks,
}
