"""`slay gpu`: verify, test and time everything that needs a GPU, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from slay.errors import SlayError, unknown
from slay.gpu.steps import ROOT, STEPS, TESTS, Plan, Step

CONFIGS = {"cuda": "config/borrowed.yaml", "cpu": "config/smoke.yaml"}


class Names(click.ParamType):
    """Comma-separated names of steps, as in bench,measure."""

    name = "steps"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Step, ...]:
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in value.split(",") if name.strip()]
        known = [step.name for step in STEPS]
        wrong = next((name for name in names if name not in known), None)
        if wrong is not None or not names:
            raise unknown("step", wrong or "", known, "--steps")
        return tuple(step for step in STEPS if step.name in names)


@click.command()
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    show_default=True,
    help="cpu tries the command itself, at toy sizes.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=10),
    default=480.0,
    show_default=True,
    help="Time for all steps together.",
)
@click.option(
    "--steps",
    type=Names(),
    default=None,
    help=f"Steps to do, as in bench,measure.  [default: {','.join(s.name for s in STEPS)}]",
)
@click.option(
    "--configfile",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The run whose measurements are made.  [default: config/borrowed.yaml]",
)
def gpu(
    device: str, seconds: float, steps: tuple[Step, ...] | None, configfile: Path | None
) -> None:
    """Verify, test and time everything on a GPU, in minutes.

    For a GPU that is available for a short time. The steps: find the correct and fast
    configurations of the kernels, run the tests that need a GPU, time the kernels against their
    competitors, make the paper's timings. Each step has a share of the time and a log, and keeps
    its results if it is interrupted; the same command resumes. Everything is written to
    results/<run>, which `slay publish` reads. Run it at the root of a clone of the project; it
    needs no Snakemake.

    \b
    slay gpu
    slay gpu --steps bench,measure --seconds 300
    slay gpu --device cpu
    """
    from slay.experiments.isolated import want_a_gpu
    from slay.gpu.driver import Driver, check
    from slay.pipeline.config import read

    chosen = steps or tuple(step for step in STEPS if device == "cuda" or step.toy)
    check(chosen, device)
    if not TESTS.is_dir():
        raise SlayError(
            f"{ROOT}: is no clone of the project, whose tests and configurations it does"
        )
    configfile = configfile or ROOT / CONFIGS[device]
    _, config = read(configfile)
    if device == "cuda":
        want_a_gpu("the command itself")
    folder = Path("results") / config.run
    folder.mkdir(parents=True, exist_ok=True)
    trouble = Driver(Plan(folder, configfile, device, seconds), chosen, click.echo).run()
    for name, why in trouble.items():
        click.echo(f"{name}: {why}", err=True)
    if trouble:
        raise SlayError(
            f"{len(trouble)} of {len(chosen)} steps are not done ({', '.join(trouble)}); "
            "the same command goes on with them"
        )
    click.echo(f"{folder}: all is done; with the project's own machine: slay publish {folder}")
