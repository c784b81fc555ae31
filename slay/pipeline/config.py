"""Typed configuration of a run; every error is one line that names the key.

An experiment is a list of grids. A grid sets parameters of the experiment
(`slay.pipeline.params`); a list of values is an axis, and the grid expands to every combination of
its axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from slay.epsilon import MEASURED_EPSILON
from slay.errors import SlayError, shown, unknown
from slay.fields import Line, Options, Positive, read_option
from slay.pipeline.params import PARAMS, Params
from slay.pipeline.provenance import PACKAGE
from slay.registry import ATTENTION
from slay.task_groups import expand_tasks

Grid = dict[str, Any]
Asked = list[tuple[str, Any]]  # (name, value) of what a grid sets and `Params.place` omits


def _different(names: list[str]) -> list[str]:
    """Return canonical names of mechanisms; raise `SlayError` for duplicates."""
    full = [ATTENTION.canonical(name) for name in names]
    repeated = next((name for i, name in enumerate(full) if name in full[:i]), None)
    if repeated is not None:
        raise SlayError(f"{repeated!r} is listed twice")
    return full


NAMES = ("run", "title")  # keys whose values are text even if they look like numbers
# Parameters of type str, even if their values look like numbers.
TEXTS = {n for cls in PARAMS.values() for n, f in cls.model_fields.items() if f.annotation is str}


class ConfigError(SlayError):
    """Invalid configuration."""


class Config(BaseModel):
    """A run: its name, the settings that all experiments share, and each experiment's grids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")  # the folder results/<run>
    title: Line = Field(min_length=1, max_length=200)  # a phrase for the first page of the paper
    device: Literal["auto", "cpu", "cuda"] = "auto"
    epsilon: Positive = MEASURED_EPSILON
    plugins: dict[str, str] = {}  # external mechanisms: name to module:Class
    attention: Annotated[list[str], Field(min_length=1), AfterValidator(_different)]
    options: dict[str, Options] = {}
    experiments: dict[str, list[Grid]]
    only: dict[str, list[Any]] = {}  # restricts the run to jobs with one of these values

    @field_validator("plugins")
    @classmethod
    def _plug(cls, plugins: dict[str, str]) -> dict[str, str]:
        for name, path in plugins.items():
            ATTENTION.plug(name, path)
        return plugins

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(_different(list(options)), options.values(), strict=True))

    @field_validator("experiments")
    @classmethod
    def _known_experiments(cls, experiments: dict[str, Any]) -> dict[str, Any]:
        for name, grids in experiments.items():
            if name not in PARAMS:
                raise unknown("experiment", name, PARAMS)
            if not grids:
                raise SlayError(f"{name}: an empty list asks for nothing")
        return experiments

    @field_validator("only", mode="before")
    @classmethod
    def _known_parts(cls, only: Any) -> Any:
        if not isinstance(only, dict):
            raise ValueError("should be a table of parameters and values")
        known = {"experiment"}.union(*(params.model_fields for params in PARAMS.values()))
        parts = {}
        for key, value in only.items():
            if key not in known:
                raise unknown("key", key, sorted(known))
            values = value if isinstance(value, list) else [value]
            if not values:
                raise SlayError(f"{key}: an empty list asks for nothing")
            if key == "attention":
                values = [ATTENTION.canonical(name) for name in values]
            if key == "task":
                values = expand_tasks(values)
            values = [v if isinstance(v, str) else read_option(v) for v in values]
            for name in values if key == "experiment" else []:
                if name not in PARAMS:
                    raise unknown("experiment", name, PARAMS)
            parts[key] = values
        return parts

    def jobs(self, experiment: str) -> list[tuple[Params, Asked]]:
        """Every job of an experiment: its parameters, and the options and axes in its path."""
        jobs: list[tuple[Params, Asked]] = []
        for index, grid in enumerate(self.experiments.get(experiment, [])):
            where = f"experiments.{experiment}[{index}]"
            points = _points(_with_tasks(grid, where), where)
            made = [(self._job(experiment, point, where), point) for point in points]
            axes = _unnamed_axes(grid, made[0][0])
            jobs += [
                (
                    params,
                    [*point.get("options", {}).items(), *((a, getattr(params, a)) for a in axes)],
                )
                for params, point in made
            ]
        return [job for job in jobs if self._wanted(job[0])]

    def _wanted(self, params: Params) -> bool:
        """Return True if `only` selects a job; Snakemake's command line passes numbers as text."""
        facts = _facts(params)
        return all(
            facts[key] in map(str, values) for key, values in self.only.items() if key in facts
        )

    def _check_only(self) -> None:
        """Raise `ConfigError` if a value in `only` matches no job; for tasks, if all match none."""
        if not self.only:
            return
        grids = self.model_copy(update={"only": {}}).grids()
        facts = [_facts(params) for jobs in grids.values() for params, _ in jobs]
        for key, values in self.only.items():
            there = {fact[key] for fact in facts if key in fact}
            absent = [value for value in values if str(value) not in there]
            if absent and (key != "task" or len(absent) == len(values)):
                raise ConfigError(f"only.{key}: no job of this run has {shown(absent[0])}")
        if not any(self.grids().values()):
            raise ConfigError(f"only: no job of this run has all of {shown(self.only)}")

    def _job(self, experiment: str, point: Grid, where: str) -> Params:
        """Parameters for one combination of a grid, with the run's shared settings as defaults."""
        cls = PARAMS[experiment]
        for key in point:
            if key not in cls.model_fields:
                raise unknown("key", key, cls.model_fields, where)
        name = ATTENTION.canonical(point["attention"], f"{where}.attention")
        shared = {"device": self.device, "epsilon": self.epsilon}
        options = {**self.options.get(name, {}), **point.get("options", {})}
        try:
            return cls(**{**shared, **point, "options": options})
        except ValidationError as error:
            raise ConfigError(error_line(error, cls, where)) from error

    def grids(self) -> dict[str, list[tuple[Params, Asked]]]:
        """The jobs of every experiment. Raises `SlayError` at the first invalid key."""
        return {experiment: self.jobs(experiment) for experiment in self.experiments}

    def _with_attention(self) -> Config:
        """Copy of the run whose grids without `attention` list the run's mechanisms."""
        experiments = {
            name: [{"attention": self.attention, **grid} for grid in grids]
            for name, grids in self.experiments.items()
        }
        return self.model_copy(update={"experiments": experiments})


