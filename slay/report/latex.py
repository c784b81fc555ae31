"""Templates for LaTeX: delimiters that TeX leaves alone, and numbers as a reader wants them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import jinja2

from slay.errors import SlayError
from slay.report.results import Estimate, Missing

DASH = "---"
WHY = {"oom": "oom", "timeout": "slow", "diverged": "div.", "unsupported": "n/a"}
MEANING = {
    DASH: "not measured in this run, or without meaning here",
    "oom": "out of memory",
    "slow": "stopped at its limit of time",
    "div.": "diverged",
    "n/a": "not supported on this device",
    r"\ensuremath{^\dagger}": "older than the code it was measured with",
}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_PATTERN = re.compile("|".join(re.escape(c) for c in _SPECIAL))


class Latex(str):
    """Text that is LaTeX already and is not escaped again."""

    __slots__ = ()


def escape(text: str) -> Latex:
    """Any text, to be read as itself in LaTeX."""
    return Latex(_PATTERN.sub(lambda match: _SPECIAL[match.group()], text))


def finalise(value: Any) -> Any:
    """What an expression leaves in the text: strings escaped, missing numbers as a dash."""
    if isinstance(value, Missing) or value is None:
        return absent(value)
    if isinstance(value, str) and not isinstance(value, Latex):
        return escape(value)
    if isinstance(value, Estimate):
        raise TypeError("an estimate in a template needs a filter: num, pm, sci, mib or percent")
    return value


def absent(value: Any) -> Latex:
    """What stands for a number that is not there: why it is not, where a job says so, or a dash."""
    return Latex(WHY.get(value.status, DASH) if isinstance(value, Missing) else DASH)


def with_notes(table: str) -> str:
    """A table with a line under it for every sign in its cells that stands for no number."""
    body = table[table.find(r"\toprule") :]
    before = dict.fromkeys(WHY.values(), r"&\s*")  # words stand alone in their cells
    signs = [s for s in MEANING if re.search(rf"{before.get(s, '')}{re.escape(s)}(?![\w-])", body)]
    if not signs:
        return table
    notes = "; ".join(f"{sign}: {MEANING[sign]}" for sign in signs)
    return re.sub(
        r"(?=\\end\{table)", lambda _: f"\\par\\vspace{{2pt}}{{\\scriptsize {notes}.}}\n", table
    )


def environment(folder: Path) -> jinja2.Environment:
    """Templates of a folder, with \\VAR{...}, \\BLOCK{...} and the filters below."""
    env = jinja2.Environment(
        block_start_string=r"\BLOCK{",
        block_end_string="}",
        variable_start_string=r"\VAR{",
        variable_end_string="}",
        comment_start_string=r"\#{",
        comment_end_string="}",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalise,
        loader=jinja2.FileSystemLoader(folder),
    )
    filters = {"num": num, "sig": sig, "pm": pm, "sci": sci, "mib": mib, "percent": percent}
    env.filters |= filters | {"latex": Latex}
    env.globals |= filters
    return env


def render(env: jinja2.Environment, name: str, **context: Any) -> str:
    """A template's text. Raises `SlayError` with file and line for a mistake in a template."""
    try:
        return env.get_template(name).render(**context)
    except jinja2.TemplateSyntaxError as error:
        raise SlayError(f"{error.filename}:{error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise SlayError(f"{name}: {error.message}") from error


def _number(value: Any) -> float | None:
    """The number behind a float, an estimate or something missing."""
    if isinstance(value, Missing) or value is None:
        return None
    number = value.mean if isinstance(value, Estimate) else value
    return None if math.isnan(number) else float(number)


def _mark(text: str, value: Any) -> Latex:
    """A stale number carries a dagger."""
    stale = isinstance(value, Estimate) and value.stale
    return Latex(f"{text}\\ensuremath{{^\\dagger}}" if stale else text)


def num(value: Any, digits: int = 2) -> Latex:
    """A number with fixed decimals; thousands are set apart."""
    number = _number(value)
    if number is None:
        return absent(value)
    text = f"{number:z,.{digits}f}".replace(",", r"\,")
    return _mark(f"\\ensuremath{{{text}}}" if text.startswith("-") else text, value)


def sig(value: Any, digits: int = 2) -> Latex:
    """A number with so many significant digits, but all of those before the point."""
    number = _number(value)
    if not number:
        return num(value, digits - 1)
    exponent = int(f"{number:.{digits - 1}e}".partition("e")[2])  # of the rounded number
    return num(value, max(0, digits - 1 - exponent))


def pm(value: Any, digits: int = 2, small: bool = False) -> Latex:
    """Mean ± half the 95% interval, in small print if asked; the mean alone for one seed.

    Fewer decimals where the interval is too wide for them.
    """
    if not isinstance(value, Estimate) or math.isnan(value.low):
        return num(value, digits)
    half = (value.high - value.low) / 2
    if half >= 1:
        digits = max(0, digits - 1 - int(math.log10(half)))
    size = "\\scriptsize" if small else ""
    return _mark(f"{num(value.mean, digits)}{{{size}\\,$\\pm$\\,{half:.{digits}f}}}", value)


def sci(value: Any, digits: int = 1) -> Latex:
    """a x 10^b; a number that was not measured without zeros at the end of a, and without a = 1."""
    number = _number(value)
    if number is None:
        return absent(value)
    mantissa, _, exponent = f"{number:.{digits}e}".partition("e")
    if not isinstance(value, Estimate):
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    factors = [mantissa] if mantissa != "1" or not int(exponent) else []
    factors += [f"10^{{{int(exponent)}}}"] if int(exponent) else []
    product = r"\times".join(factors)
    return _mark(f"\\ensuremath{{{product}}}", value)


def mib(value: Any, digits: int = 1) -> Latex:
    """Bytes as MiB."""
    number = _number(value)
    if number is None:
        return absent(value)
    return _mark(f"{number / 2**20:,.{digits}f}".replace(",", r"\,"), value)


def percent(value: Any, digits: int = 0) -> Latex:
    """A share as a percentage."""
    number = _number(value)
    return absent(value) if number is None else _mark(f"{100 * number:.{digits}f}\\,\\%", value)
