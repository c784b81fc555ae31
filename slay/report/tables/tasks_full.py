"""The table of accuracies by task."""

from __future__ import annotations

from typing import Any

from slay.report import scores
from slay.report.results import Results
from slay.report.tables.parts import measured


def context(results: Results) -> dict[str, Any]:
    """Accuracy by task and mechanism, the null, and the cells that do not differ from softmax."""
    names = measured(results, "tasks")
    alike = scores.like_baseline(results)
    rows = []
    for task, length in scores.lengths(results):
        where = {"task": task, "seq_len": length}
        cells = [
            {
                "accuracy": results.value("tasks", "accuracy", attention=name, **where),
                "alike": (name, task, length) in alike,
            }
            for name in names
        ]
        null = results.value("tasks", "null", **where)
        rows.append({"task": task, "length": length, "null": null, "cells": cells})
    return {"names": names, "rows": rows}
