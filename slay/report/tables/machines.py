"""The table of machines, published runs and the original study among them."""

from __future__ import annotations

from typing import Any

from slay.report.machines import PRINTED, by_machine
from slay.report.results import Results


def context(results: Results) -> dict[str, Any]:
    """Latency and memory of the forward pass by machine, mechanism and length."""
    rows: list[dict[str, Any]] = [
        {
            "metric": metric,
            "device": device,
            "printed": device.startswith(PRINTED),
            "name": name,
            "points": points,
        }
        for metric in UNITS
        for device, cells in by_machine(results, metric).items()
        for name, points in cells.items()
    ]
    lengths = sorted({n for row in rows for n in row["points"]})
    return {"rows": rows, "lengths": lengths, "units": UNITS}


UNITS = {"latency_ms": "ms", "peak_memory_bytes": "MiB"}
