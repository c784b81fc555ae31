"""Facts about a mechanism for the tables and `docs/mechanisms.md`, read from its class."""

from __future__ import annotations

import inspect
from typing import Any

from slay.attention.layer import Attention, options_of
from slay.docstrings import docstring
from slay.registry import ATTENTION, get_attention_class


def facts(name: str, head_dim: int) -> dict[str, Any]:
    """Kernel, cost, number of features and state size of a mechanism at a head dimension."""
    cls = get_attention_class(name)
    one_head = cls.heads_only(head_dim, 1)
    return {
        "name": ATTENTION.canonical(name),
        "module": cls.__module__,
        "kernel": cls.kernel,
        "complexity": cls.complexity,
        "exact": cls.exact,
        "nonnegative": cls.nonnegative,
        "paper": cls.paper,
        "head_dim": head_dim,
        "num_features": getattr(one_head, "num_features", None),
        "state_size": one_head.state_size(head_dim),
    }


PAGE = """\
# Mechanisms

<!-- Written by `slay mechanisms --markdown > docs/mechanisms.md` from the classes themselves. -->

What `slay.attend` and `slay.get_attention_class` know by name. $`d`$ is the head dimension,
$`\\hat q = q/\\lVert q\\rVert`$ and $`x = \\hat q^\\top\\hat k`$; $`m`$ is the number of
features, and the state what a head carries from token to token, in numbers, both at
$`d = {head_dim}`$. Where the kernel is marked ≈, features approximate it. Scores of those marked ±
can be negative: their sum can come near zero, and outputs then leave the range of the values.

| name | kernel | | cost | $`m`$ | state |
|---|---|---|---|--:|--:|
{rows}

## Options of every mechanism

{shared}
{sections}
## Families

What the mechanisms above have in common.
{families}"""
ROW = "| [`{name}`](#{name}) | $`{kernel}`$ | {mark} | $`O({complexity})`$ | {m} | {state} |"


def page(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown page of the mechanisms: facts, definitions and options."""
    shared = docstring(Attention).split("\n\n")[2]
    families = dict.fromkeys(f for row in rows for f in _families(get_attention_class(row["name"])))
    return PAGE.format(
        head_dim=rows[0]["head_dim"],
        rows="\n".join(map(_row, rows)),
        shared=shared,
        sections="".join(_section(row) for row in rows),
        families="".join(f"\n### {cls.__name__}\n\n{docstring(cls)}\n" for cls in families),
    )


def _row(row: dict[str, Any]) -> str:
    """Row of the Markdown table; bars are replaced, because they would end a cell."""
    values = {
        **row,
        "kernel": row["kernel"].replace(r"\|", r"\Vert ").replace("|", r"\vert "),
        "mark": ("" if row["exact"] else "≈") + ("" if row["nonnegative"] else "±"),
        "m": "–" if row["num_features"] is None else f"{row['num_features']:,}",
        "state": "grows" if row["state_size"] is None else f"{row['state_size']:,}",
    }
    return ROW.format(**values)


def _section(row: dict[str, Any]) -> str:
    cls = get_attention_class(row["name"])
    shared = options_of(Attention)  # type: ignore[type-abstract]
    own = [f"`{name}={value!r}`" for name, value in options_of(cls).items() if name not in shared]
    families = [f"[{f.__name__}](#{f.__name__.lower()})" for f in _families(cls)]
    lines = {
        "Also called": ", ".join(f"`{alias}`" for alias in ATTENTION.aliases(row["name"])),
        "Options": ", ".join(own),
        "Is a": ", ".join(families),
        "Source": f"[`{row['module']}`](../{row['module'].replace('.', '/')}.py)",
        "Cited as": row["paper"] and f"[`{row['paper']}`](../paper/references.bib)",
    }
    items = "\n".join(f"- {title}: {text}" for title, text in lines.items() if text)
    return f"\n## {row['name']}\n\n{docstring(cls)}\n\n{items}\n"


def _families(cls: type[Attention]) -> list[type[Attention]]:
    """Abstract base classes of a mechanism, nearest first."""
    above = (c for c in cls.__mro__[1:] if issubclass(c, Attention) and c is not Attention)
    return [c for c in above if inspect.isabstract(c)]
