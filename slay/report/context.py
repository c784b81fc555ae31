"""What every template may use."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from slay.report.claims import Claims, judge
from slay.report.latex import Latex, environment
from slay.report.results import Results
from slay.report.sources import TABLES


def load(results: Results, templates: Path) -> tuple[jinja2.Environment, dict[str, Any]]:
    """The template environment over paper/, and the context: results, machine, claims."""
    env = environment(templates)
    context: dict[str, Any] = {
        "config": results.config,
        "machine": results.machine,
        "draft": results.draft,
        "value": results.value,
        "beta": results.beta,
        "bound": results.bound,
        "mechanisms": results.mechanisms,
        "longest": max(results.axis("scaling", "seq_len"), default=0),
        "task_len": next(iter(results.axis("tasks", "seq_len")), 0),
        "table": lambda name: Latex(f"\\input{{../tables/{name}}}"),
        "figure": lambda name: Latex(f"../figures/{name}.pdf"),
        "tag": lambda name: Latex(f"\\protect\\hyperlink{{prov:{name}}}{{[{name}]}}"),
        "provenance": _provenance(results),
    }

    @cache
    def claims() -> Claims:
        return Claims(judge(templates / "claims.yaml", env, context))

    return env, context | {
        "claim": lambda name: claims().sentence(name),
        "holds": lambda name: claims().holds(name),
        "verdicts": lambda: list(claims().verdicts.values()),
    }


def _provenance(results: Results) -> list[dict[str, Any]]:
    """A row a table or figure: how many records, how to make it again, which code."""
    run = results.folder.name
    return [
        {
            "name": name,
            "records": sum(len(results.records(experiment)) for experiment in experiments),
            "command": f"snakemake results/{run}/tables/{name}.tex",
            "code": results.code(experiments),
        }
        for name, experiments in TABLES.items()
        if experiments
    ]
