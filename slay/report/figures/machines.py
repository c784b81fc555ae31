"""Latency against the length by machine: the original study's, this run's, the published runs'."""

from __future__ import annotations

from matplotlib.figure import Figure

from slay.report.figures.parts import grid, legend_below
from slay.report.machines import by_machine
from slay.report.results import MissingError, Results
from slay.report.style import form


def draw(results: Results) -> Figure:
    """One panel per machine, with a shared axis of lengths."""
    found = by_machine(results, "latency_ms")
    if not found:
        raise MissingError("scaling")
    figure, panels = grid(len(found), 3, 2.2, sharex=True)
    for panel, (machine, by_name) in zip(panels, found.items(), strict=True):
        for name, points in by_name.items():
            panel.plot(list(points), list(points.values()), **form(name))
        panel.set(xscale="log", yscale="log", title=machine, xlabel="sequence length $L$")
        panel.minorticks_off()
    panels[0].set_ylabel("latency (ms)")
    legend_below(figure, panels, results.names)
    return figure
