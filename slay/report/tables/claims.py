"""The tables of claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from slay.report.context import whole
from slay.report.results import Results


def context(results: Results, env: jinja2.Environment, templates: Path) -> dict[str, Any]:
    """The context of the paper, which includes the verdicts."""
    return whole(results, env, templates)
