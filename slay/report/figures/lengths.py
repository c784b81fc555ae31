"""Accuracy against the sequence length, for tasks trained at more than one length."""

from __future__ import annotations

from matplotlib.figure import Figure

from slay.report.figures.parts import apart, grid, legend_below
from slay.report.results import Estimate, MissingError, Results
from slay.report.scores import lengths
from slay.report.style import BOUND, form


def draw(results: Results) -> Figure:
    """One panel per task: mean and interval over seeds, and the null."""
    by_task: dict[str, list[int]] = {}
    for task, length in lengths(results):
        by_task.setdefault(task, []).append(length)
    by_task = {task: sorted(found) for task, found in by_task.items() if len(found) > 1}
    if not by_task:
        raise MissingError("tasks: more than one length")
    figure, panels = grid(len(by_task), 4, 1.35, sharey=True)
    for panel, (task, of_task) in zip(panels, by_task.items(), strict=True):
        points = {name: _accuracies(results, name, task, of_task) for name in results.names}
        places = apart({name: list(p) for name, p in points.items()}, of_task[0], of_task[-1])
        for name, x in places.items():
            panel.plot(x, list(points[name].values()), **form(name))
        null = [results.value("tasks", "null", task=task, seq_len=n) for n in of_task]
        heights = [value.mean for value in null if isinstance(value, Estimate)]
        if len(heights) == len(of_task):
            panel.plot(of_task, heights, color=BOUND, linestyle="--", linewidth=1.0, label="null")
        panel.set(title=task, xscale="log", xlabel="length $L$", ylim=(0, 1.05))
        panel.set_xticks(of_task, [str(n) for n in of_task])
        panel.minorticks_off()
    panels[0].set_ylabel("accuracy")
    legend_below(figure, panels, results.names)
    return figure


def _accuracies(results: Results, name: str, task: str, of_task: list[int]) -> dict[int, float]:
    """A mechanism's mean accuracy by length, where it was measured."""
    found = {
        n: results.value("tasks", "accuracy", attention=name, task=task, seq_len=n) for n in of_task
    }
    return {n: value.mean for n, value in found.items() if isinstance(value, Estimate)}
