"""Sentences follow the numbers."""

from __future__ import annotations

import pytest
import yaml

from slay.errors import SlayError
from slay.report.claims import Claims, judge
from slay.report.latex import environment
from slay.report.results import Estimate, Missing

CLAIM = {
    "id": "quadratic-wins",
    "source": "ours",
    "sentence": r"It wins by \VAR{a | num(1)} to \VAR{b | num(1)}.",
    "values": {"a": "value('a').mean", "b": "value('b').mean"},
    "holds": "a < b",
}


@pytest.fixture
def claims(tmp_path):
    """Verdicts on some claims, given the numbers that a run has."""

    def verdicts(entries=(CLAIM,), **numbers):
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(list(entries)))

        def value(name):
            if name not in numbers:
                return Missing(name)
            return Estimate(numbers[name], 0.0, 1, numbers[name], numbers[name])

        return Claims(judge(path, environment(tmp_path), {"value": value}))

    return verdicts


def test_a_flipped_number_flips_verdict_and_sentence(claims):
    sentences = {}
    for numbers, status in (({"a": 1, "b": 2}, "holds"), ({"a": 2, "b": 1}, "fails")):
        found = claims(**numbers)
        assert found["quadratic-wins"].status == status
        assert found.holds("quadratic-wins") == (status == "holds")
        sentences[status] = found.sentence("quadratic-wins")
    assert sentences["holds"] == "It wins by 1.0 to 2.0."
    assert "does not hold" in sentences["fails"]
    assert "It wins by 2.0 to 1.0." in sentences["fails"]


@pytest.mark.parametrize("numbers", [{}, {"a": 1}, {"b": 1}])
@pytest.mark.parametrize(
    "change", [{}, {"values": {"a": "value('a')", "b": "2 * value('b').mean"}}]
)
def test_a_missing_number_leaves_a_claim_open(claims, numbers, change):
    found = claims([CLAIM | change], **numbers)
    assert found["quadratic-wins"].status == "untested"
    assert not found.holds("quadratic-wins")
    assert found.sentence("quadratic-wins") == ""  # in prose; the table has it
    assert "---" in found["quadratic-wins"].text
    assert found.count("ours") == {"holds": 0, "fails": 0, "untested": 1}


def test_an_unknown_claim_gives_the_nearest(claims):
    with pytest.raises(SlayError, match="did you mean 'quadratic-wins'"):
        claims(a=1, b=2).sentence("quadratic-win")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([CLAIM, CLAIM], "twice"),
        ([CLAIM | {"hold": "a"}], "hold"),
        ([CLAIM | {"source": "hearsay"}], "source"),
        ([CLAIM | {"holds": "a < c"}], "'c' is undefined"),
        ([CLAIM | {"holds": "a <"}], "quadratic-wins"),
        ([CLAIM | {"values": {"a": "valeu('a')"}}], "'valeu' is undefined"),
        ([CLAIM | {"sentence": r"\VAR{c}"}], "'c' is undefined"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(claims, entries, says):
    with pytest.raises(SlayError) as caught:
        claims(entries, a=1, b=2)
    message = str(caught.value)
    assert "claims.yaml" in message
    assert "quadratic-wins" in message
    assert says in message
    assert "\n" not in message
