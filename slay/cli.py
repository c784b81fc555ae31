"""The command `slay`: thin, and quick to start; what needs torch is imported when it is used."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import click

import slay
from slay.errors import SlayError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room on the disk, or none for this user
LANGUAGE = ("train", "export", "generate", "data")  # of slay.training.language.commands


class Group(click.Group):
    """A command group that shows a mistake of the user's as one line, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LANGUAGE])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in LANGUAGE:
            from slay.training.language import commands

            return getattr(commands, name)
        return super().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SlayError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno not in FULL:
                raise
            what = error.filename or "a file"
            raise click.ClickException(f"{what}: cannot be written ({error.strerror})") from error


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(slay.__version__, prog_name="slay")
def main() -> None:
    """Spherical linearised attention: measure it, and build the paper from what was measured.

    \b
    slay mechanisms                            what there is to measure
    slay tasks --show induction                what a task looks like
    slay run quality --attention yat-quadratic --out record.json
    """


def _plug(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    from slay.registry import ATTENTION

    for text in values:
        name, _, path = text.partition("=")
        ATTENTION.plug(name, path)


PLUGIN = click.Option(
    ["--plugin"],
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_plug,
    metavar="NAME=MODULE:CLASS",
    help="A mechanism from outside this package, to be known as NAME. May be given several times.",
)


class Experiments(click.Group):
    """`slay run`: one command an experiment, its flags made from `slay.params`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from slay.params import PARAMS

        return list(PARAMS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        from slay.errors import unknown
        from slay.params import PARAMS

        if name not in PARAMS:
            raise unknown("experiment", name, PARAMS)
        return _experiment_command(name)


@main.group(cls=Experiments)
def run() -> None:
    """Run one job and write its record.

    \b
    slay run tasks --attention linear --task copy --seq-len 32 --out record.json
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints no remarks of its own
    from slay.warm import forward

    status = forward(sys.argv[1:])
    if status is not None:
        sys.exit(status)


def _experiment_command(name: str) -> click.Command:
    from slay.flags import flags_of
    from slay.params import PARAMS

    options = [
        *flags_of(PARAMS[name]),
        click.Option(
            ["--out"], type=click.Path(path_type=Path), required=True, help="The record to write."
        ),
        click.Option(
            ["--threads"],
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Threads to compute with.",
        ),
        click.Option(["--code"], help="Refuse to run other code than this fingerprint's."),
        PLUGIN,
    ]
    return click.Command(
        name,
        params=options,  # type: ignore[arg-type]
        help=PARAMS[name].__doc__,
        callback=lambda **values: _run(name, values),
    )


def _run(name: str, values: dict[str, Any]) -> None:
    from slay.flags import parsed
    from slay.params import PARAMS

    out, threads, code = (values.pop(key) for key in ("out", "threads", "code"))
    params = parsed(PARAMS[name], values)

    from slay.experiments.run import run_job

    record = run_job(
        params,
        out,
        threads=threads,
        expected_code=code,
        progress=lambda line: click.echo(line, err=True),
    )
    shown = (f"{key} {value:.4g}" for key, value in record.metrics.items() if value is not None)
    click.echo(f"{out}: {record.status}  {'  '.join(shown) or record.message}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--markdown", is_flag=True, help="As a page, with definitions and options.")
@click.option("--head-dim", default=32, show_default=True, help="Head dimension d for the sizes.")
def mechanisms(names: tuple[str, ...], as_json: bool, markdown: bool, head_dim: int) -> None:
    """List the attention mechanisms with their facts: those NAMES, or all."""
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


@main.command()
@click.argument("names", nargs=-1)
@click.option("--show", metavar="NAME", help="Draw an example of one task.")
@click.option("--seq-len", default=16, show_default=True, help="Length of the example.")
@click.option("--seed", type=click.IntRange(0, 2**32), default=0, help="Seed of the example.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--markdown", is_flag=True, help="As a page, with an example of each.")
def tasks(
    names: tuple[str, ...], show: str | None, seq_len: int, seed: int, as_json: bool, markdown: bool
) -> None:
    """List the synthetic tasks, or look at an example of one.

    NAMES are tasks or groups of tasks: a category as 'memory/*', attention_critical, core, all.
    """
    from itertools import groupby

    from slay.registry import expand_tasks
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


OUT = click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write.")
RUN = click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the run, such as results/laptop.",
)
DRAFT = click.option("--draft", is_flag=True, help="Take what there is; mark what is stale.")
TEMPLATES = click.option(
    "--templates",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(slay.__file__).parents[1] / "paper",
    show_default="paper/ beside the package",
    help="Folder of the paper's templates.",
)


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--table", type=click.Path(path_type=Path), required=True, help="A row a record.")
@click.option("--summary", type=click.Path(path_type=Path), required=True, help="A row a setting.")
@click.option("--curves", type=click.Path(path_type=Path), help="A row a point of a curve.")
@DRAFT
def collect(manifest: Path, table: Path, summary: Path, curves: Path | None, draft: bool) -> None:
    """Read the records that MANIFEST lists into tidy CSV files."""
    from slay.report.aggregate import collect, points, summarise

    rows = collect(manifest, draft=draft)
    rows.to_csv(table, index=False)
    summarise(rows).to_csv(summary, index=False)
    if curves is not None:
        points(rows).to_csv(curves, index=False)


