"""`slay kernels`: compile the kernels for any GPU, and verify them on this one."""

from __future__ import annotations

import os

import click

from slay.cli.kernels import kernels as show


class Shown(click.Group):
    """A group whose default command is `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Shown)
def kernels() -> None:
    """Compile the kernels for any GPU, or verify them on this one.

    `slay kernels` alone is `slay kernels show`.

    \b
    slay kernels yat-quadratic --head-dim 64 --target sm_80
    slay kernels verify
    """


kernels.add_command(show, "show")


@kernels.command()
@click.option(
    "--device", default="cuda", show_default=True, help="The GPU, such as cuda:1 for the second."
)
@click.option(
    "--only", default="*", metavar="PATTERN", help="Classes of calls, as in 'product*'.  [all]"
)
@click.option(
    "--jobs", type=click.IntRange(min=1),
    help="Processes at once.  [as many as there are cores, 16 at most]",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=float("inf"),
    help="What has not begun by then counts as not right.  [no end]",
)  # fmt: skip
def verify(device: str, only: str, jobs: int | None, seconds: float) -> None:
    """Verify the kernels on this GPU, and time the correct ones.

    Every kernel runs in every configuration, each in its own process, and is compared with PyTorch
    in float64. A file for this device lists the correct and the fastest configurations; with
    backend="auto", kernels are used only if such a file lists them as correct. It is kept in
    ~/.cache/slay ($XDG_CACHE_HOME/slay, or $SLAY_CACHE), and is valid for this GPU and these
    versions of driver, Triton and assembler. An interrupted verification resumes where it stopped.

    \b
    slay kernels verify
    slay kernels verify --device cuda:1 --only 'product*' --seconds 120
    """
    import torch

    from slay.kernel_tools.cases import default_cases
    from slay.kernel_tools.verify import Verifier, summary
    from slay.ops.triton import assembler, verified

    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise click.BadParameter(f"{device!r} is no device", param_hint="--device") from error
    facts = verified.facts(place)
    click.echo(f"{facts.device}, driver {facts.driver}, Triton {facts.triton}", err=True)
    found = assembler.find(facts.capability)
    click.echo(f"{found}", err=True)
    remark = assembler.remark(facts.capability, found.version)
    if remark is not None:
        click.echo(remark, err=True)
    free, _ = torch.cuda.mem_get_info(place)
    verifier = Verifier(
        facts=facts,
        cases=list(default_cases()),
        folder=verified.user_folder(),
        device=device,
        jobs=jobs or max(1, min(16, os.cpu_count() or 1, free // 2**31)),
        only=only,
        seconds=seconds,
        progress=lambda line: click.echo(line, err=True),
    )
    click.echo(f"{summary(verifier.run())}\n{verifier.path}")
