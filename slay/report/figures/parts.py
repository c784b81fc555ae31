"""Shared by the figures: panels, legend, axes, and points of curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from slay.report.results import MissingError, Results
from slay.report.shown import NOTHING
from slay.report.style import COLUMN, PAGE

TARGET = "yat-spherical"
OVER = 1.13  # where an error above 1 is drawn


def grid(number: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """`number` panels in even rows of at most `columns`, each row `height` inches high.

    The figure is as wide as the page; with a single panel, as wide as a column.
    """
    rows = ceil(number / columns)
    columns = ceil(number / rows)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(PAGE if number > 1 else COLUMN, rows * height),
        squeeze=False,
        **options,
    )
    panels = list(axes.flat)
    for panel in panels[number:]:
        panel.set_axis_off()
    return figure, panels[:number]


def legend_below(figure: Figure, axes: Iterable[Axes], names: Sequence[str]) -> None:
    """One legend for all panels, each label once: the mechanisms in their order, then the rest.

    The figure grows by the height of the legend.
    """
    handles: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(
                label, handle[0] if isinstance(handle, ErrorbarContainer) else handle
            )
    if not handles:
        return
    order = {name: place for place, name in enumerate(names)}
    handles = dict(sorted(handles.items(), key=lambda item: order.get(item[0], len(order))))
    columns = _columns(list(handles), figure.get_figwidth())
    figure.set_figheight(figure.get_figheight() + 0.14 * ceil(len(handles) / columns))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns,
        fontsize=6.5, handlelength=2.6, columnspacing=1.0, handletextpad=0.5,
    )  # fmt: skip


def _columns(labels: Sequence[str], width: float) -> int:
    """Number of legend columns, filled one after the other, that fit into a width in inches."""
    for columns in range(len(labels), 1, -1):
        parts = [max(map(len, part)) for part in np.array_split(labels, columns)]
        if sum(0.038 * longest + 0.45 for longest in parts) <= width:
            return ceil(len(labels) / ceil(len(labels) / columns))
    return 1


def apart(places: Mapping[str, Sequence[float]], low: float, high: float) -> dict[str, list[float]]:
    """Positions of each mechanism's markers on a logarithmic axis from `low` to `high`.

    Markers that would share a position are placed side by side around it.
    """
    found: dict[str, list[float]] = {}
    for name, of_name in places.items():
        for x in of_name:
            same = [other for other, those in places.items() if x in those]
            steps = same.index(name) - (len(same) - 1) / 2
            found.setdefault(name, []).append(x * (high / low) ** (0.028 * steps))
    return found


def error_axis(panel: Axes) -> None:
    """Make a vertical axis of relative errors: 0 to 1, and one tick for all larger errors."""
    panel.axhline(1.0, color="black", linewidth=0.4, linestyle=":")
    panel.set_ylim(0, OVER + 0.07)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1, OVER], ["0", "0.25", "0.5", "0.75", "1", "> 1"])


def shown_error(error: float) -> float:
    """Position of an error on an `error_axis`."""
    return error if error <= 1.05 else OVER


def curves(results: Results, experiment: str, **where: Any) -> dict[str, pd.DataFrame]:
    """Points by mechanism, in the order of the run; the curve's columns without their prefix.

    Only records without options. Raises `MissingError` if there are no points.
    """
    frame = results.curves(experiment)
    for column, value in {"variant": "", **where}.items():
        frame = frame[frame[column] == value] if column in frame else frame.iloc[:0]
    found = {}
    for name in results.names:
        points = frame[frame["attention"] == name] if "attention" in frame else frame
        if not points.empty:
            found[name] = points.rename(columns=lambda c: c.removeprefix("curve."))
    if not found:
        raise MissingError(f"{experiment}: curves")
    return found


def pictures(results: Results, kind: str) -> dict[str, pd.DataFrame]:
    """Points of one kind of analysis by mechanism, from the first record of each."""
    found = curves(results, "analysis", kind=kind)
    return {name: p[p["path"] == p["path"].iloc[0]] for name, p in found.items()}


def square(points: pd.DataFrame, values: str) -> pd.DataFrame:
    """A column of points as a matrix over i and j; NaN where there is no point."""
    return points.pivot_table(index="i", columns="j", values=values)


def not_measured() -> Figure:
    """Placeholder for a figure without data in this run."""
    figure, panel = plt.subplots(figsize=(COLUMN, 1.0))
    panel.text(0.5, 0.5, NOTHING, ha="center", va="center")
    panel.set_axis_off()
    return figure
