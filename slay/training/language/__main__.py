"""`deepspeed --module slay.training.language …`: entry point of each launched process."""

from __future__ import annotations

import sys
from typing import Any

import click

from slay.docstrings import docstring
from slay.errors import SlayError
from slay.fields import renamed_flag
from slay.files import WriteError
from slay.pipeline.flags import flags_of, with_options
from slay.pipeline.plugins import PLUGIN
from slay.training.language.config import TrainConfig
from slay.training.language.engine import processes


def main(**values: Any) -> None:
    """Train a GPT with any attention mechanism through DeepSpeed."""
    values.pop("local_rank")
    rank, _ = processes()
    try:
        config = TrainConfig.of(**with_options(values))
        import deepspeed

        from slay.training.language.train import command

        deepspeed.init_distributed()
        command(config, distributed=True)
    except SlayError as error:
        if rank == 0 or isinstance(error, WriteError):  # which may occur on one rank only
            print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    local_rank = click.Option(["--local_rank", "--local-rank"], type=int, hidden=True)
    click.Command(
        "slay.training.language",
        params=[*flags_of(TrainConfig), PLUGIN, local_rank],
        callback=main,
        help=docstring(main),
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            "token_normalize_func": renamed_flag,
        },
    )()
