"""The flag --plugin: external mechanisms on a command line."""

from __future__ import annotations

from collections.abc import Iterable

import click

from slay.errors import SlayError
from slay.registry import ATTENTION


def words(names: Iterable[str]) -> list[str]:
    """Return the --plugin flags of those mechanisms that are external."""
    plugged = ATTENTION.plugged(names).items()
    return [word for name, path in plugged for word in ("--plugin", f"{name}={path}")]


def _plug(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    for text in values:
        name, _, path = text.partition("=")
        try:
            ATTENTION.plug(name, path)
        except SlayError as error:
            raise click.ClickException(str(error)) from error


PLUGIN = click.Option(
    ["--plugin"],
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_plug,
    metavar="NAME=MODULE:CLASS",
    help="A mechanism from outside this package, to be known as NAME. May be given several times.",
)
