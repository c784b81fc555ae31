"""The table of error and latency by number of features."""

from __future__ import annotations

from typing import Any

from slay.report.results import Estimate, Results
from slay.report.tables.parts import letters, measured


def context(results: Results) -> dict[str, Any]:
    """Error and latency for every budget of features, sorted by number of features."""
    metrics = ("num_features", "rel_l2", "kernel_error", "latency_ms", "ratio", "ratio_standard")
    rows = []
    for name in measured(results, "ablation"):
        of_name = []
        for variant in results.axis("ablation", "variant", attention=name):
            where = {"attention": name, "variant": variant}
            cells = {metric: results.value("ablation", metric, **where) for metric in metrics}
            of_name.append({"name": name, "variant": letters(variant), **cells})
        rows += sorted(of_name, key=_size)
    return {"rows": rows}


def _size(row: dict[str, Any]) -> float:
    m = row["num_features"]
    return m.mean if isinstance(m, Estimate) else 0.0
