"""Validation accuracy against the steps of training, on the tasks that need attention."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from slay.report.figures.parts import curves, grid, legend_below
from slay.report.results import Results
from slay.report.scores import lengths
from slay.report.style import curve
from slay.task_groups import task_groups


def draw(results: Results) -> Figure:
    """One panel per task at its first length; mean over seeds, keeping final accuracy."""
    points = curves(results, "tasks")
    first = dict(reversed(lengths(results)))
    critical = [task for task in task_groups()["attention_critical"] if task in first]
    shown = critical or list(first)
    figure, panels = grid(len(shown), 3, 1.12, sharey=True)
    for panel, task in zip(panels, shown, strict=True):
        for name, p in points.items():
            of_task = p[(p["task"] == task) & (p["seq_len"] == first[task])]
            if not of_task.empty:
                mean = _mean(of_task)
                panel.plot(mean.index, mean, linewidth=1.0, **curve(name, len(mean)))
        panel.set(title=task, xlim=(0, None), ylim=(0, 1.05))
    for panel in panels[-3:]:
        panel.set_xlabel("step")
    for panel in panels[::3]:
        panel.set_ylabel("accuracy")
    legend_below(figure, panels, results.names)
    return figure


def _mean(points: pd.DataFrame) -> pd.Series:
    """Mean over seeds by step."""
    table = points.pivot_table(index="step", columns="seed", values="accuracy")
    return table.ffill().mean(axis=1)