@main.command()
@click.argument("name")
@RUN
@TEMPLATES
@OUT
@DRAFT
def table(name: str, folder: Path, templates: Path, out: Path, draft: bool) -> None:
    """Write the LaTeX of table NAME."""
    from slay.report.results import Results
    from slay.report.tables import render_table

    text = render_table(name, Results(folder, draft), templates)
    out.write_text(text, encoding="utf-8")


@main.command()
@click.argument("name")
@RUN
@OUT
@DRAFT
def figure(name: str, folder: Path, out: Path, draft: bool) -> None:
    """Draw figure NAME as PDF, and as PNG beside it."""
    from slay.report.figures import draw_figure
    from slay.report.results import Results

    draw_figure(name, Results(folder, draft), out)


@main.command()
@click.argument("name")
@RUN
@OUT
def page(name: str, folder: Path, out: Path) -> None:
    """Write page NAME of the report: an experiment's numbers as HTML, or "configuration"."""
    from slay.report.page import page
    from slay.report.results import Results

    out.write_text(page(name, Results(folder)), encoding="utf-8")


@main.command()
@RUN
@TEMPLATES
@DRAFT
def paper(folder: Path, templates: Path, draft: bool) -> None:
    """Write and typeset the paper of a run whose tables and figures are there."""
    from slay.report.paper import build
    from slay.report.results import Results

    results = Results(folder, draft)
    click.echo(build(results, templates, results.base / "paper"))


