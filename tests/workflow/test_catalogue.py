"""What the catalogue of Snakemake workflows asks of a project, as far as files can show it."""

from __future__ import annotations

import re

import pytest
import yaml
from clone import ROOT
from conftest import SMOKE, Checkout

from slay.pipeline.params import PARAMS

CATALOGUE = ROOT / ".snakemake-workflow-catalog.yml"
RULES = {
    name
    for path in (ROOT / "workflow/rules").glob("*.smk")
    for name in re.findall(r"^rule (\w+):", path.read_text(), flags=re.MULTILINE)
} | {f"run_{name}" for name in PARAMS}  # made in a loop


def test_the_settings_are_those_that_the_catalogue_reads():
    usage = yaml.safe_load(CATALOGUE.read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    assert not usage["mandatory-flags"]["flags"]  # what is typed in README has none
    deployment = usage["software-stack-deployment"]
    assert deployment.keys() == {"conda", "apptainer", "apptainer+conda", "report"}
    assert all(isinstance(value, bool) for value in deployment.values())


def test_what_is_said_to_be_deployed_is_in_every_rule_that_needs_it():
    deployment = yaml.safe_load(CATALOGUE.read_text())["usage"]["software-stack-deployment"]
    assert deployment["conda"]
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", path.read_text(), flags=re.MULTILINE)[1:]:
            if "    shell:" in rule:
                assert "    conda:" in rule, (path.name, rule.partition(":")[0])
        envs = re.findall(r'"(\S+/envs/\S+)"', path.read_text())
        assert all((path.parent / env).is_file() for env in envs)
        assert bool(envs) == ("    conda:" in path.read_text())


def test_the_layout_is_that_of_standardised_workflows():
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (ROOT / "config/README.md").is_file()
    assert (ROOT / "LICENSE").is_file()
    assert RULES


@pytest.mark.workflow
@pytest.mark.tex
def test_the_catalogues_snakefile_is_this_workflow(built):
    done = Checkout(built.path).run(
        "--snakefile", "workflow/Snakefile", "-n", "all", "--configfile", SMOKE
    )
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in done.stdout


def test_the_picture_shows_every_rule():
    labels = re.findall(r">(\w+)</text>", (ROOT / "docs/workflow.svg").read_text())
    assert set(labels) == RULES | {"all", "arxiv"}, "run: make dag"
