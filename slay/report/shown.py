"""Tables and figures of which a run has nothing: how they say so, and how the paper notices."""

from __future__ import annotations

from pathlib import Path

NOTHING = "not measured in this run"


def empty_table() -> str:
    """The LaTeX of a table without rows."""
    return f"% {NOTHING}\n"


def has_table(path: Path) -> bool:
    """Whether a table was made and has rows."""
    return path.is_file() and path.read_text(encoding="utf-8") != empty_table()


def has_figure(path: Path) -> bool:
    """Whether a figure was drawn and has something to show: its PDF names its subject."""
    return path.is_file() and f"({NOTHING})".encode() not in path.read_bytes()
