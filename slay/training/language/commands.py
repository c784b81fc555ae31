"""`slay train`, `slay export`, `slay generate` and `slay data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from slay.docstrings import docstring
from slay.fields import renamed_flag
from slay.pipeline.flags import flags_of, with_options
from slay.pipeline.plugins import PLUGIN
from slay.training.language.config import TrainConfig

FOLDER = click.Path(path_type=Path, file_okay=False)


def _train(threads: int, **values: Any) -> None:
    """Train a GPT with any attention mechanism.

    Trains in a single process. The same command resumes a training that was interrupted. For
    several processes: deepspeed --module slay.training.language, with the same flags.

    \b
    slay train --attention linear --embed-dim 128 --n-layers 4 --n-heads 4 \\
        --context-len 128 --batch-size 16 --lr 2e-3 --warmup 50 --steps 600
    """
    config = TrainConfig.of(**with_options(values))
    import torch

    from slay.training.language.train import command

    if threads:
        torch.set_num_threads(threads)
    command(config, distributed=False)


train = click.Command(
    "train",
    params=[
        *flags_of(TrainConfig),
        click.Option(
            ["--threads"], type=click.IntRange(min=0), default=0, help="Threads; 0: all cores."
        ),
        PLUGIN,
    ],
    callback=_train,
    help=docstring(_train),
    context_settings={"token_normalize_func": renamed_flag},
)


@click.command()
@click.argument("checkpoint", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
def export(checkpoint: Path, out: Path) -> None:
    """Write a trained model for use elsewhere.

    Writes safetensors, configuration and tokenizer, which `slay.models.gpt.load` and `slay
    generate` read. CHECKPOINT is the folder of a step, or of a run, whose last step is taken.

    \b
    slay export checkpoints/yat-quadratic --out model
    """
    from slay.training.language.export import export_model

    facts = export_model(checkpoint, out)
    click.echo(f"{out}: {facts['attention']} after step {facts['step']}")


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--prompt", default="def ", show_default=True, help="Text to continue.")
@click.option(
    "--max-new-tokens", type=int,
    help="Tokens to add at most. Default: 200, or what is left of learned positions.",
)  # fmt: skip
@click.option("--temperature", default=0.8, show_default=True, help="0 takes the likeliest.")
@click.option("--top-k", type=int, help="Draw from the k likeliest tokens only.")
@click.option("--top-p", type=float, help="Draw from the likeliest that add up to this much.")
@click.option("--seed", default=0, show_default=True, help="Of the draws.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Device to compute on.",
)  # fmt: skip
def generate(model: Path, prompt: str, **how: Any) -> None:
    """Continue a text with a model that `slay export` wrote.

    \b
    slay generate model --prompt "def main(" --max-new-tokens 100
    """
    from slay.training.language.export import continuations

    for piece in continuations(model, prompt, **how):
        click.echo(piece, nl=False)
    click.echo()


for takes_a_model in (export, generate):
    takes_a_model.params.append(PLUGIN)


@click.group()
def data() -> None:
    """Convert text to token files for training.

    \b
    slay data prepare notes.txt --out tokens
    """


@data.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option(
    "--tokenizer",
    default="bytes",
    show_default=True,
    help="bytes, a tokenizer.json, or a name on the Hugging Face hub such as gpt2.",
)
@click.option(
    "--held-out", type=click.FloatRange(0, 0.5, max_open=True), default=0.05, show_default=True,
    help="Share of the documents for validation, and as much again for testing; 0: none.",
)  # fmt: skip
def prepare(files: tuple[str, ...], out: Path, tokenizer: str, held_out: float) -> None:
    """Convert text to token files for `slay train --data`.

    Writes train.bin, validation.bin and test.bin. FILES are .txt (one document each), .jsonl, .json
    or .parquet (one document per row, in a column `text`), or fineweb. If there are too few
    documents for all splits, each document is cut into three.

    \b
    slay data prepare notes.txt --out tokens
    """
    from slay.training.language.prepare import prepare_tokens

    for facts in prepare_tokens(files, out, tokenizer, held_out, click.echo):
        click.echo(
            f"{facts.name}: {facts.documents:,} documents, {facts.tokens:,} tokens, "
            f"{facts.bytes:,} bytes"
        )
