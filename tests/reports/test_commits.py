"""The commit of a record is this project's or none, and the paper names none for all too many."""

from __future__ import annotations

import subprocess

import pandas as pd
import pytest

from slay.pipeline import fingerprint as code
from slay.pipeline import provenance
from slay.pipeline.fingerprint import changed_files
from slay.pipeline.provenance import commit
from slay.report.results import Results

PYPROJECT = '[project]\nname = "slay-attention"\n'


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder, files):
    """A repository with some files, by their names; its commit."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all", "--allow-empty")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def anew():
    """Look at files and repositories again, in each test and after it."""
    forget()
    yield
    forget()


def forget():
    commit.cache_clear()
    code.forget()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of this project, in small; its folder and its commit."""
    folder = tmp_path / "a clone: é"
    head = repository(folder, {"pyproject.toml": PYPROJECT, "slay/__init__.py": "ONE = 1\n"})
    monkeypatch.setattr(provenance, "PACKAGE", folder / "slay")
    return folder, head


VARIABLES = {
    "GIT_DIR": "{other}/.git",
    "GIT_WORK_TREE": "{other}",
    "GIT_INDEX_FILE": "{other}/.git/index",
    "GIT_COMMON_DIR": "{other}/.git",
    "GIT_OBJECT_DIRECTORY": "{other}/.git/objects",
    "GIT_NAMESPACE": "other",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
    "GIT_TRACE": "1",
}


@pytest.mark.parametrize("names", [*([n] for n in VARIABLES), list(VARIABLES)], ids=" ".join)
def test_variables_of_git_name_no_other_repository(clone, tmp_path, monkeypatch, names):
    """Another repository's commit stands in the record where GIT_DIR is set, as in a hook."""
    folder, head = clone
    repository(tmp_path / "other", {"file": "text"})
    for name in names:
        monkeypatch.setenv(name, VARIABLES[name].format(other=tmp_path / "other"))
    assert commit() == (head, False)
    assert changed_files(["slay"], head) == []
    (folder / "slay/__init__.py").write_text("ONE = 2\n")
    forget()
    assert commit() == (head, True)
    assert changed_files(["slay"], head) == ["slay/__init__.py"]


SETTINGS = """
[core]
    bare = true
    autocrlf = true
    quotePath = true
    attributesFile = ~/attributes
[diff "shout"]
    textconv = tr a-z A-Z <
[status]
    branch = true
    showUntrackedFiles = all
[color]
    ui = always
"""


def test_a_users_settings_of_git_change_nothing(clone, tmp_path, monkeypatch):
    """`slay stale` names files that did not change, or a clean clone counts as edited."""
    (tmp_path / ".gitconfig").write_text(SETTINGS)
    (tmp_path / "attributes").write_text("*.py diff=shout\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    _, head = clone
    assert commit() == (head, False)
    assert changed_files(["slay"], head) == []


@pytest.mark.parametrize(
    ("place", "tracked"),
    [("lib/site-packages", False), ("lib/site-packages", True), (".", False), (".", True)],
)
def test_a_repository_around_an_installed_package_is_not_named(
    tmp_path, monkeypatch, place, tracked
):
    """The commit of a repository that an environment lies in stands in the record."""
    package = tmp_path / place / "slay"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text("" if tracked else "slay\n")
    repository(tmp_path, {"pyproject.toml": '[project]\nname = "mine"\n'})
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert commit() == (None, None)


def test_a_copy_that_is_not_tracked_is_not_named(tmp_path, monkeypatch):
    """The commit of a repository into which a clone was copied stands in the record."""
    repository(tmp_path, {"file": "text"})
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "slay").mkdir()
    (tmp_path / "slay/__init__.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "slay")
    assert commit() == (None, None)


def test_no_git_is_no_commit(clone, monkeypatch):
    """A machine without git ends a measurement with a traceback."""
    monkeypatch.setenv("PATH", "")
    assert commit() == (None, None)


A, B, C = ("a" * 40, "b" * 40, "c" * 40)


@pytest.mark.parametrize(
    ("commits", "named"),
    [
        ([A, A], "aaaaaaa"),
        ([A, B], "aaaaaaa and bbbbbbb"),
        ([A, None], "aaaaaaa and none"),
        ([None, None], None),
        ([A, B, C], "aaaaaaa to ccccccc (3 commits)"),
        ([A, None, B, C], "aaaaaaa to ccccccc (3 commits) and none"),
    ],
)
def test_the_paper_names_every_commit_or_how_many(tmp_path, commits, named):
    """The paper names one commit, although other records have another one or none."""
    facts = dict.fromkeys(("host", "platform", "processor", "device", "torch", "python"), "x")
    rows = [
        {**facts, "cores": 1, "commit": c, "dirty": False, "seconds": 1.0}
        | {"started": f"2026-01-0{i + 1}T00:00:00+00:00"}
        for i, c in enumerate(commits)
    ]
    table = pd.DataFrame(rows).add_prefix("provenance.").assign(variant="")
    (tmp_path / "data").mkdir()
    table.to_csv(tmp_path / "data/quality.csv", index=False)
    (tmp_path / "config.json").write_text('{"experiments": {"quality": []}}')
    assert Results(tmp_path).machine["commit"] == named
