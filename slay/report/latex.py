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
        return DASH
    if isinstance(value, str) and not isinstance(value, Latex):
        return escape(value)
    if isinstance(value, Estimate):
        raise TypeError("an estimate in a template needs a filter: num, pm, sci, mib or percent")
    return value


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
    env.filters |= {
        "num": num,
        "pm": pm,
        "sci": sci,
        "mib": mib,
        "percent": percent,
        "latex": Latex,
    }
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
        return Latex(DASH)
    text = f"{number:,.{digits}f}".replace(",", r"\,")
    return _mark(f"\\ensuremath{{{text}}}" if number < 0 else text, value)


def pm(value: Any, digits: int = 2, small: bool = False) -> Latex:
    """Mean ± half the 95% interval, in small print if asked; the mean alone for one seed."""
    if not isinstance(value, Estimate) or math.isnan(value.low):
        return num(value, digits)
    half = (value.high - value.low) / 2
    size = "\\scriptsize" if small else ""
    return _mark(f"{value.mean:.{digits}f}{{{size}\\,$\\pm$\\,{half:.{digits}f}}}", value)


def sci(value: Any, digits: int = 1) -> Latex:
    """a x 10^b."""
    number = _number(value)
    if number is None:
        return Latex(DASH)
    mantissa, _, exponent = f"{number:.{digits}e}".partition("e")
    return _mark(f"\\ensuremath{{{mantissa}\\times10^{{{int(exponent)}}}}}", value)


def mib(value: Any, digits: int = 1) -> Latex:
    """Bytes as MiB."""
    number = _number(value)
    if number is None:
        return Latex(DASH)
    return _mark(f"{number / 2**20:,.{digits}f}".replace(",", r"\,"), value)


def percent(value: Any, digits: int = 0) -> Latex:
    """A share as a percentage."""
    number = _number(value)
    return Latex(DASH) if number is None else _mark(f"{100 * number:.{digits}f}\\,\\%", value)
