"""Shell completion for arguments and options that take names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem


class Name(click.ParamType):
    """A parameter type that completes from the names that a function returns."""

    name = "name"

    def __init__(self, names: Callable[[], Iterable[str]]):
        self.names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


def _mechanisms() -> list[str]:
    from slay.registry import ATTENTION

    return ATTENTION.names()


def _tasks() -> list[str]:
    from slay.registry import TASKS

    return TASKS.names()


def _tasks_and_groups() -> list[str]:
    from slay.task_groups import task_groups

    return [*_tasks(), *task_groups()]


def _tables() -> list[str]:
    from slay.report.sources import TABLES

    return list(TABLES)


def _figures() -> list[str]:
    from slay.report.sources import FIGURES

    return list(FIGURES)


MECHANISM, TASK, TASKS_OR_GROUPS = Name(_mechanisms), Name(_tasks), Name(_tasks_and_groups)
TABLE, FIGURE = Name(_tables), Name(_figures)


def completed(command: click.Command) -> click.Command:
    """Enable completion of names for a command whose flags were generated from a class."""
    kinds = {"attention": MECHANISM, "task": TASK}
    for option in command.params:
        option.type = kinds.get(option.name or "", option.type)
    return command
