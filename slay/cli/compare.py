"""`slay stale` and `slay diff`: due measurements of a run, and differences between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from slay.cli.group import FILE, FOLDER
from slay.errors import SlayError

if TYPE_CHECKING:
    from slay.report.results import Results


def _default_file() -> Path:
    from slay.pipeline.config import default_file

    return default_file()


@click.command()
@click.option(
    "--configfile",
    type=FILE,
    default=_default_file,
    show_default="config/config.yaml",
    help="The run's configuration.",
)
@click.option("--jobs", "each", is_flag=True, help="A line for every measurement.")
def stale(configfile: Path, each: bool) -> None:
    """List the measurements that a run would make, and why.

    Call it where you call `snakemake`, at the root of the project: records are looked for in
    results/ of the working directory. Times are those that the measurements took last time.

    \b
    slay stale
    slay stale --configfile config/gpu.yaml --jobs
    """
    from collections import defaultdict

    from slay.pipeline.config import read
    from slay.pipeline.jobs import expand
    from slay.pipeline.stale import due

    _, config = read(configfile)
    number = sum(map(len, expand(config).values()))
    found = list(due(config))
    groups = defaultdict(list)
    for item in found:
        groups[item.job.path if each else item.job.experiment, item.reason].append(item.seconds)
    width = max((len(name) for name, _ in groups), default=0)
    for (name, reason), seconds in groups.items():
        jobs = "" if each else f"{len(seconds):6} jobs"
        click.echo(f"{name:{width}}{jobs}{_duration(seconds):>10}  {reason}")
    times = [item.seconds for item in found]
    last = f"; last time they took {_duration(times)}" if any(times) else ""
    folder = Path("results", config.run).absolute()
    where = f"{folder}{'' if folder.is_dir() else ', which is not there'}"
    click.echo(f"{len(found)} of {number} measurements would be made in {where}{last}")


def _duration(seconds: list[float | None]) -> str:
    """Format the sum of the known times; "-" if none is known."""
    known = [s for s in seconds if s is not None]
    if not known:
        return "-"
    total = sum(known)
    return f"{total:.1f} s" if total < 100 else f"{total / 60:.1f} min"


@click.command()
@click.argument("before", type=FOLDER)
@click.argument("after", type=FOLDER, required=False)
@click.option("--all", "every", is_flag=True, help="Every number, whatever is said of it.")
@click.option("--experiment", help="Of one experiment only.")
@click.option("--metric", help="Of one metric only.")
@click.option("--level", default=0.05, show_default=True, help="Level of significance.")
def diff(
    before: Path,
    after: Path | None,
    every: bool,
    experiment: str | None,
    metric: str | None,
    level: float,
) -> None:
    """Compare the numbers of two runs, given by their folders.

    Means over seeds are compared by Welch's t test, corrected for the number of comparisons; with a
    single seed there is no test, and a difference is shown without a verdict.

    A single folder is compared with the published run of the same name. Against a published run,
    every number is reproduced or not: it lies in the 95% interval for a repetition or, for a
    latency, the quartiles overlap.

    \b
    slay diff results/laptop results/gpu
    slay diff results/laptop results/gpu --experiment tasks --metric accuracy --all
    slay diff results/laptop results/published/laptop
    slay diff results/laptop
    """
    from slay.report.published import Published, counterpart, open_results

    runs = [open_results(path) for path in (before, after) if path is not None]
    if len(runs) == 1:
        runs.append(counterpart(runs[0]))
    first, second = runs
    if isinstance(first, Published) or isinstance(second, Published):
        published, own = (second, first) if isinstance(second, Published) else (first, second)
        _reproduction(published, own, every, experiment, metric)
    else:
        _differences(first, second, every, experiment, metric, level)


def _reproduction(
    published: Results, own: Results, every: bool, experiment: str | None, metric: str | None
) -> None:
    from slay.report.reproduction import reproduction

    rows = reproduction(published, own, experiment, metric)
    if not len(rows):
        raise SlayError(f"{published.folder} and {own.folder}: have no measurement in common")
    click.echo(f"published: {published.folder}   own: {own.folder}")
    for row in (rows if every else rows[rows["verdict"] == "differs"]).to_dict("records"):
        known = row["low"] == row["low"]
        interval = f"[{row['low']:.5g}, {row['high']:.5g}]" if known else ""
        click.echo(
            f"{row['verdict']:10} {row['setting']:56} {row['metric']:18} "
            f"{row['published']:>11.5g} {interval:>24} {row['own']:>11.5g}"
        )
    number = {name: int((rows["verdict"] == name).sum()) for name in ("reproduced", "open")}
    judged = len(rows) - number["open"]
    click.echo(f"{number['reproduced']} of {judged} numbers reproduced within their intervals")
    if number["open"]:
        click.echo(f"{number['open']} of one seed, which has no interval, are not the same")
    if not every:
        click.echo("--all shows every number")


def _differences(
    before: Results,
    after: Results,
    every: bool,
    experiment: str | None,
    metric: str | None,
    level: float,
) -> None:
    import math

    from slay.report.diff import differences

    rows = differences(before, after, experiment, metric)
    if not len(rows):
        raise SlayError(f"{before.folder} and {after.folder}: have no measurement in common")
    numbers = rows.to_dict("records")
    significant = [row for row in numbers if row["p"] < level]
    unjudged = sum(math.isnan(row["p"]) for row in numbers)
    for row in numbers if every else significant:
        p = "one seed" if math.isnan(row["p"]) else f"p = {row['p']:.2g}"
        change = "" if math.isnan(row["change"]) else f"{row['change']:+.1%}"
        click.echo(
            f"{'*' if row['p'] < level else ' '} {row['setting']:56} {row['metric']:18} "
            f"{row['before']:>11.5g} {row['after']:>11.5g} {change:>9}  {p}"
        )
    click.echo(
        f"{len(significant)} of {len(numbers)} numbers differ significantly (level {level:g})"
    )
    if unjudged and not every:
        click.echo(f"{unjudged} have one seed and cannot be judged: --all shows them")
