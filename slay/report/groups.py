"""Groups of tasks that a run has all of, and how many tasks of a group are solved."""

from __future__ import annotations

from slay.report.results import Missing, Results
from slay.report.scores import lengths
from slay.task_groups import task_groups

SOLVED = 0.9


def complete(results: Results) -> dict[str, list[str]]:
    """The groups of which this run has all tasks, without those that are made of others."""
    there = {task for task, _ in lengths(results)}
    return {
        name.removesuffix("/*"): tasks
        for name, tasks in task_groups().items()
        if name not in ("core", "all") and there.issuperset(tasks)
    }


def solved(results: Results, attention: str, group: str) -> int | Missing:
    """How many tasks of a group have a mean accuracy of 0.9 or more, each at its first length."""
    first = dict(reversed(lengths(results)))
    count = 0
    for task in task_groups()[group]:
        where = {"attention": attention, "task": task, "seq_len": first.get(task)}
        accuracy = results.value("tasks", "accuracy", **where)
        if isinstance(accuracy, Missing):
            return accuracy
        count += accuracy.mean >= SOLVED
    return count
