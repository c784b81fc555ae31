"""Groups of tasks that are complete in a run, and the number of solved tasks in a group."""

from __future__ import annotations

from slay.report.results import Missing, Results
from slay.report.scores import lengths
from slay.task_groups import task_groups

SOLVED = 0.9


def complete(results: Results) -> dict[str, list[str]]:
    """Groups whose tasks are all in this run, except the unions "core" and "all"."""
    there = {task for task, _ in lengths(results)}
    return {
        name.removesuffix("/*"): tasks
        for name, tasks in task_groups().items()
        if name not in ("core", "all") and there.issuperset(tasks)
    }


def solved(results: Results, attention: str, group: str) -> int | Missing:
    """Number of tasks of a group with a mean accuracy of at least 0.9, each at its first length."""
    first = dict(reversed(lengths(results)))
    count = 0
    for task in task_groups()[group]:
        where = {"attention": attention, "task": task, "seq_len": first.get(task)}
        accuracy = results.value("tasks", "accuracy", **where)
        if isinstance(accuracy, Missing):
            return accuracy
        count += accuracy.mean >= SOLVED
    return count
