"""Registries of names and import paths; objects are imported on demand.

Loading on demand keeps start-up short and the set of files that a job depends on small and exact.
This module is left out of code fingerprints (see `slay.pipeline.fingerprint`): a new entry must not
invalidate measurements of the others. A job's own entry is part of its fingerprint instead.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from slay.errors import SlayError, unknown
from slay.task_groups import PATHS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+|\.<locals>)*")


class Registry:
    """A table of names, each standing for `package.module:attribute`."""

    def __init__(self, kind: str, paths: dict[str, str], aliases: dict[str, str] | None = None):
        self.kind = kind
        self._paths = dict(paths)
        self._aliases = dict(aliases or {})
        self._objects: dict[str, Any] = {}
        self._plugs: dict[str, str] = {}

    def names(self) -> list[str]:
        """Every name, without aliases, in the order of the table."""
        return list(self._paths)

    def aliases(self, name: str) -> list[str]:
        """Aliases of a name."""
        name = self.canonical(name)
        return [alias for alias, full in self._aliases.items() if full == name]

    def canonical(self, name: str, where: str = "") -> str:
        """The table's name for `name`, which may be an alias. Raises `UnknownNameError`."""
        if isinstance(name, str):
            name = self._aliases.get(name, name)
        if not isinstance(name, str) or name not in self._paths:
            raise unknown(self.kind, name, [*self._paths, *self._aliases], where)
        return name

    def path(self, name: str) -> str:
        """`package.module:attribute` of a name."""
        return self._paths[self.canonical(name)]

    def module(self, name: str) -> str:
        """Dotted name of the module that defines a name."""
        return self.path(name).partition(":")[0]

    def load(self, name: str) -> Any:
        """Import and return the object registered under a name."""
        name = self.canonical(name)
        if name not in self._objects:
            module, _, attribute = self._paths[name].partition(":")
            try:
                self._objects[name] = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                if name not in self._plugs:
                    raise
                raise SlayError(f"{self.kind} {name!r} at {self._paths[name]}: {error}") from error
        return self._objects[name]

    def add(self, name: str, obj: Any) -> None:
        """Add an object under a new name. Raises `SlayError` if the name is taken.

        An object that is defined again, as when a notebook cell is rerun, replaces the older one.
        """
        if self._objects.get(name) is obj:
            raise self._taken(name)
        self._enter(name, f"{obj.__module__}:{obj.__qualname__}")
        self._objects[name] = obj

    def plug(self, name: str, path: str) -> None:
        """Register `module:attribute` under a new name, without importing it yet.

        Modules in the working directory are found too. Raises `SlayError` if the name is taken or
        the path is malformed.
        """
        self._enter(name, path)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())

    def _enter(self, name: str, path: str) -> None:
        if self._plugs.get(name) == path:
            return
        if name in self._paths or name in self._aliases:
            raise self._taken(name)
        if not NAME.fullmatch(name):
            raise SlayError(f"{self.kind} {name!r}: a name has letters, digits and . _ - only")
        if not PATH.fullmatch(path):
            raise SlayError(f"{self.kind} {name!r}: {path!r} should be module:Class")
        self._paths[name] = self._plugs[name] = path

    def _taken(self, name: str) -> SlayError:
        return SlayError(
            f"{self.kind} {name!r} is registered already, as {self.path(name)}; choose another name"
        )

    def plugged(self, names: Iterable[str]) -> dict[str, str]:
        """Paths of those names that are external."""
        return {name: self._plugs[name] for name in names if name in self._plugs}


ATTENTION = Registry(
    "attention mechanism",
    {
        "standard": "slay.attention.standard:StandardAttention",
        "yat": "slay.attention.yat:YatAttention",
        "yat-spherical": "slay.attention.yat_spherical:SphericalYatAttention",
        "uniform": "slay.attention.uniform:UniformAttention",
        "linear": "slay.attention.elu:EluAttention",
        "performer": "slay.attention.performer:PerformerAttention",
        "cosformer": "slay.attention.cosformer:CosformerAttention",
        "rff": "slay.attention.rff:FourierAttention",
        "yat-performer-anchor": "slay.attention.yat_performer_anchor:AnchorAttention",
        "yat-performer-laplace": "slay.attention.yat_performer_laplace:LaplaceAttention",
        "yat-performer": "slay.attention.yat_performer:HadamardAttention",
        "yat-performer-tensor": "slay.attention.yat_performer_tensor:SketchAttention",
        "yat-performer-rm": "slay.attention.yat_performer_rm:MaclaurinAttention",
        "yat-performer-nystrom": "slay.attention.yat_performer_nystrom:NystromAttention",
        "yat-quadratic": "slay.attention.yat_quadratic:QuadraticAttention",
        "yat-cubic": "slay.attention.yat_cubic:CubicAttention",
    },
    aliases={
        "yat-exact": "yat",
        "yat-exact-spherical": "yat-spherical",
        "yat-performer-anchors": "yat-performer-anchor",
        "yat-performer-hadamard": "yat-performer",
        "yat-performer-laplace-only": "yat-performer-laplace",
        "yat-performer-tensorsketch": "yat-performer-tensor",
        "yat-performer-random-maclaurin": "yat-performer-rm",
    },
)

TASKS = Registry("task", PATHS)

EXPERIMENTS = Registry(
    "experiment",
    {
        "quality": "slay.experiments.quality:run",
        "scaling": "slay.benchmarks.scaling:run",
        "ablation": "slay.benchmarks.ablation:run",
        "max_context": "slay.benchmarks.max_context:run",
        "tasks": "slay.experiments.tasks:run",
        "analysis": "slay.experiments.analysis:run",
        "language": "slay.experiments.language:run",
    },
)

INPUTS = Registry(
    "inputs",
    {
        "isotropic": "slay.experiments.inputs:isotropic",
        "planted": "slay.experiments.inputs:planted",
        "trained": "slay.experiments.trained:trained",
    },
)


def get_attention_class(name: str) -> Any:
    """Return the class of a mechanism by name or alias. Raises `UnknownNameError`."""
    return ATTENTION.load(name)


def list_attention_types() -> list[str]:
    """Return the names of all mechanisms, exact ones first."""
    return ATTENTION.names()


def register_attention(name: str) -> Any:
    """Class decorator that registers an external mechanism under `name`."""

    def decorate(cls: Any) -> Any:
        ATTENTION.add(name, cls)
        return cls

    return decorate