@main.command()
@click.option(
    "--configfile",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default="config/config.yaml",
    show_default=True,
    help="The run's configuration.",
)
@click.option("--jobs", "each", is_flag=True, help="A line for every measurement.")
def stale(configfile: Path, each: bool) -> None:
    """Say which measurements of a run would be made, why, and how long they took last time.

    To be typed where `snakemake` is: at the root of the project.
    """
    from collections import defaultdict

    import yaml

    from slay.config import load
    from slay.jobs import expand
    from slay.stale import due

    try:
        data = yaml.safe_load(configfile.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes or numbers that are none
        line = " ".join(str(error).split())
        raise SlayError(f"{configfile}: is no YAML ({line})") from error
    config = load(data, str(configfile))
    number = sum(map(len, expand(config).values()))
    found = list(due(config))
    groups = defaultdict(list)
    for item in found:
        groups[item.job.path if each else item.job.experiment, item.reason].append(item.seconds)
    for (name, reason), seconds in groups.items():
        jobs = "" if each else f"{len(seconds):6} jobs"
        click.echo(f"{name:12}{jobs}{_duration(seconds):>10}  {reason}")
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


@main.command()
@RUN
@TEMPLATES
@OUT
def arxiv(folder: Path, templates: Path, out: Path) -> None:
    """Pack the source of a run's paper, which was built, into an archive that compiles alone."""
    from slay.report.paper import pack
    from slay.report.results import Results

    click.echo(pack(Results(folder), templates, out))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", help="Its folder under results/published. Default: the device's name.")
@click.option("--dirty", is_flag=True, help="Even if it was measured with uncommitted changes.")
def publish(folder: Path, name: str | None, dirty: bool) -> None:
    """Copy a run that was measured in full to results/published, to be kept in git.

    Its records, the command of each and what it printed. Papers built later, and `slay diff`, set
    other runs beside it.

    \b
    slay publish results/laptop
    """
    from slay.report.published import FOLDER, publish

    click.echo(publish(folder, name, FOLDER, dirty=dirty))


@main.command()
@click.option("--markdown", is_flag=True, help="As a table of their key numbers.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Put that table between the lines of a file that say where, as README.md has them.",
)
def published(markdown: bool, write: Path | None) -> None:
    """List the runs in results/published."""
    from slay.report.keys import between, table
    from slay.report.published import printed, published

    runs = published()
    if markdown or write is not None:
        text = table(runs, printed())
        if write is not None:
            write.write_text(between(write, text), encoding="utf-8")
        else:
            click.echo(text, nl=False)
        return
    for run in runs:
        about = run.about
        click.echo(
            f"{run.name:16} {about['title']}; {about['processor']}, device {about['device']}; "
            f"{about['date']}, commit {about['commit']}, {about['records']} records"
        )
    if not runs:
        click.echo("none yet: slay publish results/<run> adds one")


@main.command()
@click.argument("before", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument(
    "after", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False
)
@click.option("--all", "every", is_flag=True, help="Also what does not differ significantly.")
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
    """Compare the numbers of two runs' folders, such as results/laptop and results/gpu.

    Means over seeds by Welch's t test, corrected for the number of comparisons; where there is
    one seed nothing can be said, and a difference is shown without a verdict.

    With one folder, or where one of two is under results/published, say of every number whether the
    published one was reproduced within its interval.

    \b
    slay diff results/laptop                             with the published run of that name
    slay diff results/laptop results/published/laptop    the same
    """
    from slay.report.published import Published, counterpart, open_results

    runs = [open_results(path) for path in (before, after) if path is not None]
    if len(runs) == 1:
        runs.append(counterpart(runs[0]))
    known = [run for run in runs if isinstance(run, Published)]
    if known:
        own = next((run for run in runs if run is not known[0]), known[0])
        _reproduction(known[0], own, every, experiment, metric)
        return
    _differences(runs, every, experiment, metric, level)


def _reproduction(
    published: Any, own: Any, every: bool, experiment: str | None, metric: str | None
) -> None:
    from slay.report.reproduction import reproduction

    rows = reproduction(published, own, experiment, metric)
    if not len(rows):
        raise SlayError(f"{published.folder} and {own.folder}: have no measurement in common")
    click.echo(f"published: {published.folder}   own: {own.folder}")
    shown = rows if every else rows[rows["verdict"] == "differs"]
    for row in shown.to_dict("records"):
        interval = "" if row["low"] != row["low"] else f"[{row['low']:.5g}, {row['high']:.5g}]"
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
    runs: list[Any], every: bool, experiment: str | None, metric: str | None, level: float
) -> None:
    import math

    from slay.report.diff import differences

    rows = differences(runs[0], runs[1], experiment, metric)
    if not len(rows):
        raise SlayError(f"{runs[0].folder} and {runs[1].folder}: have no measurement in common")
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


if __name__ == "__main__":
    sys.exit(main())
