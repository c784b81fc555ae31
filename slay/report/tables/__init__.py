"""The tables, one module each, whose `context(results)` returns the rows for its template.

The templates are paper/tables/<name>.tex.j2.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from slay.errors import unknown
from slay.report.basics import basic
from slay.report.latex import environment, render, with_notes
from slay.report.results import Results
from slay.report.shown import empty_table
from slay.report.sources import TABLES, module_of


def render_table(name: str, results: Results, templates: Path) -> str:
    """LaTeX of a table, environment and caption included; a comment if it has no rows.

    Raises `UnknownNameError`.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    env, module = environment(templates), import_module(module_of(name))
    if name.startswith("claims"):
        context = module.context(results, env, templates)
    else:
        context = basic(results) | module.context(results)
        if not context["rows"]:
            return empty_table()
    return with_notes(render(env, f"tables/{name}.tex.j2", **context))
