"""Claims: sentences with a predicate over the results, evaluated at every build.

A sentence cannot contradict its data: `claim(id)` returns it if it holds, marks it if it fails,
and returns nothing if the run lacks a number; the table of claims lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
from pydantic import BaseModel, ConfigDict, ValidationError

from slay.errors import SlayError, unknown
from slay.report.latex import Latex
from slay.report.results import Missing, MissingError
from slay.yaml_files import read_yaml


class Claim(BaseModel):
    """One entry of paper/claims.yaml."""

    model_config = ConfigDict(extra="forbid")

    id: str
    source: Literal["ours", "paper", "readme"]  # the last two: of the original study
    sentence: str  # a LaTeX template over `values`
    values: dict[str, str]  # name -> expression over the results
    holds: str  # expression over `values`


@dataclass(frozen=True)
class Verdict:
    """The evaluation of a claim on a run."""

    claim: Claim
    status: Literal["holds", "fails", "untested"]
    text: Latex


def judge(path: Path, env: jinja2.Environment, context: dict[str, Any]) -> dict[str, Verdict]:
    """Verdicts on every claim of a file, by id, in file order."""
    verdicts: dict[str, Verdict] = {}
    for entry in read_yaml(path):
        try:
            claim = Claim.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise SlayError(f"{path}: claim {entry.get('id')!r}: {key}: {first['msg']}") from error
        if claim.id in verdicts:
            raise SlayError(f"{path}: claim {claim.id!r} stands there twice")
        verdicts[claim.id] = _judge(claim, path, env, context)
    return verdicts


def _judge(claim: Claim, path: Path, env: jinja2.Environment, context: dict[str, Any]) -> Verdict:
    values: dict[str, Any] = {}
    try:
        for name, expression in claim.values.items():
            values[name] = _evaluate(env, expression, context | values)
            if isinstance(values[name], Missing):
                raise MissingError(name)
        holds = bool(_evaluate(env, claim.holds, context | values))
        text = env.from_string(claim.sentence).render(**context | values)
    except MissingError:
        lacking = {name: Missing(name) for name in claim.values} | values
        text = env.from_string(claim.sentence).render(**context | lacking)
        return Verdict(claim, "untested", Latex(text.strip()))
    except jinja2.TemplateError as error:
        raise SlayError(f"{path}: claim {claim.id!r}: {error}") from error
    return Verdict(claim, "holds" if holds else "fails", Latex(text.strip()))


def _evaluate(env: jinja2.Environment, expression: str, names: dict[str, Any]) -> Any:
    return env.compile_expression(expression, undefined_to_none=False)(**names)


@dataclass(frozen=True)
class Claims:
    """Verdicts, for use in templates."""

    verdicts: dict[str, Verdict]

    def __getitem__(self, name: str) -> Verdict:
        if name not in self.verdicts:
            raise unknown("claim", name, self.verdicts, "paper")
        return self.verdicts[name]

    def holds(self, name: str) -> bool:
        return self[name].status == "holds"

    def sentence(self, name: str) -> Latex:
        """The claim as prose, marked if it fails; empty if the run cannot test it."""
        verdict = self[name]
        if verdict.status == "holds":
            return verdict.text
        if verdict.status == "fails":
            return Latex(f"\\emph{{The following does not hold in this run:}} {verdict.text}")
        return Latex("")

    def count(self, *sources: str) -> dict[str, int]:
        """Count the claims of some sources that hold, fail, or are untested."""
        found = [v.status for v in self.verdicts.values() if v.claim.source in sources]
        return {status: found.count(status) for status in ("holds", "fails", "untested")}
