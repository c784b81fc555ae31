"""Sharpness of a row: its entropy, and the weight of one key, against that key's cosine."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay.report.figures.parts import legend_below, pictures
from slay.report.results import Results
from slay.report.style import PAGE, curve


def draw(results: Results) -> Figure:
    """All other keys are independent of the query."""
    figure, (entropy, weight) = plt.subplots(1, 2, figsize=(PAGE, 2.0))
    points = pictures(results, "entropy")
    for name, p in points.items():
        form = curve(name, len(p))
        entropy.plot(p["x"], p["entropy"], **form)
        weight.plot(p["x"], p["weight"], **form)
    length = int(next(iter(points.values()))["seq_len"].iloc[0])
    weight.axhline(1 / length, color="black", linewidth=0.4, linestyle=":")
    entropy.set(xlabel="cosine of one key", ylabel=r"entropy / $\log L$")
    weight.set(xlabel="cosine of one key", ylabel="weight of that key", yscale="log")
    legend_below(figure, (entropy, weight), results.names)
    return figure
