"""Language models: held-out loss against the steps of training."""

from __future__ import annotations

from matplotlib.figure import Figure

from slay.report.figures.parts import curves, grid, legend_below
from slay.report.results import Estimate, Results
from slay.report.style import look


def draw(results: Results) -> Figure:
    """A panel a width of the short convolution; mean over seeds. Dotted: single tokens' entropy."""
    points = curves(results, "language")
    convs = sorted({int(conv) for p in points.values() for conv in p["short_conv"].unique()})
    figure, panels = grid(len(convs), 2, 2.2, sharey=True)
    unigram = results.value("language", "unigram_entropy")
    for panel, conv in zip(panels, convs, strict=True):
        for name, p in points.items():
            found = p[(p["short_conv"] == conv) & p["validation_loss"].notna()]
            if not found.empty:
                mean = found.groupby("step")["validation_loss"].mean()
                colour, marker = look(name)
                panel.plot(mean.index, mean, color=colour, marker=marker, label=name)
        if isinstance(unigram, Estimate):
            panel.axhline(unigram.mean, color="black", linewidth=0.5, linestyle=":")
        panel.set_title(f"convolution of width {conv}" if conv else "without convolution")
        panel.set_xlabel("step")
    panels[0].set_ylabel("held-out loss (nats a token)")
    legend_below(figure, panels, results.names)
    return figure
