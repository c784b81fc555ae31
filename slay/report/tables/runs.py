"""The table that compares runs."""

from __future__ import annotations

import re
from typing import Any

from slay.report.keys import keys
from slay.report.latex import Latex, escape
from slay.report.machines import device_name
from slay.report.published import others, printed
from slay.report.results import Missing, Results


def context(results: Results) -> dict[str, Any]:
    """Key numbers of this run, of the published runs and of the original study."""
    every = [results, *others(results)]
    rows = []
    for key in keys(printed()):
        cells = [key.find(run) for run in every]
        if not all(isinstance(cell, Missing) for cell in cells):
            what = re.sub(r"\b([a-z]) = (\d+)", r"$\1=\2$", escape(key.what))
            rows.append({"what": Latex(what), "key": key, "cells": cells})
    return {"rows": rows, "devices": [device_name(run) for run in every]}
