"""Shared by all commands: one-line errors, help grouped by subject."""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from slay.cli.names import completed
from slay.docstrings import docstring
from slay.errors import SlayError
from slay.pipeline.warm import forward

# Optional dependencies of commands, by the extra that installs them.
EXTRAS = {
    "pipeline": ("jinja2", "matplotlib", "pandas", "scipy", "snakemake", "yaml"),
    "train": ("datasets", "deepspeed", "pyarrow", "tensorboard", "tokenizers"),
    "transformers": ("transformers",),
    "wandb": ("wandb",),
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room on the disk, or none for this user
OUT_FILE = click.Path(path_type=Path, dir_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


class LazyGroup(click.Group):
    """A command group that prints a user's error as one line, without a traceback.

    `sections` maps headings of the help to names of commands. Commands in `homes` are imported on
    demand from the module named there.
    """

    def __init__(
        self,
        *args: Any,
        sections: dict[str, tuple[str, ...]],
        homes: dict[str, str],
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.sections, self.homes = sections, homes

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        there = {*self.commands, *self.homes}
        placed = [name for names in self.sections.values() for name in names if name in there]
        return [*placed, *sorted(there.difference(placed))]

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line, on a fork server (`slay.pipeline.warm`) if there is one, else here.

        It prints UTF-8 whatever the locale, so that generated pages are the same everywhere.
        """
        if not args and kwargs.get("args") is None:  # those of the command line
            status = forward(sys.argv[1:])
            if status is not None:
                sys.exit(status)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                with suppress(OSError):  # a file at start-up that is a pipe now
                    stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        _explained(self)
        return super().main(*args, **kwargs)

    def get_command(self, ctx: click.Context | None, name: str) -> click.Command | None:
        if name in self.homes:
            from importlib import import_module

            return _explained(completed(getattr(import_module(self.homes[name]), name)))
        return _explained(self.commands.get(name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        placed = {name for section in self.sections.values() for name in section}
        others = tuple(name for name in names if name not in placed)
        width = max(map(len, names))
        for title, section in {**self.sections, "Others": others}.items():
            found = [(name, self.get_command(ctx, name)) for name in section if name in names]
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width - width - 6))
                for name, command in found
                if command is not None
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SlayError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.filename is None and error.errno not in FULL:
                raise
            what = error.filename or "a file"
            done = "written" if error.errno in FULL else "read or written"
            raise click.ClickException(f"{what}: cannot be {done} ({error.strerror})") from error
        except ModuleNotFoundError as error:
            top = (error.name or "").partition(".")[0]
            extra = next((extra for extra, names in EXTRAS.items() if top in names), None)
            if extra is None:
                raise
            raise click.ClickException(
                f"this command needs {top}; install it with: pip install 'slay-attention[{extra}]'"
            ) from error


def _explained(command: click.Command | None) -> click.Command | None:
    """Restore the help of a command and its subcommands under `python -OO`."""
    if command is not None and sys.flags.optimize > 1:
        command.help = command.help or docstring(command.callback)
        for each in getattr(command, "commands", {}).values():
            _explained(each)
    return command
