"""One look for every figure: a mechanism keeps its colour, marker and place throughout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLUMN, PAGE = 3.35, 7.0  # widths in inches: one column, the text of a page

# Okabe and Ito's palette, which colour-blind readers can tell apart, for the mechanisms that most
# pictures show; the others take shades that are apart from these. Markers differ for grey print.
LOOKS = {
    "standard": ("#000000", "o"),
    "yat": ("#AA4499", "d"),
    "yat-spherical": ("#CC79A7", "D"),
    "uniform": ("#7f7f7f", "x"),
    "linear": ("#E69F00", "s"),
    "performer": ("#B8860B", "P"),
    "cosformer": ("#8C6D31", "+"),
    "rff": ("#999933", "X"),
    "yat-performer": ("#56B4E9", "<"),
    "yat-performer-laplace": ("#332288", ">"),
    "yat-performer-nystrom": ("#44AA99", "p"),
    "yat-performer-tensor": ("#117733", "*"),
    "yat-performer-rm": ("#009E73", "2"),
    "yat-performer-anchor": ("#0072B2", "^"),
    "yat-quadratic": ("#D55E00", "v"),
    "yat-cubic": ("#882255", "1"),
}
SPARE = [("#CC6677", "$1$"), ("#6699CC", "$2$"), ("#997700", "$3$"), ("#666666", "$4$")]
BOUND = "#555555"  # what no mechanism can be below

RC: dict[str, Any] = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
}


def look(name: str) -> tuple[str, str]:
    """Colour and marker of a mechanism; one that is not in the table gets its own by its name."""
    return LOOKS.get(name) or SPARE[sum(map(ord, name)) % len(SPARE)]


def curve(name: str, points: int, marks: int = 6) -> dict[str, Any]:
    """How a mechanism's curve of many points is drawn: with a few markers, at places of its own."""
    colour, marker = look(name)
    step = max(1, points // marks)
    place = sum(map(ord, name)) % step
    return {"color": colour, "marker": marker, "markevery": (place, step), "label": name}


@contextmanager
def styled() -> Iterator[None]:
    """The style, for the figures drawn inside."""
    with mpl.rc_context(cast(Any, RC)):
        yield


def save(figure: Figure, path: Path, subject: str) -> None:
    """Write a figure as PDF and PNG, without a date: the same numbers give the same bytes.

    The PDF names its subject.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"CreationDate": None, "Subject": subject})
    figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": ""})
    plt.close(figure)
