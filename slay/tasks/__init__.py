"""Synthetic tasks that test what a mechanism can look up in its context.

`get_task(name)` returns a `slay.tasks.base.Task`. The modules here do not depend on any model.
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
