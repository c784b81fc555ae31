"""The table of normalisers."""

from __future__ import annotations

from typing import Any

from slay.report.results import Results
from slay.report.tables.parts import measured


def context(results: Results) -> dict[str, Any]:
    """Sign and size of the normaliser by mechanism and inputs, with the distance of the rows."""
    kinds = results.axis("quality", "inputs")
    metrics = ("nonpositive_share", "min_normaliser", "row_tv")
    rows = [
        {
            "name": name,
            "cells": [
                {
                    metric: results.value(
                        "quality", metric, attention=name, inputs=inputs, head_dim=32
                    )
                    for metric in metrics
                }
                for inputs in kinds
            ],
        }
        for name in measured(results, "quality")
    ]
    return {"kinds": kinds, "rows": rows}
