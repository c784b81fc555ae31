"""The table of latency and memory of the forward pass."""

from __future__ import annotations

from typing import Any

from slay.report import scores
from slay.report.results import Results
from slay.report.tables.parts import measured


def context(results: Results) -> dict[str, Any]:
    """Latency, ratio to `standard` and memory at each length, with fitted growth."""
    lengths = sorted(results.axis("scaling", "seq_len", mode="forward"))
    rows = []
    for name in measured(results, "scaling"):
        where = {"attention": name, "mode": "forward"}
        rows.append(
            {
                "name": name,
                "cells": [
                    {
                        metric: results.value("scaling", metric, seq_len=length, **where)
                        for metric in ("latency_ms", "ratio", "peak_memory_bytes")
                    }
                    for length in lengths
                ],
                "time_growth": scores.growth(results, name, "latency_ms"),
                "memory_growth": scores.growth(results, name, "peak_memory_bytes"),
            }
        )
    return {"lengths": lengths, "rows": rows}
