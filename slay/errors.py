"""Errors that a user can mend, and one way to say that a name is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SlayError(ValueError):
    """An error the user can mend: shown as one line, without a traceback."""


class SlayWarning(UserWarning):
    """Something works, slower or otherwise than it could."""


class UnknownNameError(SlayError):
    """A name that is not in a known set."""


class UnknownOptionError(SlayError, TypeError):
    """A keyword that a mechanism does not have."""


def shown(value: object) -> str:
    """A value as an error shows it: in one line, its middle left out where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:60]}…{text[-20:]}"


def unknown(kind: str, name: object, allowed: Iterable[str], where: str = "") -> UnknownNameError:
    """Build the error for `name`, which is none of `allowed`, naming the nearest match.

    `kind` is what the name should have been ("task"), `where` the key or file it was found in.
    """
    allowed = sorted(allowed)
    near = get_close_matches(name[:100], allowed, n=1, cutoff=0.5) if isinstance(name, str) else []
    guess = f"; did you mean {near[0]!r}?" if near else ""
    place = f"{where}: " if where else ""
    there_are = f"(there are: {', '.join(allowed)})"
    return UnknownNameError(f"{place}unknown {kind} {shown(name)}{guess} {there_are}")
