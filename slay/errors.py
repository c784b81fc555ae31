"""One way to say that a name is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SlayError(ValueError):
    """An error the user can mend: shown as one line, without a traceback."""


class UnknownNameError(SlayError):
    """A name that is not in a known set."""


class UnknownOptionError(SlayError, TypeError):
    """A keyword that a mechanism does not have."""


def unknown(kind: str, name: object, allowed: Iterable[str], where: str = "") -> UnknownNameError:
    """Build the error for `name`, which is none of `allowed`, naming the nearest match.

    `kind` is what the name should have been ("task"), `where` the key or file it was found in.
    """
    allowed = sorted(allowed)
    near = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    place = f"{where}: " if where else ""
    there_are = f"(there are: {', '.join(allowed)})"
    return UnknownNameError(f"{place}unknown {kind} {name!r}{guess} {there_are}")
