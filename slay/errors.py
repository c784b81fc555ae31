"""Errors that a user can fix, and the error for an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from math import inf
from numbers import Real
from operator import index
from typing import Any


class SlayError(ValueError):
    """An error the user can fix: shown as one line, without a traceback."""


class SlayWarning(UserWarning):
    """Something works, but more slowly or differently than it could."""


class UnknownNameError(SlayError):
    """A name that is not in a known set."""


class UnknownOptionError(SlayError, TypeError):
    """A keyword that a mechanism does not have."""


def shown(value: object) -> str:
    """Format a value for an error message: one line, long values abbreviated in the middle."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to format integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:60]}…{text[-20:]}"


def unknown(kind: str, name: object, allowed: Iterable[str], where: str = "") -> UnknownNameError:
    """Build the error for a `name` that is not in `allowed`, suggesting the nearest match.

    `kind` is what the name should have been ("task"), `where` the key or file it was found in.
    """
    allowed = sorted(allowed)
    near = get_close_matches(name[:100], allowed, n=1, cutoff=0.5) if isinstance(name, str) else []
    guess = f"; did you mean {near[0]!r}?" if near else ""
    place = f"{where}: " if where else ""
    there_are = f"(there are: {', '.join(allowed)})"
    return UnknownNameError(f"{place}unknown {kind} {shown(name)}{guess} {there_are}")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a Python or NumPy integer, at least `least`, as an int; raises `SlayError`."""
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        above = "" if least is None else f", at least {least}"
        raise SlayError(f"{name} = {shown(value)}: must be a whole number{above}")
    return number


def positive(name: str, value: Any) -> float:
    """Return a finite Python or NumPy number above 0 as a float; raises `SlayError`."""
    if not _number(value) or not 0 < value < inf:
        raise SlayError(f"{name} = {shown(value)}: must be positive and finite")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """Return a finite number of at least 0 as a float; raises `SlayError`."""
    if not _number(value) or not 0 <= value < inf:
        raise SlayError(f"{name} = {shown(value)}: must be a number, and not negative")
    return float(value)


def share(name: str, value: Any) -> float:
    """Return a number in [0, 1), such as a dropout rate, as a float; raises `SlayError`."""
    if not _number(value) or not 0 <= value < 1:
        raise SlayError(f"{name} = {shown(value)}: must be at least 0 and below 1")
    return float(value)


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
