"""From nothing to the PDF, on the smoke configuration."""

from __future__ import annotations

import json

import pytest
from clone import clone
from conftest import SMOKE, Checkout
from pypdf import PdfReader

from slay.report.sources import FIGURES, TABLES

pytestmark = [pytest.mark.workflow, pytest.mark.tex, pytest.mark.xdist_group("workflow")]


def test_paper_is_whole(built):
    pages = PdfReader(built.path / "results/smoke/paper/slay.pdf").pages
    text = "\n".join(page.extract_text() for page in pages)
    assert len(pages) >= 5
    assert "??" not in text
    assert "nan" not in text.lower().split()
    assert "smoke" in pages[0].extract_text()  # which run this is


def test_latex_is_content(built):
    log = (built.path / "results/smoke/paper/build/slay.log").read_text(errors="replace")
    assert "undefined" not in log
    assert "Missing character" not in log


def test_report_holds_every_figure(built):
    report = (built.path / "results/smoke/report.html").read_text()
    for name in FIGURES:
        assert f"figures/{name}.png" in report


def test_nothing_is_left_to_do(built):
    assert built.planned() == set()


def test_same_results_give_the_same_bytes(checkout):
    pdf = checkout.path / "results/smoke/paper/slay.pdf"
    before = pdf.read_bytes()
    pdf.unlink()
    assert (
        checkout.run("--cores", "2", "paper", "--configfile", "config/smoke.yaml").returncode == 0
    )
    assert pdf.read_bytes() == before


def test_paper_only_measures_nothing_and_marks_what_is_stale(checkout):
    gone = next(p for p in checkout.records() if "quality/yat-quadratic" in str(p))
    gone.unlink()
    checkout.edit("slay/attention/linear.py", "return Dense(", "return Dense(1.0 * ")
    done = checkout.run("--cores", "2", "paper_only", "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert not gone.exists()
    pages = PdfReader(checkout.path / "results/smoke/draft/paper/slay.pdf").pages
    assert "stale" in pages[0].extract_text()
    quality = (checkout.path / "results/smoke/draft/tables/quality.tex").read_text()
    dagger = {line for line in quality.split(r"\\") if "dagger" in line}
    assert dagger
    assert all("linear" in line for line in dagger)


CLOCKS = {"tokens_per_second", "peak_memory_bytes"}  # of language models


def test_cores_and_order_change_no_number(built, tmp_path):
    other = Checkout(tmp_path)
    clone(other.path)
    kinds = {"quality", "analysis", "tasks", "language"}
    part = ("--configfile", SMOKE, "--config", f"only={{experiment: [{', '.join(kinds)}]}}")
    done = other.run("--cores", "1", "results", *part)
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(other.records()) == 18
    for path in other.records():
        here, there = (
            json.loads((checkout.path / path.relative_to(other.path)).read_text())
            for checkout in (built, other)
        )
        for record in (here, there):
            record["metrics"] = {k: v for k, v in record["metrics"].items() if k not in CLOCKS}
        for name in ("metrics", "curve"):
            assert json.dumps(here[name]) == json.dumps(there[name]), (path, name)
    timeless = kinds - {"language"}
    shown = [f"tables/{name}.tex" for name, read in TABLES.items() if timeless >= set(read)]
    shown += [f"figures/{name}.pdf" for name, read in FIGURES.items() if timeless >= set(read)]
    shown = [f"results/smoke/{name}" for name in shown]
    done = other.run("--cores", "1", *shown, *part)
    assert done.returncode == 0, done.stdout[-3000:]
    for name in shown:
        assert (built.path / name).read_bytes() == (other.path / name).read_bytes(), name
