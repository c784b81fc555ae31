"""The figures, one module each with a function `draw(results) -> Figure`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from slay.errors import unknown
from slay.report.figures.parts import not_measured
from slay.report.results import MissingError, Results
from slay.report.shown import NOTHING
from slay.report.sources import FIGURES
from slay.report.style import save, styled


def draw_figure(name: str, results: Results, path: Path) -> None:
    """Draw a figure to `path` (PDF) and beside it as PNG. Raises `UnknownNameError`."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    with styled():
        try:
            figure, subject = import_module(f"{__name__}.{name}").draw(results), name
        except MissingError:
            figure, subject = not_measured(), NOTHING
        save(figure, path, subject)
