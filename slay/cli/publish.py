"""From records to the paper: what the workflow calls, one command a file that it makes."""

from __future__ import annotations

from pathlib import Path

import click

from slay.cli.group import FILE, FOLDER, PATH
from slay.cli.names import FIGURE, TABLE
from slay.errors import SlayError


def _of_a_run(ctx: click.Context, option: click.Parameter, folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise SlayError(f"{folder}: is not a run's folder (results/<run>): there is no config.json")
    return folder


OUT = click.option("--out", type=PATH, required=True, help="File to write.")
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
    default="paper",
    show_default=True,
    help="Folder of the paper's templates.",
)


@click.command()
@click.argument("manifest", type=FILE)
@click.option("--table", type=PATH, required=True, help="A row a record.")
@click.option("--summary", type=PATH, required=True, help="A row a setting.")
@click.option("--curves", type=PATH, help="A row a point of a curve.")
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
    rows.to_csv(table, index=False)
    summarise(rows).to_csv(summary, index=False)
    if curves is not None:
        points(rows).to_csv(curves, index=False)


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
    out.write_text(text, encoding="utf-8")


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
