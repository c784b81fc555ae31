"""The table of the longest context in a memory budget."""

from __future__ import annotations

from typing import Any

from slay.report.results import Results
from slay.report.tables.parts import measured


def context(results: Results) -> dict[str, Any]:
    """The longest context in each memory budget, and the number of lengths tried for it."""
    budgets = sorted(results.axis("max_context", "memory_mb"))
    rows = [
        {
            "name": name,
            "cells": [
                {
                    metric: results.value("max_context", metric, attention=name, memory_mb=budget)
                    for metric in ("longest", "capped", "probes")
                }
                for budget in budgets
            ],
        }
        for name in measured(results, "max_context")
    ]
    return {"budgets": budgets, "rows": rows}
