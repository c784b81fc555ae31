"""The command `slay`; modules that need torch are imported on use, so that it starts fast."""

from __future__ import annotations

import click

import slay
from slay.cli.group import LazyGroup

SECTIONS = {
    "Look": ("mechanisms", "tasks"),
    "Measure": ("run", "measure", "kernels", "bench", "gpu", "stale", "diff"),
    "Train language models": ("train", "export", "generate", "data"),
    "From records to the paper, as the workflow does": (
        "collect",
        "table",
        "figure",
        "page",
        "paper",
        "arxiv",
    ),
    "Runs that are kept with the project": ("publish", "published"),
}
HOMES = {  # modules of commands, some of them beside the code that they run
    **dict.fromkeys(SECTIONS["Look"], "slay.cli.look"),
    "run": "slay.cli.measure",
    "kernels": "slay.cli.kernels",
    **dict.fromkeys(("stale", "diff"), "slay.cli.compare"),
    **dict.fromkeys(
        SECTIONS["From records to the paper, as the workflow does"], "slay.cli.publish"
    ),
    **dict.fromkeys(SECTIONS["Runs that are kept with the project"], "slay.cli.publish"),
    **dict.fromkeys(SECTIONS["Train language models"], "slay.training.language.commands"),
    "bench": "slay.benchmarks.commands",
    "gpu": "slay.gpu.commands",
    "measure": "slay.experiments.missing",
}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    homes=HOMES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(slay.__version__, prog_name="slay")
def main() -> None:
    """Spherical linearised attention: measure it, and build the paper from what was measured.

    \b
    slay mechanisms                            what there is to measure
    slay tasks --show induction                what a task looks like
    slay run quality --attention yat-quadratic --out record.json

    The whole paper is made by `make paper`, or `snakemake --cores all paper`.
    """
