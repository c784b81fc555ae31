"""Jobs: the path of each record, the command that makes it, the code it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slay.errors import SlayError
from slay.pipeline import plugins, texts
from slay.pipeline.config import Asked, Config
from slay.pipeline.fingerprint import fingerprint
from slay.pipeline.flags import words
from slay.pipeline.params import Params, word
from slay.registry import ATTENTION


@dataclass(frozen=True)
class Job:
    """One measurement."""

    params: Params
    path: str  # of the record

    @property
    def experiment(self) -> str:
        return self.params.experiment

    @cached_property
    def codes(self) -> dict[str, str]:
        """Fingerprint of the code and files that the result depends on, by kind of device."""
        return {device: code(self.params, device) for device in self.params.devices}

    @property
    def argv(self) -> list[str]:
        """Arguments after `slay run`, without --out and --threads."""
        return [self.experiment, *flags(self.params)]

    def expected(self) -> dict[str, Any]:
        """Path (relative to the run's folder), parameters and code that the record must have."""
        path = self.path.split("/", 2)[2]
        return {"path": path, "params": self.params.model_dump(), "codes": self.codes}


def code(params: Params, device: str) -> str:
    """Fingerprint of the import closure of a job on "cpu" or "cuda", and of the files it reads."""
    of_code = fingerprint(params.modules(), kernels=params.needs_kernels(device))
    of_files = texts.digest(params.files())
    return digest(f"{of_code} {of_files}") if of_files else of_code


def flags(params: Params) -> list[str]:
    """Return the flags that give these parameters."""
    return words(params) + plugins.words([params.attention])


def expand(config: Config) -> dict[str, list[Job]]:
    """Every job of a run, by experiment, in the order of the configuration.

    Raises `SlayError` if two different jobs would write the same record, or if an external
    mechanism cannot be found.
    """
    for name in config.plugins:
        try:
            fingerprint([ATTENTION.module(name)])
        except SlayError as error:
            raise SlayError(f"plugins.{name}: {error}") from error
    jobs: dict[str, dict[str, Job]] = {}
    for experiment, points in config.grids().items():
        table = jobs.setdefault(experiment, {})
        for params, asked in points:
            job = Job(params, f"results/{config.run}/records/{experiment}/{_place(params, asked)}")
            try:
                job.codes  # noqa: B018  (computed here, so that an error is one line)
            except SlayError as error:
                where = f"experiments.{experiment}: {params.attention}"
                raise SlayError(f"{where}: {error}") from error
            if max(map(len, job.path.split("/"))) > 240:  # a file's name has 255 at most
                raise SlayError(f"experiments.{experiment}: too long for a file's name: {job.path}")
            if table.setdefault(job.path, job).params != params:
                raise SlayError(
                    f"experiments.{experiment}: two grids give {job.path} with different settings; "
                    "a record's path names only what one grid varies: give both values in one"
                )
    return {experiment: list(table.values()) for experiment, table in jobs.items()}


def _place(params: Params, asked: Asked) -> str:
    """A record's path under its experiment: mechanism, variant, setting."""
    attention, _, rest = params.place().partition("/")
    # The plus of 1e+30 is dropped: a plus separates words.
    words = [(key, word(str(value).replace("+", ""))) for key, value in asked]
    variant = "+".join(f"{key}={text}" for key, text in sorted(words))
    return "/".join([attention, *([variant] if variant else []), f"{rest}.json"])


def manifest(jobs: list[Job]) -> str:
    """Expected records of an experiment as JSON: the contract between workflow and report."""
    lines = (json.dumps(job.expected(), sort_keys=True) for job in jobs)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def plans(config: Config, data: Mapping[str, Any], jobs: dict[str, list[Job]]) -> dict[str, str]:
    """Contents of the files that the report reads besides records, by name in the run's folder.

    `data` is the configuration as it was read, with grids that are not expanded.
    """
    files = {f"manifests/{name}.json": manifest(group) for name, group in jobs.items()}
    settings = {**config.model_dump(), "experiments": data["experiments"]}  # and defaults
    return {**files, "config.json": json.dumps(settings, sort_keys=True) + "\n"}


def digest(text: str) -> str:
    """A short digest of a text: 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
