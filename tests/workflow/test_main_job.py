"""From nothing to the PDF, on the smoke configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile

import pytest
from clone import clone
from conftest import BIN, SMOKE, Checkout
from pypdf import PdfReader

from slay.report.paper import complaints, unwrapped
from slay.report.sources import FIGURES, TABLES

pytestmark = [pytest.mark.workflow, pytest.mark.tex]


def test_paper_is_whole(built):
    pages = PdfReader(built.path / "results/smoke/paper/slay.pdf").pages
    text = "\n".join(page.extract_text() for page in pages)
    assert len(pages) >= 5
    assert any("Conclusion" in page.extract_text() for page in pages[:9])  # of the body
    assert "??" not in text
    assert "nan" not in text.lower().split()
    assert "smoke" in pages[0].extract_text()  # which run this is


def words(pdf):
    return " ".join(" ".join(page.extract_text() for page in PdfReader(pdf).pages).split())


def test_latex_is_content(built):
    assert complaints(unwrapped(built.path / "results/smoke/paper/build/slay.log")) == []


def test_every_caption_ends_with_a_tag_that_the_appendix_has(built):
    text = (built.path / "results/smoke/paper/main.tex").read_text()
    tables = [path.read_text() for path in built.path.glob("results/smoke/tables/*.tex")]
    shown = [t for t in tables if "begin{table" in t] + text.split(r"\begin{figure*}")[1:]
    for part in shown:
        tag = part.split("hyperlink{prov:")[1].split("}")[0]
        assert rf"\hypertarget{{prov:{tag}}}" in text
        assert tag in (*TABLES, *FIGURES)


def test_archive_compiles_alone(checkout, tmp_path):
    made = checkout.run("--cores", "2", "arxiv", "--configfile", SMOKE)
    assert made.returncode == 0, made.stdout[-3000:]
    alone = tmp_path / "alone"
    with tarfile.open(checkout.path / "results/smoke/paper/arxiv.tar.gz") as archive:
        archive.extractall(alone, filter="data")
    for _ in range(2):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
        done = subprocess.run(command, cwd=alone, capture_output=True)
        assert done.returncode == 0, done.stdout[-3000:]
    assert complaints(unwrapped(alone / "main.log")) == []
    assert words(alone / "main.pdf") == words(checkout.path / "results/smoke/paper/slay.pdf")


def whole_and_clean(checkout, *more):
    """The words of the paper that a command builds without measuring anything."""
    before = {path: path.stat().st_mtime_ns for path in checkout.records()}
    done = checkout.run("--cores", "2", "paper", "--configfile", SMOKE, *more)
    assert done.returncode == 0, done.stdout[-3000:]
    assert {path: path.stat().st_mtime_ns for path in checkout.records()} == before
    assert complaints(unwrapped(checkout.path / "results/smoke/paper/build/slay.log")) == []
    said = words(checkout.path / "results/smoke/paper/slay.pdf")
    assert "??" not in said
    assert "---" not in said
    return said


def test_three_mechanisms_fewer(checkout):
    path = checkout.path / SMOKE
    for name in ("standard", "uniform", "yat-performer-anchor"):
        path.write_text(path.read_text().replace(f"{name}, ", ""))
    said = whole_and_clean(checkout)
    assert "The 2 mechanisms of the run" in said
    assert "The text speaks mostly of linear attention" in said


def test_a_run_of_quality_alone(checkout):
    said = whole_and_clean(checkout, "--config", "only={experiment: quality}")
    assert "Kernel quality" in said
    assert "Not measured in this run: latency and memory" in said
    assert not re.search(r"\b0 records", said.replace("mechanisms: 0 records", ""))
    for heading in ("4.2 Scaling", "Language models", "Single tasks", "Pictures of the kernels"):
        assert heading not in said


def test_published_runs_are_set_beside_and_compared(checkout):
    def slay(*args):
        env = {**os.environ, "PYTHONPATH": str(checkout.path)}
        done = subprocess.run(
            [BIN / "slay", *args], cwd=checkout.path, env=env, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    gone = checkout.records()[0]
    aside = gone.rename(gone.with_suffix(".aside"))
    code, said = slay("publish", "results/smoke")
    assert code != 0
    assert "1 measurements are missing" in said
    aside.rename(gone)
    code, said = slay("publish", "results/smoke", "--name", "elsewhere")
    assert code == 0, said
    assert checkout.planned() == {
        "table runs",
        "table machines",
        "table claims",
        "table claims-ours",
        "figure machines",
        "the paper",
    }
    code, said = slay(
        "bench", "kernels", "--device", "cpu", "--dtype", "float32", "--lengths", "8,16",
        "--backward-lengths", "8", "--contexts", "2", "--batches", "", "--attention", "linear",
        "--rounds", "10", "--n-heads", "1", "--head-dim", "4",
        "--out", "results/published/kernels/tiny.jsonl",
    )  # fmt: skip
    assert code == 0, said
    code, said = slay("diff", "results/smoke", "results/published/elsewhere")
    assert code == 0, said
    judged = said.splitlines()[1].split()
    assert judged[0] == judged[2] != "0"

    path = checkout.path / "results/published/elsewhere/records/quality.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["record"]["metrics"]["cosine"] += 0.5
        line["record"]["provenance"]["started"] = "2026-01-01T00:00:00+00:00"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, said = slay("diff", "results/smoke", "results/published/elsewhere")
    differing = [line.split() for line in said.splitlines() if line.startswith("differs")]
    assert differing
    assert all("cosine" in line for line in differing)
    said = whole_and_clean(checkout)
    assert "results/published" in said
    assert "This run beside others" in said
    table = (checkout.path / "results/smoke/tables/machines.tex").read_text()
    for machine in ("printed", "smoke", "published elsewhere", "kernels tiny"):  # each by itself
        assert re.search(rf"^{machine}, .* & .mech\{{standard\}}", table, flags=re.MULTILINE)


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
    planned = len(checkout.records()) + 1
    shutil.rmtree(checkout.path / "results/smoke/records/ablation")  # all of an experiment
    checkout.edit("slay/features/elu.py", "return Dense(", "return Dense(1.0 * ")
    done = checkout.run("--cores", "2", "paper_only", "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert not gone.exists()
    pages = PdfReader(checkout.path / "results/smoke/draft/paper/slay.pdf").pages
    first = " ".join(pages[0].extract_text().split())
    assert "stale" in first
    assert f"{len(checkout.records())} of {planned}" in first
    assert "Not measured in this run: budgets of features" in first
    assert re.search(r", \d+ cores", first)
    quality = (checkout.path / "results/smoke/draft/tables/quality.tex").read_text()
    cells, notes = quality.split(r"\bottomrule")
    assert "dagger" in notes
    dagger = {line for line in cells.split(r"\\") if "dagger" in line}
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
