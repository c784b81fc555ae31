"""What the documents say is so: their commands and examples run, lists are those of the code."""

from __future__ import annotations

import re
import tomllib

import pytest
from click.testing import CliRunner
from clone import ROOT, clone
from documents import PAGES, follow, given_by, needs_a_run

import slay
from slay.cli import main

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
TOGETHER = [ROOT / "README.md", ROOT / "docs/training.md"]  # both begin with the same training
ALONE = [[page] for page in PAGES if not needs_a_run(page) and page not in TOGETHER]


def test_the_list_of_mechanisms_is_that_of_the_classes():
    page = CliRunner().invoke(main, ["mechanisms", "--markdown"]).output
    assert (ROOT / "docs/mechanisms.md").read_text() == page, (
        "run: slay mechanisms --markdown > docs/mechanisms.md"
    )


@pytest.mark.parametrize("name", slay.list_attention_types())
def test_every_source_is_in_the_bibliography(name):
    key = slay.get_attention_class(name).paper
    assert not key or f"{{{key}," in (ROOT / "paper/references.bib").read_text()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#:]*)#?([^)]*)\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def anchors(page):
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "pages",
    [TOGETHER, *ALONE],
    ids=lambda pages: " ".join(str(page.relative_to(ROOT)) for page in pages),
)
def test_the_pages_can_be_followed(pages, tmp_path):
    clone(tmp_path)
    given = []
    for page in pages:
        follow(page, tmp_path, given)
        given += given_by(page)


def test_the_readme_shows_the_published_runs(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text())
    done = CliRunner().invoke(main, ["published", "--write", str(copy)])
    assert done.exit_code == 0, done.output
    assert (ROOT / "README.md").read_text() == copy.read_text(), (
        "run: slay published --write README.md"
    )


PLACE = re.compile(r"`((?:slay|workflow|paper|config)/[\w/.-]+\.\w+)`((?: and|,)? `\w+`)*")


def test_every_file_and_function_of_the_architecture_exists():
    """docs/architecture.md names files, each with functions or classes that it defines."""
    text = (ROOT / "docs/architecture.md").read_text()
    places = list(PLACE.finditer(text))
    assert len(places) > 25
    for place in places:
        source = (ROOT / place[1]).read_text()
        for name in re.findall(r"`(\w+)`", place[0]):
            assert re.search(rf"\b(def|class|rule) {name}\b|^{name}\b", source, re.M), place[0]


def test_the_picture_of_the_layers_shows_each_layer():
    """docs/layers.svg is drawn by `make dag`; what every module imports is left out of it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = {name for line in contracts[0]["layers"] for name in line.split(" | ")}
    base = re.search(r"^BASE := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split("|")
    drawn = re.findall(r"<title>\.(\w+)</title>", (ROOT / "docs/layers.svg").read_text())
    assert sorted([*drawn, *base]) == sorted(layers)
