"""docs/add-a-mechanism.md, followed to the letter, leads into every table and figure."""

from __future__ import annotations

import pytest
import yaml
from clone import ROOT
from conftest import SMOKE
from documents import follow
from pypdf import PdfReader

from slay.report.sources import FIGURES, TABLES

pytestmark = [pytest.mark.workflow, pytest.mark.tex]

# What is about other things than the mechanisms of a run: sentences of the text, what other
# machines and the original study have too, one mechanism's quadrature, neurons.
ABOUT_OTHERS = {"claims", "claims-ours", "runs", "machines", "quadrature", "decision"}
WIDER = {  # settings that the smoke run does without, so that nothing is left empty
    "scaling": {"mode": ["forward", "decode"]},
    "analysis": {"kind": ["profile", "reconstruction", "entropy", "maps", "sphere"]},
    "tasks": {"seq_len": [8, 16], "task": ["copy"]},
}


def test_a_new_mechanism_is_in_every_table_and_figure(checkout):
    follow(ROOT / "docs/add-a-mechanism.md", checkout.path)
    path = checkout.path / SMOKE
    config = yaml.safe_load(path.read_text())
    config["attention"].insert(3, "hedgehog")
    for experiment, grids in config["experiments"].items():
        grids[0].update(WIDER.get(experiment, {}), attention=["linear", "hedgehog"])
    path.write_text(yaml.safe_dump(config))

    done = checkout.run("--cores", "2", "paper", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout[-5000:]
    run = checkout.path / "results/smoke"
    for name in TABLES.keys() - ABOUT_OTHERS:
        assert "hedgehog" in (run / f"tables/{name}.tex").read_text(), name
    for name in FIGURES.keys() - ABOUT_OTHERS:
        page = PdfReader(run / f"figures/{name}.pdf").pages[0].extract_text()
        assert "hedgehog" in page, name
    text = "".join(page.extract_text() for page in PdfReader(run / "paper/slay.pdf").pages)
    assert "Porcupine" in text
    assert "??" not in text
