"""Docstrings of code that prints them, also where `python -OO` leaves them out."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from typing import Any


def docstring(thing: Any) -> str:
    """The docstring of a class or function without its indentation; "" if it has none."""
    if sys.flags.optimize < 2:
        return inspect.getdoc(thing) or ""
    owners = [cls for cls in getattr(thing, "__mro__", [thing]) if cls is not object]
    return next(filter(None, map(_in_source, owners)), "")


def _in_source(thing: Any) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    except (OSError, TypeError):  # it has none
        return ""
    definition = ast.parse(source).body[0]
    kinds = ast.ClassDef | ast.FunctionDef
    return (ast.get_docstring(definition) or "") if isinstance(definition, kinds) else ""