def default_file() -> Path:
    """Default configuration file: that of the working directory, else the project's."""
    here = Path("config/config.yaml")
    there = PACKAGE.parent / here
    return there if there.is_file() and not here.exists() else here


def read(path: Path) -> tuple[dict[str, Any], Config]:
    """Return a YAML file's data and the configuration built from it. Raises `SlayError`."""
    from slay.yaml_files import read_yaml

    data = read_yaml(path, names=NAMES)
    return data, load(data, str(path))


def as_typed(config: dict[str, Any], files: Iterable[Path], words: Iterable[str]) -> None:
    """Correct types, in place, in a configuration parsed by Snakemake.

    `run` and `title` become the text that was written, nested numbers in text become numbers.
    `files` were read first, then `words`, the KEY=VALUE arguments of its command line, in which
    Snakemake leaves nested numbers as text. Raises `SlayError` for a duplicate key.
    """
    from slay.yaml_files import parse, read_yaml

    names: dict[str, str] = {}
    for path in files:
        names.update(read_yaml(path, names=NAMES) or {})
    for word in words:
        key, _, text = word.partition("=")
        names[key] = text
        if isinstance(config.get(key), dict | list):
            parse(text, f"--config {key}")
            config[key] = _with_numbers(config[key])
    for key in NAMES:
        if key in names and not isinstance(config.get(key), str):
            config[key] = names[key]


def _with_numbers(value: Any, key: str = "") -> Any:
    """Convert integers given as text to int, except under keys whose type is str."""
    if isinstance(value, dict):
        return {name: _with_numbers(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner, key) for inner in value]
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,60}", value)
    return int(value) if is_number and key not in TEXTS else value


