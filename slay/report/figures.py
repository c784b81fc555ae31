"""The figures, one function each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slay.errors import unknown
from slay.report import sources
from slay.report.results import Estimate, Results
from slay.report.scores import lengths
from slay.report.style import BOUND, COLUMN, PAGE, look, save, styled


def draw_figure(name: str, results: Results, path: Path) -> None:
    """Draw a figure to `path` (PDF) and beside it as PNG. Raises `UnknownNameError`."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    experiments = sources.FIGURES[name]
    measured = any(not results.summary(experiment).empty for experiment in experiments)
    with styled():
        figure = FIGURES[name](results) if measured else _not_measured()
        save(figure, path, results.epoch(experiments))


def quality(results: Results) -> Figure:
    """Kernel error against the number of features, over the Mercer bound: a panel a dimension."""
    dims = sorted(results.axis("quality", "head_dim"))
    figure, axes = plt.subplots(1, len(dims), figsize=(PAGE, 2.3), sharey=True, squeeze=False)
    for panel, dim in zip(axes[0], dims, strict=True):
        top = 1
        for name in results.names:
            points = _kernel_errors(results, name, dim)
            if not points:
                continue
            top = max(top, *(m for m, _ in points))
            colour, marker = look(name)
            panel.errorbar(
                [m for m, _ in points],
                [e.mean for _, e in points],
                yerr=np.nan_to_num([(e.high - e.low) / 2 for _, e in points]),
                color=colour,
                marker=marker,
                linestyle="-" if len(points) > 1 else "none",
                linewidth=0.8,
                capsize=2,
                label=name,
                zorder=3,
            )
        m = np.unique(np.geomspace(1, 2 * top, 200).astype(int))
        bound = [results.bound(dim, n) for n in m]
        panel.plot(m, bound, color=BOUND, linestyle="--", linewidth=1.0, label="Mercer bound")
        panel.fill_between(m, bound, color=BOUND, alpha=0.10, linewidth=0)
        panel.set(xscale="log", ylim=(0, 1.05), xlabel="features $m$", title=f"$d={dim}$")
    axes[0][0].set_ylabel("relative kernel error")
    _legend_below(figure, axes[0], results.names)
    return figure


def _kernel_errors(results: Results, name: str, dim: int) -> list[tuple[int, Estimate]]:
    """(m, kernel error) of every variant of a mechanism, by m."""
    points = []
    for variant in results.axis("quality", "variant", attention=name, head_dim=dim):
        where = {"attention": name, "head_dim": dim, "variant": variant}
        m = results.value("quality", "num_features", **where)
        error = results.value("quality", "kernel_error", **where)
        if isinstance(m, Estimate) and isinstance(error, Estimate):
            points.append((int(m.mean), error))
    return sorted(points, key=lambda point: point[0])


def scaling(results: Results) -> Figure:
    """Latency, peak memory and the ratio to `standard`, against the length."""
    panels = [
        ("latency_ms", "latency (ms)", 1.0),
        ("peak_memory_bytes", "peak memory above inputs (MiB)", 2.0**20),
        ("ratio", "latency / standard's", 1.0),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 2.4))
    for panel, (metric, label, unit) in zip(axes, panels, strict=True):
        for name in results.names:
            where = {"attention": name, "mode": "forward"}
            frame = results.select("scaling", metric, **where).drop_duplicates("seq_len")
            frame = frame.sort_values("seq_len")
            if frame.empty:
                continue
            colour, marker = look(name)
            panel.plot(
                frame["seq_len"], frame["mean"] / unit, color=colour, marker=marker, label=name
            )
            if metric != "peak_memory_bytes":
                low = results.select("scaling", f"{metric}_q1", **where)
                high = results.select("scaling", f"{metric}_q3", **where)
                low, high = (
                    f.drop_duplicates("seq_len").sort_values("seq_len") for f in (low, high)
                )
                panel.fill_between(
                    frame["seq_len"], low["mean"] / unit, high["mean"] / unit, color=colour,
                    alpha=0.15, linewidth=0,
                )  # fmt: skip
        lengths = sorted(results.axis("scaling", "seq_len", mode="forward"))
        panel.set(xscale="log", yscale="log", xlabel="sequence length $L$", ylabel=label)
        panel.set_xticks(lengths, [str(length) for length in lengths])
        panel.minorticks_off()
    axes[2].axhline(1.0, color="black", linewidth=0.5, linestyle=":")
    _legend_below(figure, list(axes), results.names)
    return figure


def tasks(results: Results) -> Figure:
    """Normalised score by mechanism and task."""
    columns = lengths(results)
    names = [name for name in results.names if name in results.axis("tasks", "attention")]
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
            j, i, f"{scores[i, j]:.2f}", ha="center", va="center", fontsize=5.5,
            color="white" if dark else "black",
        )  # fmt: skip
    usual = columns[0][1] if columns else 0
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


def _legend_below(figure: Figure, axes: list[Axes], names: list[str]) -> None:
    """One legend for all panels, each label once: the mechanisms in their order, then the rest."""
    handles: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = {name: place for place, name in enumerate(names)}
    handles = dict(sorted(handles.items(), key=lambda item: order.get(item[0], len(order))))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=7)


def _not_measured() -> Figure:
    figure, panel = plt.subplots(figsize=(COLUMN, 1.0))
    panel.text(0.5, 0.5, "not measured in this run", ha="center", va="center")
    panel.set_axis_off()
    return figure


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "quality": quality,
    "scaling": scaling,
    "tasks": tasks,
}
