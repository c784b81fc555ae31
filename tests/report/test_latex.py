"""Text and numbers as TeX reads them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slay.errors import SlayError
from slay.report.latex import (
    Latex,
    environment,
    escape,
    finalise,
    mib,
    num,
    percent,
    pm,
    render,
    sci,
    sig,
)
from slay.report.results import Estimate, Missing

DASH = "---"
FILTERS = [num, sig, pm, sci, mib, percent]
READ_AS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    **{f"\\{c}": c for c in "&%$#_{}"},
}


def estimate(mean=0.5, half=0.1, stale=False):
    return Estimate(mean, half, 3, mean - half, mean + half, stale)


@given(text=st.text() | st.text(alphabet="\\~^&%$#_{}<>a"))
def test_escaped_text_is_read_as_itself(text):
    tokens = "|".join(map(re.escape, READ_AS))
    escaped = escape(text)
    assert not set("\\~^&%$#_{}<>") & set(re.sub(tokens, "", escaped))
    assert re.sub(tokens, lambda match: READ_AS[match.group()], escaped) == text
    assert finalise(escaped) == escaped
    assert finalise(text) == escaped


@pytest.mark.parametrize("show", FILTERS)
@pytest.mark.parametrize("nothing", [Missing("x"), Missing("x").mean, None, math.nan])
def test_nothing_is_a_dash(show, nothing):
    assert show(nothing) == DASH
    if nothing is None or isinstance(nothing, Missing):
        assert finalise(nothing) == DASH


@pytest.mark.parametrize("show", FILTERS)
def test_a_stale_number_alone_carries_a_dagger(show):
    assert "dagger" in show(estimate(stale=True))
    assert "dagger" not in show(estimate())
    assert show(estimate(stale=True)).startswith(show(estimate()))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (num(0.125), "0.12"),
        (num(1234567.0, 0), r"1\,234\,567"),
        (sig(0.01234), "0.012"),
        (sig(0.96), "0.96"),
        (sig(0.9951), "1.0"),
        (sig(1234.5), r"1\,234"),
        (sig(0.0), "0.0"),
        (sci(0.00123), r"\ensuremath{1.2\times10^{-3}}"),
        (sci(4.56), r"\ensuremath{4.6}"),
        (sci(1e-3), r"\ensuremath{10^{-3}}"),
        (sci(estimate(mean=1e-3)), r"\ensuremath{1.0\times10^{-3}}"),
        (mib(3 * 2**20), "3.0"),
        (mib(2000 * 2**20, 0), r"2\,000"),
        (percent(0.256), r"26\,\%"),
        (percent(0.256, 1), r"25.6\,\%"),
        (pm(0.5), num(0.5)),
        (pm(Estimate(0.5, math.nan, 1, math.nan, math.nan)), num(0.5)),
        (num(estimate()), num(0.5)),
    ],
)
def test_known_numbers(shown, text):
    assert shown == text
    assert isinstance(shown, Latex)


def test_pm_shows_half_the_interval():
    assert re.findall(r"[\d.]+", pm(estimate(0.5, 0.1))) == ["0.50", "0.10"]
    assert re.findall(r"[\d.]+", pm(estimate(152.709, 381.6), 3)) == ["153", "382"]
    assert pm(estimate(-0.5, 0.1)).startswith(num(-0.5))


@given(value=st.floats(-1e9, 1e9), digits=st.integers(0, 4))
def test_num_keeps_the_value(value, digits):
    text = num(value, digits).replace(r"\,", "").replace(r"\ensuremath{", "").rstrip("}")
    assert float(text) == pytest.approx(value, abs=0.51 * 10.0**-digits)


def test_templates_escape_what_is_not_latex_and_name_their_mistakes(tmp_path):
    env = environment(tmp_path)
    (tmp_path / "good").write_text(r"\VAR{a} \VAR{a | latex} \VAR{b}\BLOCK{if c} {x} \BLOCK{endif}")
    assert render(env, "good", a="50%", b=Missing("b"), c=1) == r"50\% 50% --- {x} "
    (tmp_path / "undefined").write_text(r"\VAR{nothing}")
    with pytest.raises(SlayError, match=r"undefined: .*nothing"):
        render(env, "undefined")
    (tmp_path / "broken").write_text("one\n" + r"\BLOCK{if}")
    with pytest.raises(SlayError, match=r"broken:2: "):
        render(env, "broken")
    (tmp_path / "bare").write_text(r"\VAR{x}")
    with pytest.raises(TypeError, match="needs a filter"):
        render(env, "bare", x=estimate())
