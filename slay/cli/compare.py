"""`slay stale` and `slay diff`: what a run would measure, and what differs between two."""

from __future__ import annotations

from pathlib import Path

import click

from slay.cli.group import FILE, FOLDER
from slay.errors import SlayError


@click.command()
@click.option(
    "--configfile",
    type=FILE,
    default="config/config.yaml",
    show_default=True,
    help="The run's configuration.",
)
@click.option("--jobs", "each", is_flag=True, help="A line for every measurement.")
def stale(configfile: Path, each: bool) -> None:
    """Say which measurements a run would make, and why.

    To be typed where `snakemake` is: at the root of the project. The times are those that the
    measurements took when they were made last.

    \b
    slay stale
    slay stale --configfile config/gpu.yaml --jobs
    """
    from collections import defaultdict

    import yaml

    from slay.config import load
    from slay.jobs import expand
    from slay.stale import due

    try:
        data = yaml.safe_load(configfile.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise SlayError(f"{configfile}: is no YAML ({line})") from error
    config = load(data, str(configfile))
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
    click.echo(f"{len(found)} of {number} measurements would be made{last}")


def _duration(seconds: list[float | None]) -> str:
    """The sum of what is known, "-" if nothing is."""
    known = [s for s in seconds if s is not None]
    if not known:
        return "-"
    total = sum(known)
    return f"{total:.1f} s" if total < 100 else f"{total / 60:.1f} min"


@click.command()
@click.argument("before", type=FOLDER)
@click.argument("after", type=FOLDER)
@click.option("--all", "every", is_flag=True, help="Also what does not differ significantly.")
@click.option("--experiment", help="Of one experiment only.")
@click.option("--metric", help="Of one metric only.")
@click.option("--level", default=0.05, show_default=True, help="Level of significance.")
def diff(
    before: Path, after: Path, every: bool, experiment: str | None, metric: str | None, level: float
) -> None:
    """Compare the numbers of two runs, given by their folders.

    Means over seeds by Welch's t test, corrected for the number of comparisons; where there is
    one seed nothing can be said, and a difference is shown without a verdict.

    \b
    slay diff results/laptop results/gpu
    slay diff results/laptop results/gpu --experiment tasks --metric accuracy --all
    """
    import math

    from slay.report.diff import differences
    from slay.report.results import Results

    rows = differences(Results(before), Results(after), experiment, metric)
    if not len(rows):
        raise SlayError(f"{before} and {after}: have no measurement in common")
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
