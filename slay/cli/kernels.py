"""`slay kernels`: compile the kernels for any GPU, and verify them on this one."""

from __future__ import annotations

import os

import click

from slay.cli.names import MECHANISM
from slay.errors import SlayError


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


@kernels.command()
@click.argument("names", nargs=-1, type=MECHANISM)
@click.option("--target", default="sm_90", show_default=True, help="GPU: sm_80 or sm_90.")
@click.option("--head-dim", type=int, help="Head dimension d of NAMES.  [default: 32]")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Precision of NAMES.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, one line per kernel and configuration."
)
@click.option("--cost", is_flag=True, help="Count instructions per token and estimate times.")
@click.option("--length", type=click.IntRange(1), help="Tokens of --cost.  [default: 131072]")
def show(
    names: tuple[str, ...], target: str, head_dim: int | None, dtype: str, as_json: bool,
    cost: bool, length: int | None,
) -> None:  # fmt: skip
    """Compile the kernels for a GPU and show what they use.

    For every kernel, in every configuration that a device may choose: registers per thread, spilled
    bytes, shared memory per program, and matrix instructions of warp groups (Hopper's HGMMA) and of
    warps (HMMA). A general call has grouped heads, packed sequences and padding. Without NAMES, a
    selection covers every kind of features and size. No GPU is needed. Fails if a kernel spills,
    uses too much shared memory or multiplies without tensor cores.

    \b
    slay kernels
    slay kernels show yat-quadratic --head-dim 64 --target sm_80
    slay kernels --cost yat-quadratic --length 4096
    """
    import json
    from dataclasses import asdict, astuple
    from importlib.util import find_spec

    if find_spec("triton") is None:
        raise SlayError(
            "slay kernels: Triton is not installed; pip install 'slay-attention[kernels]'"
        )

    from slay.kernel_tools import survey
    from slay.kernel_tools.survey import Subject
    from slay.ops.triton import assembler

    if cost:
        from slay.kernel_tools.cost import report

        plain = [Subject(name, head_dim or 32, dtype) for name in names or survey.MAIN]
        for line in report(plain, target, length or survey.LENGTH, as_json=as_json):
            click.echo(line)
        return
    if length is not None:
        raise SlayError("--length is for --cost")
    subjects = [
        Subject(name, head_dim or 32, dtype, call) for name in names for call in survey.CALLS
    ] or survey.SUBJECTS
    if head_dim is not None and not names:
        raise SlayError("--head-dim is for NAMES; say which mechanisms")
    found = assembler.find(divmod(survey.capability(target), 10))
    click.echo(f"assembled by {found}", err=True)
    form = "{:22} {:>4} {:9} {:8} {:18} {:28} {:>4} {:>6} {:>7} {:>6} {:>5}  {}"
    if not as_json:
        heads = ("mechanism", "d", "dtype", "call", "kernel", "configuration")
        click.echo(form.format(*heads, "regs", "spill", "shared", "HGMMA", "HMMA", ""))
    number = bad = 0
    for subject, made in survey.survey(subjects, target):
        wrong = survey.objections(made, subject, target)
        number, bad = number + 1, bad + bool(wrong)
        if as_json:
            click.echo(json.dumps({**asdict(subject), **made.facts, "wrong": wrong}))
            continue
        sizes = (made.registers, made.spilled, made.shared, made.warpgroup, made.matrix)
        where = (*astuple(subject), made.kernel, made.config)
        click.echo(form.format(*where, *sizes, "; ".join(wrong)))
    if bad:
        raise SlayError(f"{bad} of {number} kernels for {target} are not what they should be")
    if not as_json:
        click.echo(f"{number} kernels for {target}: nothing spilled, matrix units in use")


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
