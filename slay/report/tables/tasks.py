"""The table of scores by group of tasks."""

from __future__ import annotations

from typing import Any

from slay.report import groups, scores
from slay.report.results import Results
from slay.report.tables.parts import measured


def context(results: Results) -> dict[str, Any]:
    """Mean normalised score by group of tasks, and number of attention-critical tasks solved."""
    there = groups.complete(results)
    rows = [
        {
            "name": name,
            "cells": [scores.mean_score(results, name, tasks) for tasks in there.values()],
            "solved": groups.solved(results, name, "attention_critical"),
        }
        for name in measured(results, "tasks")
    ]
    sizes = {name: len(tasks) for name, tasks in there.items()}
    return {"groups": sizes, "rows": rows}
