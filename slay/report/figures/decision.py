"""Decision regions in the plane: which of five neurons has the largest kernel at a point."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from slay.report.figures.parts import grid, pictures
from slay.report.results import Results

EDGE = 2.0  # the plane is shown from -EDGE to EDGE
FINER = 4  # grid steps of the figure per grid step of the records
SHADES = ("#A6D8EC", "#F7EDBA", "#E3969C", "#6FA88F", "#8F6BA8")  # of distinct lightness


def draw(results: Results) -> Figure:
    """One panel per mechanism; contour lines are deciles of the winner's kernel.

    A neuron outside the frame is drawn at the nearest point of the frame.
    """
    points = pictures(results, "decision")
    figure, panels = grid(len(points), 3, 2.4)
    for panel, (name, p) in zip(panels, points.items(), strict=True):
        field = p.dropna(subset=["winner"])
        winner, kernel = (
            field.pivot_table(index="y", columns="x", values=v) for v in ("winner", "kernel")
        )
        x, y = (
            np.linspace(axis[0], axis[-1], FINER * (len(axis) - 1) + 1)
            for axis in (winner.columns.to_numpy(float), winner.index.to_numpy(float))
        )
        levels = np.unique(np.quantile(kernel, np.linspace(0.1, 0.9, 9)))
        middle = np.median(np.abs(kernel))
        fine, height = finer(winner.to_numpy(int), _tamed(kernel.to_numpy(), middle))
        panel.pcolormesh(
            x, y, fine, cmap=ListedColormap(SHADES), vmin=-0.5, vmax=4.5, alpha=0.7,
            shading="nearest", linewidth=0, rasterized=True,
        )  # fmt: skip
        panel.contour(
            x, y, height, levels=_tamed(levels, middle), colors="black", linewidths=0.4, alpha=0.6
        )
        neurons = p.dropna(subset=["neuron"])
        dots = neurons[["x", "y"]].to_numpy().clip(-EDGE, EDGE)
        from_dots = cKDTree(dots).query(np.dstack(np.meshgrid(x, y)))[0] / (x[1] - x[0])
        for region in np.unique(fine):
            inside = fine == region
            panel.contour(x, y, inside, levels=[0.5], colors="black", linewidths=0.6)
            from_border = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
            row, column = divmod(np.minimum(from_border, from_dots).argmax(), len(x))
            _write(panel, x[column], y[row], region, 9)
        for number, at in zip(neurons["neuron"], dots, strict=True):
            panel.plot(
                *at, "o", color=SHADES[int(number)], markeredgecolor="black", markersize=7.5,
                clip_on=False, zorder=3,
            )  # fmt: skip
            _write(panel, at[0], at[1], int(number), 5.5)
        panel.set(title=name, aspect="equal", xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE))
        panel.set(xticks=range(-2, 3), yticks=range(-2, 3))
    return figure


def _tamed(values: NDArray[np.float64], middle: float) -> NDArray[np.float64]:
    """Map values monotonically to (-1, 1): smooth at a peak like that of 1 / (eps + r^2)."""
    return values / (middle + np.abs(values))


def _write(panel: Axes, x: float, y: float, neuron: int, size: float) -> None:
    """Write a neuron's number, counted from 1."""
    panel.text(
        x, y, str(neuron + 1), size=size, ha="center", va="center_baseline", zorder=4,
        path_effects=[withStroke(linewidth=1.5, foreground="white", alpha=0.7)],
    )  # fmt: skip


def finer(
    winner: NDArray[np.int_], values: NDArray[np.float64]
) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Interpolate winners and their values on a grid: (n, m) to (FINER (n - 1) + 1, ...).

    A neuron's values are known where it wins and are extrapolated smoothly beyond; between grid
    points with different winners, both are extrapolated, and the larger value wins.
    """
    n, m = winner.shape
    rows, columns = (np.arange(FINER * (size - 1) + 1) / FINER for size in (n, m))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    best = np.full(len(places), -np.inf)
    fine = np.zeros(len(places), dtype=int)
    for neuron in np.unique(winner):
        known = np.argwhere(winner == neuron)
        near = cKDTree(known).query(places)[0] <= 1.0
        value = _carried(places[near], known, values[winner == neuron])
        larger = value > best[near]
        fine[np.flatnonzero(near)[larger]] = neuron
        best[np.flatnonzero(near)[larger]] = value[larger]
    shape = (len(rows), len(columns))
    return fine.reshape(shape), best.reshape(shape)


def _carried(
    places: NDArray[np.float64], known: NDArray[np.int_], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values at `places`, by a least-squares quadratic through the twelve nearest known ones."""
    near = cKDTree(known).query(places, k=range(1, 1 + min(12, len(known))))[1]
    u, v = np.moveaxis(known[near] - places[:, None], -1, 0) / 100  # small: prefers low degrees
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
    return np.einsum("pk,pk->p", np.linalg.pinv(terms)[:, 0], values[near])