def load(data: Mapping[str, Any], where: str = "config") -> Config:
    """Validate a configuration as read from YAML; every grid is expanded once to check it.

    Raises `SlayError`: one line with the key, its value, what is allowed and the nearest match.
    """
    try:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{shown(data)} should be a table of keys and values")
        config = Config.model_validate(dict(data))._with_attention()
        config._check_only()
        config.grids()
    except ValidationError as error:
        raise ConfigError(f"{where}: {error_line(error, Config)}") from error
    except SlayError as error:
        raise ConfigError(f"{where}: {error}") from error
    return config


def _with_tasks(grid: Grid, where: str) -> Grid:
    """Expand groups of tasks, such as "memory/*", in a grid."""
    if "task" not in grid or grid["task"] == []:
        return grid
    asked = grid["task"] if isinstance(grid["task"], list) else [grid["task"]]
    try:
        return {**grid, "task": expand_tasks(asked)}
    except SlayError as error:
        raise ConfigError(f"{where}.task: {error}") from error


def _points(grid: Grid, where: str) -> list[Grid]:
    """Every combination of a grid's axes; lists under `options` are axes too."""
    axes: list[list[tuple[tuple[str, ...], Any]]] = []
    flat: dict[tuple[str, ...], Any] = {
        (key,): value for key, value in grid.items() if key != "options"
    }
    options = grid.get("options", {})
    if not isinstance(options, dict):
        raise ConfigError(
            f"{where}.options: {shown(options)} should be a table of names and values"
        )
    flat |= {("options", key): value for key, value in options.items()}
    for path, value in flat.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ConfigError(f"{_place(where, *path)}: an empty list asks for nothing")
        repeated = next((v for i, v in enumerate(values) if v in values[:i]), None)
        if repeated is not None:
            raise ConfigError(f"{_place(where, *path)}: {shown(repeated)} is listed twice")
        axes.append([(path, v) for v in values])
    points = []
    for combination in product(*axes):
        point: Grid = {}
        for path, value in combination:
            if len(path) == 1:
                point[path[0]] = value
            else:
                point.setdefault("options", {})[path[1]] = value
        points.append(point)
    return points


def _unnamed_axes(grid: Grid, params: Params) -> list[str]:
    """Axes of a grid for which `Params.place` does not distinguish all values, listed or not."""
    axes = []
    for key, values in grid.items():
        if not isinstance(values, list) or key in ("attention", "options"):
            continue
        others = [params.model_copy(update={key: v}) for v in [*values, "another"]]
        if len({other.place() for other in others}) <= len(values):
            axes.append(key)
    return axes


def error_line(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """Format the first error of a validation as one line."""
    # A misspelt key is also reported as missing; report the spelling.
    first: ErrorDetails = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    keys = [part for part in first["loc"] if part not in ("int", "constrained-int", "[key]")]
    place = _place(where, *keys)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        key = keys[-1] if first["type"] == "extra_forbidden" else first["input"]
        return str(unknown("key", key, model.model_fields, where))
    if first["type"] == "missing":
        return f"{place}: this key is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    ours = isinstance(first.get("ctx", {}).get("error"), SlayError)  # a line that names the value
    if ours or not keys:
        return f"{place}: {message}" if place else message
    return f"{place}: {shown(first['input'])} {message}"


def _place(*keys: object) -> str:
    """Format the path of a key, as "experiments.tasks[0].lr"."""
    place = ""
    for key in filter(lambda key: key != "", keys):
        if isinstance(key, int):
            place += f"[{key}]"
        else:
            plain = isinstance(key, str) and key.isprintable() and len(key) <= 64
            word = str(key) if plain else shown(key)
            place += f".{word}" if place else word
    return place


def _facts(params: Params) -> dict[str, str]:
    """Fields of a job that `only` can select by, as text."""
    facts = {"experiment": params.experiment, **params.model_dump()}
    return {key: str(value) for key, value in facts.items()}
