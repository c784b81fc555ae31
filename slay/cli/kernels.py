"""`slay kernels show`: compile the Triton kernels and report registers, spills and instructions."""

from __future__ import annotations

import click

from slay.cli.names import MECHANISM
from slay.errors import SlayError


@click.command()
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
def kernels(
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

    from slay.kernel_tools.survey import (
        CALLS,
        LENGTH,
        MAIN,
        SUBJECTS,
        TARGETS,
        Subject,
        objections,
        survey,
    )
    from slay.ops.triton import assembler

    if cost:
        from slay.kernel_tools.cost import report

        plain = [Subject(name, head_dim or 32, dtype) for name in names or MAIN]
        for line in report(plain, target, length or LENGTH, as_json=as_json):
            click.echo(line)
        return
    if length is not None:
        raise SlayError("--length is for --cost")
    subjects = [
        Subject(name, head_dim or 32, dtype, call) for name in names for call in CALLS
    ] or SUBJECTS
    if head_dim is not None and not names:
        raise SlayError("--head-dim is for NAMES; say which mechanisms")
    if target not in TARGETS:
        raise SlayError(f"target {target!r}: must be one of {', '.join(TARGETS)}")
    click.echo(f"assembled by {assembler.find(divmod(TARGETS[target], 10))}", err=True)
    form = "{:22} {:>4} {:9} {:8} {:18} {:28} {:>4} {:>6} {:>7} {:>6} {:>5}  {}"
    if not as_json:
        heads = (
            "mechanism",
            "d",
            "dtype",
            "call",
            "kernel",
            "configuration",
            "regs",
            "spill",
            "shared",
        )
        click.echo(form.format(*heads, "HGMMA", "HMMA", ""))
    number = bad = 0
    for subject, made in survey(subjects, target):
        wrong = objections(made, subject, target)
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
