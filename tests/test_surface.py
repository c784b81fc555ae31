"""What users can call does not shrink: names, options, commands with flags, configuration keys.

`surface.txt` has a line for each. `python tests/test_surface.py` adds what is new to it. A line
that is gone or changed fails, unless `MOVED` says where it went and the former name still works.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest

import slay
from slay.cli import main
from slay.registry import ATTENTION

FILE = Path(__file__).with_name("surface.txt")
LAUNCHED = "deepspeed --module slay.training.language"
MODULES = ("slay.models.gpt", "slay.integrations.transformers")

# Former names that are still accepted, and today's.
MOVED = {
    **{
        f"{command} --{former}": f"{command} --{name}"
        for command in ("slay train", LAUNCHED)
        for former, name in [
            ("total-steps", "steps"), ("warmup-steps", "warmup"), ("untied", "no-tie-head"),
        ]
    },
    "slay.models.gpt.GPTConfig(block_size)": "slay.models.gpt.GPTConfig(context_len)",
    "slay.models.gpt.GPTConfig(checkpoint)": "slay.models.gpt.GPTConfig(gradient_checkpointing)",
}  # fmt: skip


def surface() -> dict[str, str]:
    """What there is, and its details: signature, type, default."""
    lines = {}
    parts = (names(), mechanisms(), commands(main, "slay"), commands(launched(), LAUNCHED), keys())
    for part in parts:
        lines.update(part)
    return dict(sorted(lines.items()))


def names() -> Iterator[tuple[str, str]]:
    """Functions and classes with their parameters, and classes with their methods."""
    for name in slay.__all__:
        yield from _callable(f"slay.{name}", getattr(slay, name))
    features = importlib.import_module("slay.features")
    found = [f"slay.features.{module.name}" for module in pkgutil.iter_modules(features.__path__)]
    for path in (*MODULES, *found):
        module = importlib.import_module(path)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == path and not name.startswith("_")
            if own and (inspect.isclass(value) or (path in MODULES and callable(value))):
                yield from _callable(f"{path}.{name}", value)


def _callable(where: str, value: Any) -> Iterator[tuple[str, str]]:
    yield where, type(value).__name__
    if not callable(value) or getattr(value, "_is_protocol", False):
        return
    for place, (name, parameter) in enumerate(inspect.signature(value).parameters.items()):
        at = "named" if parameter.kind is parameter.KEYWORD_ONLY else str(place)
        if name != "self":
            yield f"{where}({name})", at + _default(parameter.default)
    for name, method in vars(value).items() if inspect.isclass(value) else ():
        if not name.startswith("_") and inspect.isfunction(method):
            yield from _callable(f"{where}.{name}", method)


def _default(value: Any) -> str:
    """A default as text, none of it of this machine; nothing for one that is computed."""
    text = f" = {value!r}".replace(str(Path(slay.__file__).parents[1]), "")
    absent = value in ("", inspect.Parameter.empty) or callable(value) or "UNSET" in text
    return "" if absent else text


def mechanisms() -> Iterator[tuple[str, str]]:
    """Mechanisms with their options, and tasks."""
    from slay.attention.layer import Attention, options_of

    shared = options_of(Attention)
    yield from ((f"every mechanism {option}", repr(value)) for option, value in shared.items())
    for name in ATTENTION.names():
        yield f"mechanism {name}", " ".join(ATTENTION.aliases(name))
        options = options_of(slay.get_attention_class(name))
        for option in {**shared, **options}:
            if option not in options or shared.get(option, ...) != options[option]:
                yield f"mechanism {name} {option}", repr(options.get(option, "refused"))
    yield from ((f"task {name}", "") for name in slay.list_tasks())


def commands(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Commands with their arguments and flags."""
    yield path, "command"
    for param in command.params:
        kind = param.type
        shown = "|".join(kind.choices) if isinstance(kind, click.Choice) else kind.name
        default = "" if param.default is None else _default(param.default)
        needed = ", required" * param.required + ", several" * (param.multiple or param.nargs < 0)
        for name in (*param.opts, *param.secondary_opts):
            yield f"{path} {name}", shown + default + needed
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


def launched() -> click.Command:
    """The command that DeepSpeed's launcher starts in each process."""
    found: list[click.Command] = []
    with mock.patch.object(click.Command, "__call__", lambda command: found.append(command)):
        runpy.run_module("slay.training.language", run_name="__main__")
    return found[0]


def keys() -> Iterator[tuple[str, str]]:
    """Keys of configurations: of a run, and of each experiment's grids."""
    try:
        from slay.pipeline.config import Config
        from slay.pipeline.params import PARAMS
    except ImportError:  # the surface of an older version
        from slay.config import Config
        from slay.params import PARAMS
    for path, cls in {"": Config, **{f"{name}.": cls for name, cls in PARAMS.items()}}.items():
        for name, facts in cls.model_json_schema()["properties"].items():
            known = {k: v for k, v in facts.items() if k not in ("title", "description")}
            yield f"key {path}{name}", json.dumps(known, sort_keys=True)


def recorded() -> dict[str, str]:
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}


@pytest.fixture(scope="module")
def today() -> dict[str, str]:
    return surface()


def test_nothing_is_lost(today):
    lost = [
        f"{name}: {details}"
        for name, details in recorded().items()
        if name not in MOVED and today.get(name) != details
    ]
    assert not lost, "gone or changed; see MOVED in tests/test_surface.py:\n" + "\n".join(lost)


@pytest.mark.parametrize("former", [name for name in MOVED if " --" in name])
def test_a_flag_that_moved_is_still_accepted(former, today):
    path, name = MOVED[former].rsplit(" ", 1)
    details = recorded()[former]
    assert name == "--no-tie-head" or details == today[f"{path} {name}"]
    command = launched() if path == LAUNCHED else main.get_command(click.Context(main), "train")
    value = [] if details.startswith("boolean") else ["7"]
    given = [
        command.make_context(path, [flag, *value], click.Context(main)).params
        for flag in (former.rsplit(" ", 1)[1], name)
    ]
    assert given[0] == given[1] != command.make_context(path, [], click.Context(main)).params


@pytest.mark.parametrize("former", [name for name in MOVED if "(" in name])
def test_a_keyword_that_moved_is_still_accepted(former, today):
    assert recorded()[former] == today[MOVED[former]]
    (path, old), (_, new) = (name.rstrip(")").split("(") for name in (former, MOVED[former]))
    module, _, name = path.rpartition(".")
    build = getattr(importlib.import_module(module), name)
    given = build(7, **{old: 5})
    assert given == build(7, **{new: 5}) != build(7)
    assert getattr(given, old) == getattr(given, new) == 5
    assert dataclasses.replace(given, **{old: 6}) == build(7, **{new: 6})


if __name__ == "__main__":
    lines = {**surface(), **recorded()}
    FILE.write_text("".join(f"{name}: {lines[name]}\n" for name in sorted(lines)), "utf-8")
