"""The lock, the Conda files and the documents agree with pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import slay

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [
    Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines
]
PYPI_NAMES = {"matplotlib-base": "matplotlib", "pytorch": "torch"}


def _pin(line: str) -> tuple[str, str]:
    name, version = line.split("==")
    return canonicalize_name(PYPI_NAMES.get(name, name)), version


LOCK = dict(
    _pin(line)
    for line in (ROOT / "envs/lock.txt").read_text().splitlines()
    if line[:1] not in {"#", " ", ""}
)


def _conda(name: str) -> dict[str, str]:
    entries = yaml.safe_load((ROOT / "envs" / name).read_text())["dependencies"]
    lines = [e for e in entries if isinstance(e, str) and e != "pip" and e[:7] != "python="]
    lines += [line for e in entries if isinstance(e, dict) for line in e["pip"]]
    return dict(map(_pin, lines))


@pytest.mark.parametrize("requirement", CORE + EXTRAS, ids=str)
def test_lock_satisfies_pyproject(requirement):
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


def test_lock_leaves_cuda_libraries_to_torch():
    """All but the assembler of our kernels."""
    cuda = [name for name in LOCK if name.startswith(("nvidia-", "cuda-"))]
    assert cuda == ["nvidia-cuda-nvcc"]


@pytest.mark.parametrize(
    ("name", "requirements"), [("slay.yaml", CORE + EXTRAS), ("run.yaml", CORE)]
)
def test_conda_file_has_the_locked_direct_dependencies(name, requirements):
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    assert _conda(name) == {name: LOCK[name] for name in names}


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert slay.__version__ == PROJECT["version"] == citation["version"]


def test_no_document_installs_another_project_of_that_name():
    command = re.compile(r"pip3? install (?:-\S+ )*[\"']?slay\b(?!-attention)")
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert not [path.name for path in documents if command.search(path.read_text())]


def test_imports_respect_the_layers():
    command = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
