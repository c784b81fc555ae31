"""Docstrings that are printed, available under `python -OO` too."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from typing import Any


def docstring(thing: Any) -> str:
    """Return the dedented docstring of a class or function; "" if it has none."""
    if sys.flags.optimize < 2:
        return inspect.getdoc(thing) or ""
    owners = [cls for cls in getattr(thing, "__mro__", [thing]) if cls is not object]
    return next(filter(None, map(_in_source, owners)), "")


def _in_source(thing: Any) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    except (OSError, TypeError):  # no source available
        return ""
    definition = ast.parse(source).body[0]
    kinds = ast.ClassDef | ast.FunctionDef
    return (ast.get_docstring(definition) or "") if isinstance(definition, kinds) else ""
