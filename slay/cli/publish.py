"""Commands from records to the paper, which the workflow calls, and for published runs."""

from __future__ import annotations

from pathlib import Path

import click

import slay
from slay import files
from slay.cli.group import FILE, FOLDER, OUT_FILE
from slay.cli.names import FIGURE, TABLE
from slay.errors import SlayError


def _of_a_run(ctx: click.Context, option: click.Parameter, folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise SlayError(f"{folder}: is not a run's folder (results/<run>): there is no config.json")
    return folder


OUT = click.option("--out", type=OUT_FILE, required=True, help="File to write.")
RUN = click.option(
    "--run",
    "folder",
    type=FOLDER,
    required=True,
    callback=_of_a_run,
    help="Folder of the run, such as results/laptop.",
)
DRAFT = click.option("--draft", is_flag=True, help="Take what there is; mark what is stale.")
TEMPLATES = click.option(
    "--templates",
    type=FOLDER,
    default=Path(slay.__file__).parents[1] / "paper",
    show_default="paper/ beside the package",
    help="Folder of the paper's templates.",
)


@click.command()
@click.argument("manifest", type=FILE)
@click.option("--table", type=OUT_FILE, required=True, help="CSV file: one row per record.")
@click.option("--summary", type=OUT_FILE, required=True, help="CSV file: one row per setting.")
@click.option("--curves", type=OUT_FILE, help="CSV file: one row per point of a curve.")
@DRAFT
def collect(manifest: Path, table: Path, summary: Path, curves: Path | None, draft: bool) -> None:
    """Read the records that a manifest lists into CSV files.

    \b
    slay collect results/laptop/manifests/quality.json --table quality.csv --summary summary.csv
    """
    from json import JSONDecodeError

    from slay.report.aggregate import collect, points, summarise

    try:
        rows = collect(manifest, draft=draft)
    except JSONDecodeError as error:
        raise SlayError(f"{manifest}: is no manifest of a run ({error.msg})") from error
    files.write(table, rows.to_csv(index=False))
    files.write(summary, summarise(rows).to_csv(index=False))
    if curves is not None:
        files.write(curves, points(rows).to_csv(index=False))


@click.command()
@click.argument("name", type=TABLE)
@RUN
@TEMPLATES
@OUT
@DRAFT
def table(name: str, folder: Path, templates: Path, out: Path, draft: bool) -> None:
    """Write the LaTeX of one of the paper's tables.

    \b
    slay table quality --run results/laptop --out quality.tex
    """
    from slay.report.results import Results
    from slay.report.tables import render_table

    text = render_table(name, Results(folder, draft), templates)
    files.write(out, text)


@click.command()
@click.argument("name", type=FIGURE)
@RUN
@OUT
@DRAFT
def figure(name: str, folder: Path, out: Path, draft: bool) -> None:
    """Draw one of the paper's figures as PDF, and as PNG beside it.

    \b
    slay figure quality --run results/laptop --out quality.pdf
    """
    from slay.report.figures import draw_figure
    from slay.report.results import Results

    draw_figure(name, Results(folder, draft), out)


@click.command()
@click.argument("name")
@RUN
@OUT
def page(name: str, folder: Path, out: Path) -> None:
    """Write one of the report's pages of numbers as HTML.

    NAME is an experiment, or "configuration".

    \b
    slay page quality --run results/laptop --out quality.html
    """
    from slay.report.page import page
    from slay.report.results import Results

    files.write(out, page(name, Results(folder)))


@click.command()
@RUN
@TEMPLATES
@DRAFT
def paper(folder: Path, templates: Path, draft: bool) -> None:
    """Write and typeset the paper from a run's tables and figures.

    \b
    slay paper --run results/laptop
    """
    from slay.report.paper import build
    from slay.report.results import Results

    results = Results(folder, draft)
    click.echo(build(results, templates, results.base / "paper"))


@click.command()
@RUN
@TEMPLATES
@OUT
def arxiv(folder: Path, templates: Path, out: Path) -> None:
    """Pack a paper's source into an archive that compiles alone.

    \b
    slay arxiv --run results/laptop --out slay.tar.gz
    """
    from slay.report.paper import pack
    from slay.report.results import Results

    click.echo(pack(Results(folder), templates, out))


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--name", help="Its folder in results/published. Default: the device's name.")
@click.option("--dirty", is_flag=True, help="Even if it was measured with uncommitted changes.")
def publish(folder: Path, name: str | None, dirty: bool) -> None:
    """Copy a complete run to results/published, to be kept in git.

    Papers that are built later, and `slay diff`, compare other runs with its records. After `slay
    gpu`, the benchmark of the kernels is published too, and the device's verified configurations
    are copied into the package.

    \b
    slay publish results/laptop
    slay publish results/borrowed
    """
    from slay.report.published import FOLDER, publish, publish_benchmark, publish_devices

    for copy in publish_devices(folder / "devices"):
        click.echo(copy)
    benchmark = folder / "kernels.jsonl"
    if benchmark.is_file():
        click.echo(publish_benchmark(benchmark, name, FOLDER, dirty=dirty))
    click.echo(publish(folder, name, FOLDER, dirty=dirty))


@click.command()
@click.option("--markdown", is_flag=True, help="As a table of their key numbers.")
@click.option(
    "--write", type=FILE, help="Put that table where a file, such as README.md, has marks for it."
)
def published(markdown: bool, write: Path | None) -> None:
    """List the runs that are kept in results/published.

    With --markdown or --write: tables of their key numbers, then those of the benchmarks of the
    kernels with their targets.

    \b
    slay published
    slay published --write README.md
    """
    from slay.benchmarks.tables import markdown as targets
    from slay.report.keys import between, table
    from slay.report.published import benchmarks, printed, published

    runs = published()
    if write is not None or markdown:
        tables = [table(runs, printed()), *map(targets, benchmarks().values())]
        text = "\n".join(filter(None, tables))
        if write is None:
            click.echo(text, nl=False)
        else:
            files.write(write, between(write, text))
    elif not runs:
        click.echo("none yet: slay publish results/<run> adds one")
    else:
        for run in runs:
            about = run.about
            click.echo(
                f"{run.name:16} {about['title']}; {about['processor']}, device {about['device']}; "
                f"{about['date']}, commit {about['commit'] or 'none'}, {about['records']} records"
            )
