"""What the documents say is so: their examples run, and lists are those of the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from clone import ROOT, clone

import slay
from slay.cli import main

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
GUIDE = BLOCK.findall((ROOT / "docs/add-a-mechanism.md").read_text())


def test_the_list_of_mechanisms_is_that_of_the_classes():
    page = CliRunner().invoke(main, ["mechanisms", "--markdown"]).output
    assert (ROOT / "docs/mechanisms.md").read_text() == page, (
        "run: slay mechanisms --markdown > docs/mechanisms.md"
    )


@pytest.mark.parametrize("name", slay.list_attention_types())
def test_every_source_is_in_the_bibliography(name):
    key = slay.get_attention_class(name).paper
    assert not key or f"{{{key}," in (ROOT / "paper/references.bib").read_text()


@pytest.mark.parametrize("page", [Path("README.md"), *Path("docs").glob("*.md")], ids=str)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    missing = [target for target in targets if not (ROOT / page.parent / target).exists()]
    assert not missing


def test_the_readmes_python_runs(tmp_path):
    code = "\n".join(text for kind, text in BLOCK.findall((ROOT / "README.md").read_text())
                     if kind == "python")  # fmt: skip
    run(["python", "-c", code], tmp_path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with the files that the guide has its reader save."""
    path = tmp_path_factory.mktemp("project")
    clone(path)
    for _, text in GUIDE:
        if name := re.match(r"# (\S+\.\w+)\n", text):
            (path / name[1]).write_text(text)
    return path


STEPS = [(kind, text) for kind, text in GUIDE if kind in ("sh", "python") and text[0] != "#"]


@pytest.mark.parametrize(("kind", "text"), STEPS, ids=[text.split()[0] for _, text in STEPS])
def test_the_guide_to_a_new_mechanism_works(project, kind, text):
    words = ["python", "-c", text] if kind == "python" else shlex.split(text)
    if words[0] == "snakemake":  # a run with a mechanism from outside is among the workflow's tests
        words = ["snakemake", "-n", *words[3:]]
    out = run(words, project)
    assert kind == "python" or "hedgehog" in out or " passed" in out


def run(words, cwd):
    """Standard output of a command of this environment."""
    env = {**os.environ, "PYTHONPATH": str(cwd)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_the_readme_shows_the_published_runs(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text())
    done = CliRunner().invoke(main, ["published", "--write", str(copy)])
    assert done.exit_code == 0, done.output
    assert (ROOT / "README.md").read_text() == copy.read_text(), (
        "run: slay published --write README.md"
    )
