"""`slay run`: one command per experiment, with flags generated from `slay.pipeline.params`."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import click

from slay.cli.group import OUT_FILE
from slay.cli.names import completed
from slay.pipeline.plugins import PLUGIN

EXAMPLES = {
    "quality": "--attention yat-quadratic --head-dim 32 --seq-len 256",
    "scaling": "--attention yat-quadratic --seq-len 1024 --mode forward_backward",
    "ablation": "--attention yat-performer-anchor --option poly_dim=128 --seq-len 256",
    "max_context": "--attention linear --memory-mb 16 --max-len 4096",
    "tasks": "--attention yat-quadratic --task induction --seq-len 16 --steps 100",
    "analysis": "--attention yat-quadratic --kind profile",
    "language": "--attention yat-quadratic --short-conv 4 --steps 240",
}


HELP = "{}\n\n\b\nslay run {} {} \\\n    --out record.json"


class Experiments(click.Group):
    """A group with one command per experiment."""

    def invoke(self, ctx: click.Context) -> Any:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler
        gc.disable()  # while importing: modules stay, there is no garbage
        try:
            return super().invoke(ctx)
        finally:
            gc.enable()

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        from slay.pipeline.params import PARAMS

        return list(PARAMS)

    def get_command(self, ctx: click.Context | None, name: str) -> click.Command | None:
        from slay.errors import unknown
        from slay.pipeline.params import PARAMS

        if name in PARAMS:
            return _command(name)
        if ctx is None or ctx.resilient_parsing:  # during shell completion
            return None
        raise unknown("experiment", name, PARAMS)


@click.group("run", cls=Experiments)
def run() -> None:
    """Run one measurement and write its record.

    A record is JSON: the parameters, the metrics, and the code and machine that produced them. The
    workflow runs these same commands; `slay run tasks --help` lists the flags of one experiment.

    \b
    slay run quality --attention yat-quadratic --out record.json
    slay run tasks --attention linear --task copy --seq-len 32 --out record.json
    """


def _command(name: str) -> click.Command:
    from slay.docstrings import docstring
    from slay.pipeline.flags import flags_of
    from slay.pipeline.params import PARAMS

    options = [
        *flags_of(PARAMS[name]),
        click.Option(["--out"], type=OUT_FILE, required=True, help="The record to write."),
        click.Option(
            ["--threads"],
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Threads to compute with.",
        ),
        click.Option(
            ["--code"], help="Refuse to run other code than this fingerprint's; a,b: than these."
        ),
        PLUGIN,
    ]
    command = click.Command(
        name,
        params=options,  # type: ignore[arg-type]
        help=HELP.format(docstring(PARAMS[name]), name, EXAMPLES[name]),
        callback=lambda **values: _run(name, values),
    )
    return completed(command)


def _run(name: str, values: dict[str, Any]) -> None:
    from slay.pipeline.flags import parsed
    from slay.pipeline.params import PARAMS

    out, threads, code = (values.pop(key) for key in ("out", "threads", "code"))
    params = parsed(PARAMS[name], values)

    from slay.experiments.run import run_job

    gc.freeze()
    gc.enable()
    record = run_job(
        params,
        Path(out),
        threads=threads,
        planned=() if code is None else code.split(","),
        progress=lambda line: click.echo(line, err=True),
    )
    shown = (f"{key} {value:.4g}" for key, value in record.metrics.items() if value is not None)
    click.echo(f"{out}: {record.status}  {'  '.join(shown) or record.message}")
