"""`slay bench`: time kernels on a GPU, and show the results."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from slay.benchmarks.settings import (
    BACKWARD_LENGTHS,
    BATCHES,
    CONTEXTS,
    LENGTHS,
    MECHANISMS,
    Batch,
    BenchConfig,
    KernelParams,
)
from slay.errors import SlayError
from slay.pipeline.flags import flags_of, parsed
from slay.pipeline.record import Record, read_records
from slay.registry import ATTENTION

CALL = ("options", "dtype", "batch_size", "n_heads", "head_dim")
RUN = ("lengths", "backward_lengths", "contexts", "batches", "n_layers", "vocab_size", "seconds")


class Listed(click.ParamType):
    """Comma-separated values, as in 512,1024; may be empty."""

    def __init__(self, name: str, form: str, make: Callable[..., Any], what: str):
        self.name, self.form, self.make, self.what = name, form, make, what

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",") if word.strip()]
        found = [re.fullmatch(self.form, word) for word in words]
        if not all(found):
            self.fail(f"{value!r}: write {self.what}", param, ctx)
        return tuple(dict.fromkeys(self.make(*map(int, f.groups())) for f in found if f))


NUMBER = r"([1-9]\d{0,8})"
LENGTHS_TYPE = Listed("tokens", NUMBER, int, "numbers of tokens, as in 512,1024")
BATCHES_TYPE = Listed("batches", f"{NUMBER}x{NUMBER}", Batch, "sequences and tokens, as in 16x1024")


def _lengths(flag: str, name: str, default: tuple[int, ...], text: str) -> Any:
    shown = ",".join(map(str, default))
    return click.option(flag, name, type=LENGTHS_TYPE, default=shown, show_default=True, help=text)


@click.group()
def bench() -> None:
    """Time the kernels on a GPU.

    \b
    slay bench kernels --device cuda --out results/published/kernels/h100.jsonl
    slay bench show results/published/kernels/h100.jsonl
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # leaves CUDA to the children


@bench.command(params=[flag for flag in flags_of(KernelParams) if flag.name in CALL])
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True,
    help="cpu tries the benchmark itself, without kernels.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="Records to write; a log is written beside it.",
)  # fmt: skip
@click.option(
    "--attention", multiple=True, default=MECHANISMS, show_default=True,
    help="Mechanism with features. May be given several times.",
)  # fmt: skip
@_lengths("--lengths", "lengths", LENGTHS, "Lengths of the forward pass.")
@_lengths("--backward-lengths", "backward_lengths", BACKWARD_LENGTHS, "Of forward and backward.")
@_lengths("--contexts", "contexts", CONTEXTS, "Tokens before the one that is decoded.")
@click.option(
    "--batches", type=BATCHES_TYPE, default=",".join(map(str, BATCHES)), show_default=True,
    help="Sequences x tokens of a training step of GPT-2 small, and of its attention alone.",
)  # fmt: skip
@click.option(
    "--n-layers", type=click.IntRange(min=1), default=12, show_default=True,
    help="Layers of that model.",
)  # fmt: skip
@click.option(
    "--vocab-size", type=click.IntRange(min=2), default=50_304, show_default=True,
    help="Tokens that it knows.",
)  # fmt: skip
@click.option("--rounds", "repeats", default=20, show_default=True, help="Rounds, in turns.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=450.0, show_default=True,
    help="What has not begun by then is left out.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with what --out does not have yet.")
def kernels(out: Path, attention: tuple[str, ...], resume: bool, **asked: Any) -> None:
    """Time the kernels against their competitors.

    These are PyTorch's fused attention, our PyTorch code, flash-linear-attention if it is installed
    and the exact kernel. Each of our kernels is first compared with our PyTorch code in float32,
    and not timed if it differs. All contestants of a length, a copy of the same bytes and a matrix
    product of as many operations are timed round-robin, and so are training steps of a language
    model. Targets are evaluated at the end. The command fails if anything was left out for lack of
    time.

    \b
    slay bench kernels --device cuda --out results/published/kernels/h100.jsonl
    slay bench kernels --device cuda --out results/published/kernels/h100.jsonl --resume
    """
    run = {name: asked.pop(name) for name in RUN}
    names = tuple(dict.fromkeys(ATTENTION.canonical(name) for name in attention))
    log = out.with_suffix(".log")
    for path in () if resume else (out, log):
        if path.exists():
            raise SlayError(
                f"{path}: is there already; --resume completes it, or name another --out"
            )
    if log == out:
        raise SlayError(f"{out}: the log is called so; name another --out")
    base = parsed(KernelParams, {"attention": names[0], **asked})
    command = shlex.join(["slay", *sys.argv[1:]])
    setting = BenchConfig(base=base, mechanisms=names, command=command, **run)
    if not setting.groups:
        raise SlayError(
            "--lengths, --backward-lengths, --contexts and --batches are empty: nothing to time"
        )
    before = read_records(out) if resume and out.exists() else []
    import torch

    from slay.experiments.isolated import want_a_gpu

    if base.device == "cuda":
        want_a_gpu("the benchmark itself, with short --lengths")
    _check(setting)
    if base.device == "cpu":
        torch.set_num_threads(1)
    _measure(setting, out, log, before)


def _check(setting: BenchConfig) -> None:
    """Raise `SlayError` for options that a mechanism rejects, or that none has."""
    from slay.attention.layer import options_of, unknown_option
    from slay.benchmarks.backends import mechanism_of
    from slay.registry import get_attention_class

    classes = [get_attention_class(name) for name in setting.mechanisms]
    for option in setting.base.options:
        if not any(option in options_of(cls) for cls in classes):
            raise unknown_option(classes[0], option)
    for name in setting.mechanisms:
        mechanism_of(setting.base.model_copy(update={"attention": name}), "torch")


def _measure(setting: BenchConfig, out: Path, log: Path, before: list[Record]) -> None:
    from slay.benchmarks.bench import BenchRunner
    from slay.benchmarks.tables import report

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise SlayError(f"{log}: cannot be written ({error.strerror})") from error
    with file:

        def say(text: str, err: bool = True) -> None:
            click.echo(text, err=err)
            print(text, file=file)

        say(f"$ {setting.command}")
        session = BenchRunner(setting, out, say, before)
        try:
            session.run()
        except KeyboardInterrupt:
            say("interrupted; what was measured is kept")
            raise
        finally:
            if session.records:
                say(report(session.records), err=False)
            for what in session.left_out:
                say(f"left out for lack of time: {what}", err=False)
        say(f"{out}: {len(session.records)} records", err=False)
    if session.left_out:
        raise SlayError(
            f"{len(session.left_out)} of {len(setting.groups)} groups were left out; "
            "the same command with --resume goes on with them"
        )


@bench.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show(file: Path) -> None:
    """Print a benchmark's tables and verdicts again.

    \b
    slay bench show results/published/kernels/h100.jsonl
    """
    from slay.benchmarks.tables import report

    records = read_records(file)
    other = next((r.experiment for r in records if r.experiment != "kernels"), None)
    if other is not None:
        raise SlayError(f"{file}: has records of {other!r}, not of kernels")
    click.echo(report(records))
