"""The table of mechanisms."""

from __future__ import annotations

from typing import Any

from slay.report.results import Results


def context(results: Results) -> dict[str, Any]:
    """Facts of each mechanism, as its class states them."""
    return {"rows": results.mechanisms}
