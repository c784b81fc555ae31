"""Synthetic tasks: what a mechanism must be able to look up, and what it need not.

`get_task(name)` returns a `slay.tasks.base.Task`. The modules here know no model.
"""

from __future__ import annotations

from typing import Any

from slay.registry import TASKS


def get_task(name: str) -> Any:
    """Return the task of that name. Raises `UnknownNameError`."""
    return TASKS.load(name)()


def list_tasks() -> list[str]:
    """Return the names of all tasks."""
    return TASKS.names()
