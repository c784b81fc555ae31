"""Context that all templates share: the configuration and single numbers."""

from __future__ import annotations

from typing import Any

from slay.report.latex import Latex
from slay.report.published import printed
from slay.report.results import Results


def basic(results: Results) -> dict[str, Any]:
    """Return the context of a table: the configuration and single numbers."""
    return {
        "config": results.config,
        "draft": results.draft,
        "value": results.value,
        "worst": results.worst,
        "least": results.least,
        "beta": results.beta,
        "bound": results.bound,
        "tag": lambda name: Latex(f"\\protect\\hyperlink{{prov:{name}}}{{[{name}]}}"),
        "printed": printed(),
    }
