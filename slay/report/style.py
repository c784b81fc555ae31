"""Style of all figures: a mechanism has the same colour, marker and position in each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

os.environ["MPLBACKEND"] = "Agg"  # importing fails if a user's own is not installed

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay import files

COLUMN, PAGE = 3.35, 7.0  # widths in inches: one column, the text of a page


class Look(NamedTuple):
    """Style of a mechanism; in greyscale, marker and dashes distinguish it from any other."""

    colour: str
    marker: str
    filled: bool = True
    dashes: tuple[float, ...] = ()  # on and off lengths in line widths; empty: solid


# Okabe and Ito's palette, which colour-blind readers can tell apart, for the mechanisms in most
# figures; the others have colours distinct from these.
LOOKS = {
    "standard": Look("#000000", "o"),
    "yat": Look("#AA4499", "d", dashes=(4, 1, 1, 1, 1, 1)),
    "yat-spherical": Look("#CC79A7", "D", filled=False, dashes=(5, 1.2, 1, 1.2)),
    "uniform": Look("#7f7f7f", "x", dashes=(1, 1.2)),
    "linear": Look("#E69F00", "s", filled=False, dashes=(3, 1.2)),
    "performer": Look("#B8860B", "P", dashes=(2, 1)),
    "cosformer": Look("#8C6D31", "+", dashes=(1, 2.4)),
    "rff": Look("#999933", "X", filled=False, dashes=(5, 3)),
    "yat-performer": Look("#56B4E9", "<", filled=False, dashes=(2, 1, 1, 1)),
    "yat-performer-laplace": Look("#332288", ">", dashes=(3, 1, 3, 1, 1, 1)),
    "yat-performer-nystrom": Look("#44AA99", "D", dashes=(6, 1, 1, 1, 1, 1)),
    "yat-performer-tensor": Look("#117733", "s", dashes=(8, 1.5, 2, 1.5)),
    "yat-performer-rm": Look("#009E73", "o", filled=False, dashes=(2, 3)),
    "yat-performer-anchor": Look("#0072B2", "^"),
    "yat-quadratic": Look("#D55E00", "v", dashes=(6, 1.2)),
    "yat-cubic": Look("#882255", "v", filled=False, dashes=(10, 1.2, 1, 1.2)),
}
SPARE = [
    Look("#CC6677", "$1$"),
    Look("#6699CC", "$2$"),
    Look("#997700", "$3$"),
    Look("#666666", "$4$"),
]
BOUND = "#555555"  # colour of lower bounds

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
    "lines.markeredgewidth": 0.8,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
}


def look(name: str) -> Look:
    """Look of a mechanism; one that is not in the table gets a spare look chosen by its name."""
    return LOOKS.get(name) or SPARE[sum(map(ord, name)) % len(SPARE)]


def form(name: str) -> dict[str, Any]:
    """Look of a mechanism as options of `Axes.plot`."""
    colour, marker, filled, dashes = look(name)
    return {
        "color": colour,
        "marker": marker,
        "markerfacecolor": colour if filled else "white",
        "linestyle": (0, dashes) if dashes else "-",
        "label": name,
    }


def curve(name: str, points: int, marks: int = 6) -> dict[str, Any]:
    """As `form`, for a curve of many points: few markers, at positions specific to the name."""
    step = max(1, points // marks)
    place = sum(map(ord, name)) % step
    return form(name) | {"markevery": (place, step)}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style to the figures drawn inside, without a user's matplotlibrc."""
    with plt.style.context(cast(Any, ["default", RC])):
        yield


def save(figure: Figure, path: Path, subject: str) -> None:
    """Write a figure as PDF and PNG, without a date: the same numbers give the same bytes.

    The subject is in the PDF's metadata.
    """
    pdf, png = BytesIO(), BytesIO()
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Subject": subject})
    figure.savefig(png, format="png", dpi=200, metadata={"Software": ""})
    plt.close(figure)
    files.write(path, pdf.getvalue())
    files.write(path.with_suffix(".png"), png.getvalue())
