"""Context of the paper's templates and of the claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2

from slay.report import groups, scores
from slay.report.basics import basic
from slay.report.claims import Claims, judge
from slay.report.latex import Latex, escape
from slay.report.published import configuration, others
from slay.report.results import Estimate, Missing, Results
from slay.report.shown import has_figure, has_table
from slay.report.sources import FIGURES, TABLES
from slay.task_groups import task_groups


def whole(results: Results, env: jinja2.Environment, templates: Path) -> dict[str, Any]:
    """Return the paper's context: that of `basic`, the machine, the claims, the provenance."""
    context: dict[str, Any] = basic(results) | {
        "machine": results.machine,
        "planned": results.planned if results.draft else Missing("planned"),
        "mechanisms": results.mechanisms,
        "names": results.names,
        "longest": max(scores.timed_lengths(results), default=Missing("scaling: ratio")),
        "shortest": min(scores.timed_lengths(results), default=Missing("scaling: ratio")),
        "reach": lambda name: scores.reach(results, name),
        "decoded": max(
            results.axis("scaling", "seq_len", mode="decode"), default=Missing("scaling: decode")
        ),
        "growth": lambda name, metric: scores.growth(results, name, metric),
        "solved": lambda name, group: groups.solved(results, name, group),
        "score": lambda name, group: scores.mean_score(results, name, task_groups()[group]),
        "measured": lambda *names: all(not results.summary(name).empty for name in names),
        "there": lambda *names: set(names) <= set(results.names),
        "several": _several(results),
        "dims": sorted(results.axis("quality", "head_dim")),
        "inputs": results.axis("quality", "inputs"),
        "trained_len": next(iter(results.axis("quality", "seq_len", inputs="trained")), None),
        "task_names": list(dict.fromkeys(task for task, _ in scores.lengths(results))),
        "task_len": next(iter(results.axis("tasks", "seq_len")), Missing("tasks")),
        "twice": next((2 * n for n in results.axis("tasks", "seq_len")), Missing("tasks")),
        "model_width": next(iter(results.axis("language", "embed_dim")), Missing("language")),
        "has_table": lambda name: has_table(results.base / f"tables/{name}.tex"),
        "has_figure": lambda name: has_figure(results.base / f"figures/{name}.pdf"),
        "table": lambda name: Latex(f"\\input{{\\built/tables/{name}}}"),
        "figure": lambda name: Latex(f"\\built/figures/{name}.pdf"),
        "home": f"results/{results.folder.name}",
        "provenance": _provenance(results),
        "configured": _flag(results),
        "published_runs": [run.about | {"name": run.name} for run in others(results)],
    }
    claims = Claims(judge(templates / "claims.yaml", env, context))
    return context | {
        "claim": claims.sentence,
        "holds": claims.holds,
        "count": claims.count,
        "verdicts": list(claims.verdicts.values()),
    }


def _several(results: Results) -> Callable[..., Latex]:
    """Format a number of several mechanisms as a phrase: "0.4 for x and 0.5 for y".

    Mechanisms without the number are skipped; the phrase is empty if none has it.
    """

    def phrase(
        experiment: str,
        metric: str,
        show: Callable[[Estimate], Latex],
        names: Iterable[str],
        **where: Any,
    ) -> Latex:
        parts = []
        for name in names:
            found = results.value(experiment, metric, attention=name, **where)
            if isinstance(found, Estimate):
                parts.append(f"{show(found)} for \\mech{{{escape(name)}}}")
        head, tail = parts[:-1], parts[-1:]
        return Latex(" and ".join([", ".join(head), *tail] if head else tail))

    return phrase


def _flag(results: Results) -> str:
    """The flag that selects the run's configuration; empty for the default."""
    path = configuration(results.config["run"])
    return "" if path == "config/config.yaml" else f" --configfile {path}"


def _provenance(results: Results) -> list[dict[str, Any]]:
    """One row per table or figure: number of records, digest of the code, file.

    A figure with the name of a table shows the same records and has no row of its own. Tables and
    figures whose experiments have no records in this run are left out.
    """
    files = {name: f"figures/{name}.pdf" for name in FIGURES}
    files |= {name: f"tables/{name}.tex" for name in TABLES}
    return [
        {
            "name": name,
            "records": sum(len(results.records(experiment)) for experiment in experiments),
            "file": files[name],
            "code": results.code(experiments),
        }
        for name, experiments in (TABLES | FIGURES).items()
        if not experiments or any(len(results.records(experiment)) for experiment in experiments)
    ]
