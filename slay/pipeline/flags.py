"""Command-line flags made from a typed class: its fields' names, types, defaults, descriptions.

Such a class has `model_fields`, and an instance gives (name, value) pairs, as pydantic models do.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError

from slay.errors import SlayError
from slay.pipeline.config import error_line

Model = TypeVar("Model", bound=BaseModel)


def flags_of(cls: Any) -> list[click.Option]:
    """A flag for every field."""
    return [_flag(name, field) for name, field in cls.model_fields.items()]


def parsed(cls: type[Model], values: dict[str, Any]) -> Model:
    """Build an instance of `cls` from the values of its flags. Raises `SlayError`, one line."""
    try:
        return cls(**with_options(values))
    except ValidationError as error:
        raise SlayError(error_line(error, cls)) from error


def with_options(values: dict[str, Any]) -> dict[str, Any]:
    """Values of flags, with those of `--option` as a table."""
    if "options" in values:
        values = values | {"options": dict(_name_and_value(text) for text in values["options"])}
    return values


def words(model: Any) -> list[str]:
    """Return the flags that give `model`."""
    found: list[str] = []
    for name, value in model:
        flag = f"--{name.replace('_', '-')}"
        if name == "options":
            for key, option in sorted(value.items()):
                found += ["--option", f"{key}={option}"]
        elif isinstance(value, bool):
            by_default = type(model).model_fields[name].default
            found += [] if value == by_default else [flag if value else _no(flag)]
        elif value is not None and value != "":
            found += [flag, str(value)]
    return found


def _no(flag: str) -> str:
    """Flag that turns off what is on by default."""
    return flag.replace("--", "--no-", 1)


def _flag(name: str, field: Any) -> click.Option:
    if name == "options":
        return click.Option(
            ["--option", "options"],
            multiple=True,
            metavar="NAME=VALUE",
            help=f"{field.description} May be given several times.",
        )
    flag = f"--{name.replace('_', '-')}"
    kind, default = _click_type(field.annotation), field.default
    if kind is click.BOOL:
        names = [f"{flag}/{_no(flag)}" if default else flag, name]
        return click.Option(
            names, is_flag=True, default=default, show_default=default, help=field.description
        )
    if field.is_required():
        return click.Option([flag, name], type=kind, required=True, help=field.description)
    return click.Option(
        [flag, name],
        type=kind,
        default=default,
        show_default=default is not None and default != "",
        help=field.description,
    )


def _click_type(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):  # type | None
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    return {int: click.INT, float: click.FLOAT, bool: click.BOOL}.get(annotation, click.STRING)


def _name_and_value(text: str) -> tuple[str, str]:
    """An option of a mechanism from the command line: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SlayError(f"--option {text!r}: write NAME=VALUE")
    return name, value
