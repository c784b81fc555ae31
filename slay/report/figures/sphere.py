"""The kernel of a fixed key over the sphere in three dimensions, and its polar profile."""

from __future__ import annotations

from math import ceil

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from slay.report.figures.parts import pictures
from slay.report.results import Results
from slay.report.style import PAGE, curve

FLOOR = 1e-4  # where the scales begin


def draw(results: Results) -> Figure:
    """Maps with the key at the north pole; the profile is the great circle through the pole."""
    points = pictures(results, "sphere")
    rows = ceil((len(points) + 1) / 4)
    columns = ceil((len(points) + 1) / rows)
    figure = plt.figure(figsize=(PAGE, 1.6 * rows))
    for place, (name, p) in enumerate(points.items(), 1):
        panel = figure.add_subplot(rows, columns, place, projection="mollweide")
        kernel = p.pivot_table(index="theta", columns="phi", values="kernel")
        image = panel.pcolormesh(
            kernel.columns.to_numpy() - np.pi,
            np.pi / 2 - kernel.index.to_numpy(),  # latitude
            kernel.clip(lower=FLOOR).to_numpy(),
            norm=LogNorm(FLOOR, 1),
            cmap="cividis",
            shading="gouraud",
            rasterized=True,
        )
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title(name)
    bar = figure.colorbar(image, ax=figure.axes, fraction=0.02, pad=0.01, location="left")
    bar.set_label("kernel over its largest value")
    polar = figure.add_subplot(rows, columns, len(points) + 1, projection="polar")
    assert isinstance(polar, PolarAxes)
    for name, p in points.items():
        near = p[np.isclose(p["phi"], 0)].sort_values("theta")
        far = p[np.isclose(p["phi"], np.pi, atol=1e-4)].sort_values("theta", ascending=False)
        angle = np.r_[near["theta"], 2 * np.pi - far["theta"]]
        kernel = np.r_[near["kernel"], far["kernel"]].clip(FLOOR)
        form = curve(name, len(angle), marks=8)
        polar.plot(angle, np.log10(kernel / FLOOR), linewidth=0.9, markersize=3, **form)
    polar.set_theta_zero_location("N")
    polar.set_rticks([1, 2, 3, 4], [""] * 4)
    polar.set_xticks(np.radians([0, 90, 180, 270]), ["0°", "90°", "180°", "270°"])
    polar.tick_params(labelsize=6, pad=-2)
    polar.set_title(r"profile, $\log k$")
    return figure
