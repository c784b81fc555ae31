"""The pages about the workflow, followed from top to bottom in a run that is built."""

from __future__ import annotations

import pytest
from clone import ROOT
from documents import PAGES, blocks

pytestmark = [pytest.mark.workflow, pytest.mark.tex, pytest.mark.xdist_group("workflow")]
OURS = [page for page in PAGES if any("snakemake" in block.text for block in blocks(page))]


@pytest.mark.parametrize("page", OURS, ids=[str(page.relative_to(ROOT)) for page in OURS])
def test_the_page_can_be_followed(checkout, page):
    for block in blocks(page):
        if not block.excuse:
            block.follow(checkout.path)
