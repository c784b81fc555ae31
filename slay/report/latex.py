"""LaTeX templates: delimiters that do not clash with TeX, and number formats."""

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
    """Escape text for LaTeX."""
    return Latex(_PATTERN.sub(lambda match: _SPECIAL[match.group()], text))


def finalise(value: Any) -> Any:
    """Convert the value of an expression to LaTeX: strings escaped, missing numbers as a dash."""
    if isinstance(value, Missing) or value is None:
        return absent(value)
    if isinstance(value, str) and not isinstance(value, Latex):
        return escape(value)
    if isinstance(value, Estimate):
        raise TypeError("an estimate in a template needs a filter: num, pm, sci, mib or percent")
    return value


def absent(value: Any) -> Latex:
    """Placeholder for a missing number: the status of its job, or a dash if it has none."""
    return Latex(WHY.get(value.status, DASH) if isinstance(value, Missing) else DASH)


def with_notes(table: str) -> str:
    """Add a note below a table that explains the placeholders and marks in its cells."""
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
    """Jinja environment for a folder's templates, with \\VAR{...}, \\BLOCK{...} and the filters."""
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
    """Render a template. Raises `SlayError` with file and line for an error in a template."""
    try:
        return env.get_template(name).render(**context)
    except jinja2.TemplateSyntaxError as error:
        raise SlayError(f"{error.filename}:{error.lineno}: {error.message}") from error
    except jinja2.UndefinedError as error:
        raise SlayError(f"{name}: {error.message}") from error


def _number(value: Any) -> float | None:
    """Return a float, or the mean of an estimate; None if it is missing or NaN."""
    if isinstance(value, Missing) or value is None:
        return None
    number = value.mean if isinstance(value, Estimate) else value
    return None if math.isnan(number) else float(number)


def _mark(text: str, value: Any) -> Latex:
    """Append a dagger if a number is stale."""
    stale = isinstance(value, Estimate) and value.stale
    return Latex(f"{text}\\ensuremath{{^\\dagger}}" if stale else text)


def num(value: Any, digits: int = 2) -> Latex:
    """Format with fixed decimals and a thin space between thousands."""
    number = _number(value)
    if number is None:
        return absent(value)
    text = f"{number:z,.{digits}f}".replace(",", r"\,")
    return _mark(f"\\ensuremath{{{text}}}" if text.startswith("-") else text, value)


def sig(value: Any, digits: int = 2) -> Latex:
    """Format with `digits` significant digits, or more if the integer part has more."""
    number = _number(value)
    if not number:
        return num(value, digits - 1)
    exponent = int(f"{number:.{digits - 1}e}".partition("e")[2])  # of the rounded number
    return num(value, max(0, digits - 1 - exponent))


def pm(value: Any, digits: int = 2, small: bool = False) -> Latex:
    """Format as mean ± half the 95% interval (`small`: in small print); the mean for one seed.

    A wide interval reduces the number of decimals.
    """
    if not isinstance(value, Estimate) or math.isnan(value.low):
        return num(value, digits)
    half = (value.high - value.low) / 2
    if half >= 1:
        digits = max(0, digits - 1 - int(math.log10(half)))
    size = "\\scriptsize" if small else ""
    return _mark(f"{num(value.mean, digits)}{{{size}\\,$\\pm$\\,{half:.{digits}f}}}", value)


def sci(value: Any, digits: int = 1) -> Latex:
    """Format as a x 10^b; unless measured, without trailing zeros of a and without a = 1."""
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
    """Format bytes as MiB."""
    number = _number(value)
    if number is None:
        return absent(value)
    return _mark(f"{number / 2**20:,.{digits}f}".replace(",", r"\,"), value)


def percent(value: Any, digits: int = 0) -> Latex:
    """Format a fraction as a percentage."""
    number = _number(value)
    return absent(value) if number is None else _mark(f"{100 * number:.{digits}f}\\,\\%", value)
