"""Human-readable views of tasks: a list, an example with token names, a Markdown page."""

from __future__ import annotations

from typing import Any

import torch

from slay.docstrings import docstring
from slay.registry import TASKS
from slay.task_groups import ATTENTION_CRITICAL, task_groups
from slay.tasks.base import IGNORE, Task
from slay.tasks.nulls import null_accuracies

LENGTH = 16  # of the page's examples
WIDTH = 96

INTRODUCTION = """\
# The synthetic tasks

This page is made by `slay tasks --markdown`, its examples by the generators themselves.

Each task is a pure function of a random generator, a batch and a length. It gives token sequences
and targets; a target is asked at some positions only, and only those are scored. What is asked can
be answered from the tokens up to and including the position, and every task has an *oracle* that
does so.

The *null* is the accuracy of the best predictor that looks at no context: the best constant, or the
best look-up by position, by the position's own token, or by both, fitted on one sample and scored
on another. Tables give the score (accuracy - null) / (1 - null) beside the accuracy. What `uniform`
attention solves needs no look-up either.

`slay tasks` lists the tasks, `slay tasks --show copy --seq-len 32` draws an example. In a
[configuration](../config/README.md) tasks are named one by one or by group: a category as
`memory/*`, the nine that need attention as `attention_critical`, the 22 of the study as `core`,
everything as `all`.

Data are drawn anew at every step, from a stream of their own for training, validation and test. The
model that is trained has attention and nothing else; `slay run tasks --help` has its settings."""


def definition(task: Task) -> str:
    """The task's docstring as one text, one line per paragraph."""
    paragraphs = docstring(type(task)).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def summary(task: Task) -> str:
    """The first line of the definition."""
    return definition(task).partition("\n")[0]


def facts(name: str) -> dict[str, Any]:
    """Facts about a task for lists."""
    task = TASKS.load(name)()
    return {
        "name": name,
        "category": task.category,
        "attention_critical": task.attention_critical,
        "lengths": task.lengths,
        "summary": summary(task),
    }


def drawing(task: Task, seq_len: int, *, seed: int = 0, width: int = WIDTH) -> str:
    """Return an example as text: token names, and below each the target, wrapped at `width`.

    Raises `SlayError` for a length that the task does not allow.
    """
    inputs, targets = task.sample(torch.Generator().manual_seed(seed), 1, seq_len)
    names = task.vocabulary(seq_len)
    rows = [
        [names[token] for token in inputs[0].tolist()],
        [names[answer] if answer != IGNORE else "." for answer in targets[0].tolist()],
    ]
    cell = 1 + max(len(text) for row in rows for text in row)
    per_line = max(1, (width - 6) // cell)
    blocks = []
    for start in range(0, seq_len, per_line):
        for label, row in zip(("input", "asked"), rows, strict=True):
            cells = (text.rjust(cell) for text in row[start : start + per_line])
            blocks.append(f"{label:6}{''.join(cells)}")
        blocks.append("")
    return "\n".join(blocks).rstrip()


def page() -> str:
    """Return the text of docs/tasks.md."""
    parts = [INTRODUCTION]
    for group, names in task_groups().items():
        if not group.endswith("/*"):
            continue
        parts.append(f"## {group.removesuffix('/*').replace('_', ' ').capitalize()}")
        parts += [_section(name) for name in names]
    return "\n\n".join(parts) + "\n"


def _section(name: str) -> str:
    task = TASKS.load(name)()
    asked = task.sample(torch.Generator().manual_seed(0), 64, LENGTH)[1] != IGNORE
    null = max(null_accuracies(task, LENGTH, seed=0).values())
    needs = " Needs attention." if name in ATTENTION_CRITICAL or task.attention_critical else ""
    return f"""\
### `{name}`

{definition(task)}

```text
{drawing(task, LENGTH)}
```

Lengths: {task.lengths}. At L = {LENGTH}: {task.vocab_size(LENGTH)} tokens, \
{asked.sum().item() / 64:.3g} questions a sequence, null {null:.2f}.{needs}"""
