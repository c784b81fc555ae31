"""`slay gpu`: everything that only a GPU can show, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from slay.errors import SlayError, unknown
from slay.experiments.gpu.steps import ROOT, STEPS, TESTS, Plan, Step

CONFIGS = {"cuda": "config/borrowed.yaml", "cpu": "config/smoke.yaml"}


class Names(click.ParamType):
    """Names of steps, as in bench,measure."""

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
    """Verify, test and time all on a GPU, in minutes.

    For a GPU that is lent. The steps: which configurations of the kernels are right and fast, the
    tests that need a GPU, the kernels beside their competitors, the paper's timings. Each has its
    share of the time and its log, and keeps what it has when it or the time ends; the same command
    goes on with what is missing. All is left in results/<run>, which `slay publish` takes. To be
    typed at the root of a clone of the project; needs no Snakemake.

    \b
    slay gpu
    slay gpu --steps bench,measure --seconds 300
    slay gpu --device cpu
    """
    from slay.config import read
    from slay.experiments.gpu.driver import Driver, check

    chosen = steps or tuple(step for step in STEPS if device == "cuda" or step.toy)
    check(chosen, device)
    if not TESTS.is_dir():
        raise SlayError(
            f"{ROOT}: is no clone of the project, whose tests and configurations it does"
        )
    configfile = configfile or ROOT / CONFIGS[device]
    _, config = read(configfile)
    if device == "cuda":
        _want_a_gpu()
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


def _want_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise SlayError(
            "--device cuda: this machine has no CUDA GPU that PyTorch sees; --device cpu tries the "
            "command itself"
        )
