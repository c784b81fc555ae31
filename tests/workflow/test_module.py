"""The workflow as a module of another one (examples/module), which lies somewhere else."""

from __future__ import annotations

import pytest
from clone import clone
from conftest import Checkout

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("module")]


@pytest.fixture(scope="module")
def outer(tmp_path_factory):
    """The example's folder, and the project that it uses."""
    folder = tmp_path_factory.mktemp("module")
    clone(folder / "slay")
    (folder / "my project").mkdir()
    return Checkout(folder / "my project")


def snakemake(outer, *args):
    snakefile = outer.path.parent / "slay/examples/module/Snakefile"
    done = outer.run("--snakefile", str(snakefile), "--cores", "2", *args)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_its_rules_run_under_other_names_in_other_folders(outer):
    out = snakemake(outer)
    assert "Rule: slay_run_quality" in out
    assert (outer.path / "best.txt").read_text().startswith("yat-quadratic 0.")
    files = {path.parts[0] for path in (p.relative_to(outer.path) for p in outer.path.glob("*"))}
    assert files == {".snakemake", "best.txt", "best.log", "measured"}
    assert len(list(outer.path.glob("measured/results/module/records/**/*.json"))) == 2
    assert "Nothing to be done" in snakemake(outer, "-n")


def test_all_of_the_paper_lies_under_the_prefix(outer):
    out = snakemake(outer, "-n", "--forceall", "--printshellcmds", "slay_all")
    assert "report.html" not in out
    assert out.count("measured/results/module") == out.count("results/module")
    assert "Job 0" not in out


def test_an_edit_of_one_mechanism_reruns_that_one(outer):
    path = outer.path.parent / "slay/slay/attention/yat_quadratic.py"
    text = path.read_text()
    path.write_text(text + "\n\nEDITED = True\n")
    try:
        out = snakemake(outer, "-n")
    finally:
        path.write_text(text)
    asked = {line.split()[3].split("/")[0] for line in out.splitlines() if ": quality " in line}
    assert asked == {"yat-quadratic"}
