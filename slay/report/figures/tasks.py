"""Normalised score by mechanism and task."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay.report.results import Estimate, MissingError, Results
from slay.report.scores import lengths
from slay.report.style import PAGE


def draw(results: Results) -> Figure:
    """One cell per mechanism and task, mean over seeds."""
    columns = lengths(results)
    names = [name for name in results.names if name in results.axis("tasks", "attention")]
    if not columns:
        raise MissingError("tasks")
    scores = np.full((len(names), len(columns)), np.nan)
    for i, name in enumerate(names):
        for j, (task, length) in enumerate(columns):
            score = results.value("tasks", "score", attention=name, task=task, seq_len=length)
            if isinstance(score, Estimate):
                scores[i, j] = score.mean
    figure, panel = plt.subplots(figsize=(PAGE, 1.0 + 0.2 * len(names)))
    image = panel.imshow(scores, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for i, j in np.argwhere(~np.isnan(scores)):
        dark = scores[i, j] < 0.55
        panel.text(
            j, i, f"{scores[i, j]:z.2f}".replace("-", "−"), ha="center", va="center", fontsize=5.5,
            color="white" if dark else "black",
        )  # fmt: skip
    usual = columns[0][1]
    labels = [task if length == usual else f"{task}, $L={length}$" for task, length in columns]
    panel.set_xticks(range(len(columns)), labels, fontsize=6.5, rotation=40, ha="right")
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panel, fraction=0.02, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1])
    bar.set_label("normalised score")
    return figure
