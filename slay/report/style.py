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

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ for grey print.
LOOKS = {
    "standard": ("#000000", "o"),
    "uniform": ("#7f7f7f", "x"),
    "linear": ("#E69F00", "s"),
    "yat-spherical": ("#CC79A7", "D"),
    "yat-performer-anchor": ("#0072B2", "^"),
    "yat-quadratic": ("#D55E00", "v"),
}
SPARE = [("#009E73", "P"), ("#56B4E9", "X"), ("#A6761D", "*"), ("#666666", "h")]

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


@contextmanager
def styled() -> Iterator[None]:
    """The style, for the figures drawn inside."""
    with mpl.rc_context(cast(Any, RC)):
        yield


def save(figure: Figure, path: Path, epoch: int) -> None:
    """Write a figure as PDF and PNG, dated by its data: the same data give the same bytes."""
    from datetime import UTC, datetime

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"CreationDate": datetime.fromtimestamp(epoch, UTC)})
    figure.savefig(path.with_suffix(".png"), dpi=200, metadata={"Software": ""})
    plt.close(figure)
