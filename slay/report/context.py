"""What every template may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from slay.report import scores
from slay.report.claims import Claims, judge
from slay.report.latex import Latex
from slay.report.results import Results
from slay.report.sources import FIGURES, TABLES


def basic(results: Results) -> dict[str, Any]:
    """What a table needs: the configuration and single numbers."""
    return {
        "config": results.config,
        "draft": results.draft,
        "value": results.value,
        "worst": results.worst,
        "beta": results.beta,
        "bound": results.bound,
        "tag": lambda name: Latex(f"\\protect\\hyperlink{{prov:{name}}}{{[{name}]}}"),
    }


def whole(results: Results, env: jinja2.Environment, templates: Path) -> dict[str, Any]:
    """What the paper needs: all of that, the machine, the claims, the provenance."""
    context: dict[str, Any] = basic(results) | {
        "machine": results.machine,
        "mechanisms": results.mechanisms,
        "longest": max(results.axis("scaling", "seq_len", mode="forward"), default=0),
        "solved": lambda name, group: scores.solved(results, name, group),
        "dims": sorted(results.axis("quality", "head_dim")),
        "trained_len": next(iter(results.axis("quality", "seq_len", inputs="trained")), None),
        "task_names": list(dict.fromkeys(task for task, _ in scores.lengths(results))),
        "task_len": next(iter(results.axis("tasks", "seq_len")), 0),
        "table": lambda name: Latex(f"\\input{{../tables/{name}}}"),
        "figure": lambda name: Latex(f"../figures/{name}.pdf"),
        "provenance": _provenance(results),
    }
    claims = Claims(judge(templates / "claims.yaml", env, context))
    return context | {
        "claim": claims.sentence,
        "holds": claims.holds,
        "verdicts": list(claims.verdicts.values()),
    }


def _provenance(results: Results) -> list[dict[str, Any]]:
    """A row a table or figure: how many records, how to make it again, which code.

    A figure with the name of a table shows the same records, and has no row of its own.
    """
    run = results.folder.name
    files = {name: f"figures/{name}.pdf" for name in FIGURES}
    files |= {name: f"tables/{name}.tex" for name in TABLES}
    return [
        {
            "name": name,
            "records": sum(len(results.records(experiment)) for experiment in experiments),
            "command": f"snakemake results/{run}/{files[name]}",
            "code": results.code(experiments),
        }
        for name, experiments in (TABLES | FIGURES).items()
        if experiments
    ]
