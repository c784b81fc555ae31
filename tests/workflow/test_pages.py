"""The pages about the workflow, followed from top to bottom where a run is built."""

from __future__ import annotations

import re

import pytest
from clone import ROOT
from documents import PAGES, follow, needs_a_run, run, shorter

pytestmark = [pytest.mark.workflow, pytest.mark.tex]
ELSEWHERE = ["add-a-mechanism.md"]  # in test_new_mechanism.py
OURS = [page for page in PAGES if needs_a_run(page) and page.name not in ELSEWHERE]


@pytest.mark.parametrize("page", OURS, ids=[str(page.relative_to(ROOT)) for page in OURS])
def test_the_page_can_be_followed(checkout, page):
    follow(page, checkout.path)


def test_commands_in_tables_can_be_typed(checkout):
    cells = re.compile(r"^\| `((?:snakemake|slay) .+?)` \|", re.M)
    found = {command for page in PAGES for command in cells.findall(page.read_text())}
    assert found
    for command in sorted(found):
        command = shorter(command.replace("<run>", "smoke").replace("results/gpu", "results/smoke"))
        dry = " -n" if command.startswith("snakemake") and not command.endswith("-n") else ""
        run(["bash", "-c", command + dry], checkout.path)
