"""`slay mechanisms` and `slay tasks`: list mechanisms and tasks."""

from __future__ import annotations

import click

import slay
from slay.cli.names import MECHANISM, TASK, TASKS_OR_GROUPS
from slay.pipeline.plugins import PLUGIN


@click.command()
@click.argument("names", nargs=-1, type=MECHANISM)
@click.option("--head-dim", default=32, show_default=True, help="Head dimension d for the sizes.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--markdown", is_flag=True, help="As a page, with definitions and options.")
def mechanisms(names: tuple[str, ...], as_json: bool, markdown: bool, head_dim: int) -> None:
    """List the attention mechanisms with their facts.

    NAMES are the mechanisms to list, by default all. m is the number of features; the state is the
    number of elements in a head's recurrent state.

    \b
    slay mechanisms
    slay mechanisms yat-quadratic yat-cubic --head-dim 64
    """
    from slay.attention.facts import facts, page

    rows = [facts(name, head_dim) for name in names or slay.list_attention_types()]
    if markdown:
        click.echo(page(rows), nl=False)
        return
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
        return
    form = "{:22} {:8} {:>6} {:>10}  {:12} {}"
    click.echo(form.format("name", "cost", "m", "state", "scores >= 0", "defined in"))
    for row in rows:
        click.echo(
            form.format(
                row["name"],
                f"O({row['complexity']})",
                row["num_features"] or "-",
                row["state_size"] or "grows",
                "yes" if row["nonnegative"] else "no",
                row["module"],
            )
        )


mechanisms.params.append(PLUGIN)


@click.command()
@click.argument("names", nargs=-1, type=TASKS_OR_GROUPS)
@click.option("--show", type=TASK, help="Draw an example of one task.")
@click.option("--seq-len", default=16, show_default=True, help="Length of the example.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32), default=0, show_default=True, help="Of the example."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--markdown", is_flag=True, help="As a page, with an example of each.")
def tasks(
    names: tuple[str, ...], show: str | None, seq_len: int, seed: int, as_json: bool, markdown: bool
) -> None:
    """List the synthetic tasks, or draw an example of one.

    NAMES are tasks or groups of tasks: a category as 'memory/*', attention_critical, core, all.

    \b
    slay tasks
    slay tasks 'memory/*' induction
    slay tasks --show induction --seq-len 24
    """
    from itertools import groupby

    from slay.task_groups import expand_tasks
    from slay.tasks import page

    if show is not None:
        import shutil

        task = slay.get_task(show)
        width = min(shutil.get_terminal_size((page.WIDTH, 24)).columns, 160)
        drawn = page.drawing(task, seq_len, seed=seed, width=width)
        click.echo(f"{page.definition(task)}\n\n{drawn}")
        return
    if markdown:
        click.echo(page.page(), nl=False)
        return
    wanted = expand_tasks(list(names) or ["all"])
    rows = [page.facts(name) for name in slay.list_tasks() if name in wanted]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
        return
    for category, members in groupby(rows, lambda row: row["category"]):
        click.echo(category)
        for row in members:
            needs = "*" if row["attention_critical"] else " "
            click.echo(f"  {row['name']:22}{needs} {row['lengths']:22}  {row['summary']}")
    click.echo("\n* needs attention: no average solves it")
