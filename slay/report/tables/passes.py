"""The table of training passes and decoding."""

from __future__ import annotations

from typing import Any

from slay.report.results import Estimate, Results


def context(results: Results) -> dict[str, Any]:
    """Latency and ratio of the timed modes other than the forward pass, by mode and length."""
    columns = [
        (mode, length)
        for mode in results.axis("scaling", "mode")
        if mode != "forward"
        for length in sorted(results.axis("scaling", "seq_len", mode=mode))
    ]
    rows = []
    for name in results.names:
        cells = [
            {
                metric: results.value("scaling", metric, attention=name, mode=mode, seq_len=length)
                for metric in ("latency_ms", "ratio", "tokens_per_second")
            }
            for mode, length in columns
        ]
        if any(isinstance(cell["latency_ms"], Estimate) for cell in cells):
            rows.append({"name": name, "cells": cells})
    return {"columns": columns, "rows": rows}
