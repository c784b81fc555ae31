"""The wheel works where there is nothing but what it asks for."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from clone import ROOT, clone
from documents import BLOCK
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.xdist_group("wheel")

TEN_LINES = next(text for _, kind, text in BLOCK.findall((ROOT / "README.md").read_text())
                 if kind == "python")  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a fresh copy, so that nothing of this checkout's build folder slips in."""
    folder = tmp_path_factory.mktemp("wheel")
    clone(folder / "project")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "project"], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment: the wheel and what it requires, which is linked."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    command = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", wheel], check=True)
    (metadata,) = site.glob("slay_attention-*.dist-info")
    for required in closure(Distribution.at(metadata)):
        for top in {file.parts[0] for file in required.files or () if ".." not in file.parts}:
            source = Path(str(required.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin/python"


def closure(root: Distribution) -> list[Distribution]:
    """What a distribution requires without extras, and what that requires."""
    found: dict[str, Distribution] = {}
    waiting = [root]
    while waiting:
        for line in waiting.pop().requires or ():
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and name not in found:
                found[name] = distribution(name)
                waiting.append(found[name])
    return list(found.values())


def run(*words, cwd):
    return subprocess.run(words, cwd=cwd, env={}, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["snakemake", "pandas", "matplotlib", "scipy", "yaml", "pytest"])
def test_the_environment_is_bare(python, tmp_path, name):
    assert run(python, "-c", f"import {name}", cwd=tmp_path).returncode == 1


def test_the_command_lists_the_mechanisms(python, tmp_path):
    done = run(python.with_name("slay"), "mechanisms", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "yat-quadratic" in done.stdout


def test_the_command_measures(python, tmp_path):
    words = ["quality", "--attention", "linear", "--head-dim", "4", "--seq-len", "8"]
    slay = python.with_name("slay")
    done = run(slay, "run", *words, "--out", "record.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "record.json").exists()


def test_the_readmes_ten_lines_run(python, tmp_path):
    done = run(python, "-c", TEN_LINES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_needs_more_says_what_to_install(python, tmp_path):
    done = run(python.with_name("slay"), "diff", ".", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .* pip install 'slay-attention\[pipeline\]'\n", done.stderr)


def test_the_wheel_holds_the_package_alone(wheel):
    names = ZipFile(wheel).namelist()
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    assert tops == {"slay", "slay_attention"}
    assert "slay/py.typed" in names
