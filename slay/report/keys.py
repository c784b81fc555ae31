"""Key numbers for comparing runs on different machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slay.errors import SlayError
from slay.report import groups, scores
from slay.report.results import Estimate, Missing, Results

Value = Estimate | Missing | float | int | None


@dataclass(frozen=True)
class Key:
    """A key number of a run: label, mechanism, look-up, decimals, value in the original study."""

    what: str
    name: str  # of the mechanism; "" for a number of the whole run
    find: Callable[[Results], Value]
    digits: int
    printed: float | None = None


def keys(printed: dict[str, Any]) -> Iterator[Key]:
    """Every key number, with the original study's value if it has one."""
    quality = printed["readme"]["quality"]
    for name in ("uniform", "yat-performer-anchor", "yat-quadratic"):
        found = quality.get(name, {}).get("rel_l2")
        yield Key("output error at d = 32", name, _error(name, "rel_l2"), 3, found)
    for name in ("uniform", "yat-performer-anchor", "yat-quadratic"):
        yield Key("kernel error at d = 32", name, _error(name, "kernel_error"), 3)
    yield Key("longest length timed", "", longest, 0)
    for name in ("linear", "yat-performer-anchor", "yat-quadratic"):
        yield Key("latency there over softmax's", name, _ratio(name), 3)
    for name in ("standard", "yat-performer-anchor", "yat-quadratic"):
        yield Key("growth of memory with the length", name, _growth(name), 2)
    for name in ("standard", "yat-performer-anchor", "yat-quadratic"):
        yield Key("tasks solved, of nine", name, _solved(name), 0)
    for name in ("standard", "yat-performer-anchor", "yat-quadratic"):
        found = printed["paper"]["language"].get(name, {}).get("perplexity")
        yield Key("perplexity of a language model", name, _perplexity(name), 2, found)


def longest(results: Results) -> int | Missing:
    """The longest length at which a linear mechanism was timed against softmax."""
    return max(scores.timed_lengths(results), default=0) or Missing("scaling: ratio")


def _error(name: str, metric: str) -> Callable[[Results], Value]:
    where = {"attention": name, "head_dim": 32, "inputs": "isotropic"}
    return lambda results: results.value("quality", metric, **where)


def _ratio(name: str) -> Callable[[Results], Value]:
    where = {"attention": name, "mode": "forward"}
    return lambda results: results.value("scaling", "ratio", seq_len=longest(results), **where)


def _growth(name: str) -> Callable[[Results], Value]:
    return lambda results: scores.growth(results, name, "peak_memory_bytes")


def _solved(name: str) -> Callable[[Results], Value]:
    return lambda results: groups.solved(results, name, "attention_critical")


def _perplexity(name: str) -> Callable[[Results], Value]:
    where = {"attention": name, "short_conv": 0}
    return lambda results: results.value("language", "perplexity", **where)


def table(runs: Sequence[Results], printed: dict[str, Any]) -> str:
    """Key numbers of some runs as a Markdown table, one column per run; empty without runs."""
    if not runs:
        return ""
    heads = ["", "mechanism", "printed", *(str(run.config["run"]) for run in runs)]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for key in keys(printed):
        found = [key.find(run) for run in runs]
        if not all(isinstance(value, Missing) for value in found):
            numbers = [_plain(value, key.digits) for value in (key.printed, *found)]
            lines.append([key.what, f"`{key.name}`" if key.name else "", *numbers])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


MARKS = ("<!-- published runs -->\n", "<!-- end of published runs -->\n")


def between(path: Path, text: str) -> str:
    """Return a file's text with `text` between its two marks. Raises `SlayError` without them."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise SlayError(f"{path}: has no lines {MARKS[0].strip()} and {MARKS[1].strip()}")
    return f"{before}{begin}{text}{end}{after}"


def _plain(value: Value, digits: int) -> str:
    if value is None or isinstance(value, Missing):
        return "—"
    return f"{value.mean if isinstance(value, Estimate) else value:.{digits}f}"
