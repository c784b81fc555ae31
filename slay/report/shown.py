"""Empty tables and figures: their placeholders, and how the paper recognises them."""

from __future__ import annotations

from pathlib import Path

NOTHING = "not measured in this run"


def empty_table() -> str:
    """The LaTeX of a table without rows."""
    return f"% {NOTHING}\n"


def has_table(path: Path) -> bool:
    """Return True if a table was made and has rows."""
    return path.is_file() and path.read_text(encoding="utf-8") != empty_table()


def has_figure(path: Path) -> bool:
    """Return True if a figure was drawn and is not empty, as the subject in its PDF says."""
    return path.is_file() and f"({NOTHING})".encode() not in path.read_bytes()
