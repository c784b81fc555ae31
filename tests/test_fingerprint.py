"""Fingerprints change with the code that a job can reach, and with nothing else."""

from __future__ import annotations

import os
import subprocess

import pytest

from slay.errors import SlayError
from slay.pipeline import fingerprint as code
from slay.pipeline import provenance
from slay.pipeline.fingerprint import changed_files, closure, fingerprint
from slay.pipeline.params import QualityParams, ScalingParams, TaskParams
from slay.registry import ATTENTION, TASKS

FILES = {
    "__init__.py": "",
    "registry.py": "TABLE = {}\n",
    "top.py": "from slay.sub import leaf\nfrom slay import registry\n",
    "relative.py": "from .sub.leaf import f\n",
    "lazy.py": "def g():\n    import slay.sub.leaf as leaf\n    return leaf\n",
    "alone.py": "import os\n",
    "sub/__init__.py": "",
    "sub/leaf.py": "from .. import base\n\n\ndef f():\n    return base.ONE\n",
    "base.py": "ONE = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of this one; write(name, text) edits it."""
    root = tmp_path / "slay"

    def write(name, text):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        code.forget()

    monkeypatch.setattr(provenance, "PACKAGE", root)
    for name, text in FILES.items():
        write(name, text)
    yield write
    code.forget()


LEAF = ["slay", "slay.base", "slay.sub", "slay.sub.leaf"]


@pytest.mark.parametrize("module", ["top", "relative", "lazy"])
def test_every_way_to_import_is_followed(package, module):
    assert closure([f"slay.{module}"]) == sorted([*LEAF, f"slay.{module}"])


def test_what_cannot_be_reached_does_not_count(package):
    assert closure(["slay.alone"]) == ["slay", "slay.alone"]
    assert closure(["slay.alone", "slay.sub.leaf"]) == sorted([*LEAF, "slay.alone"])


def test_a_cycle_ends(package):
    package("base.py", "from slay.sub import leaf\n")
    assert closure(["slay.base"]) == LEAF


def test_a_module_that_is_not_there_is_refused(package):
    with pytest.raises(SlayError, match=r"slay\.nowhere: there is no such module"):
        closure(["slay.nowhere"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("base.py", '"""Doc."""\n\n# comment\nONE = (\n    1\n)\n'),
        ("sub/leaf.py", 'from .. import base\ndef f():\n    "Doc."\n    return base.ONE  # one\n'),
        ("__init__.py", '__version__ = "9.9"\n'),
        ("registry.py", "TABLE = {1: 2}\n"),
        ("alone.py", "import sys\n"),
        ("new.py", "ONE = 2\n"),
    ],
)
def test_what_cannot_change_a_result_leaves_the_fingerprint(package, name, text):
    before = fingerprint(["slay.top"])
    package(name, text)
    assert fingerprint(["slay.top"]) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("base.py", "ONE = 2\n"),
        ("base.py", "ONE = '1'\n"),
        ("sub/__init__.py", "import os\n"),
        ("top.py", "from slay.sub import leaf\nfrom slay import registry, alone\n"),
    ],
)
def test_code_that_can_be_reached_changes_the_fingerprint(package, name, text):
    before = fingerprint(["slay.top"])
    package(name, text)
    assert fingerprint(["slay.top"]) != before


def test_notes_beside_the_source_hold_for_its_very_bytes(package, tmp_path):
    """Whatever the time of a file says; and a broken one is found again."""
    leaf = tmp_path / "slay/sub/leaf.py"
    times = leaf.stat().st_atime_ns, leaf.stat().st_mtime_ns
    before = fingerprint(["slay.top"])
    (note,) = (leaf.parent / "__pycache__").glob("leaf.slay-*.json")
    package("sub/leaf.py", leaf.read_text().replace("ONE", "TWO"))
    os.utime(leaf, ns=times)
    changed = fingerprint(["slay.top"])
    assert changed != before
    note.write_text('["cut sho')
    code.forget()
    assert fingerprint(["slay.top"]) == changed
    package("sub/leaf.py", leaf.read_text().replace("TWO", "ONE"))
    assert fingerprint(["slay.top"]) == before


def test_kernels_and_what_only_they_import_can_be_left_out(package):
    names = ["ops/triton/__init__.py", "ops/triton/spec.py", "ops/triton_state.py"]
    for name in ("ops/__init__.py", "ops/tiles.py", *names):
        package(name, "")
    package("ops/triton/spec.py", "from slay.ops import tiles\n")
    package("ops/triton_state.py", "from slay import base\n")
    package("top.py", "from slay import base\nimport slay.ops.triton.spec, slay.ops.triton_state\n")
    without = fingerprint(["slay.top"], kernels=False)
    assert closure(["slay.top"], kernels=False) == ["slay", "slay.base", "slay.ops", "slay.top"]
    assert {"slay.ops.triton.spec", "slay.ops.triton_state", "slay.ops.tiles"} <= set(
        closure(["slay.top"])
    )
    for name in names:
        before = fingerprint(["slay.top"])
        package(name, "TILE = 64\n")
        assert fingerprint(["slay.top"]) != before
        assert fingerprint(["slay.top"], kernels=False) == without


def test_files_that_changed_since_a_commit_are_named(package, tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    package("base.py", "ONE = 1  # a remark\n")
    assert changed_files(["slay.top"], head) == []
    package("base.py", "ONE = 2\n")
    package("alone.py", "changed = True\n")
    assert changed_files(["slay.top"], head) == ["slay/base.py"]
    with pytest.raises(subprocess.SubprocessError):
        changed_files(["slay.top"], "0" * 40)


def jobs(attention):
    yield QualityParams(attention=attention)
    yield ScalingParams(attention=attention)
    yield TaskParams(attention=attention, task="copy")


@pytest.mark.parametrize("name", ATTENTION.names())
def test_a_job_depends_on_its_own_mechanism_and_on_what_it_is_compared_with(name):
    everyone = {ATTENTION.module(other) for other in ATTENTION.names()}
    own, compared = ATTENTION.module(name), {"quality": "yat-spherical", "scaling": "standard"}
    for params in jobs(name):
        other = compared.get(params.experiment, name)
        found = everyone & set(closure(params.modules()))
        assert found == {own, ATTENTION.module(other)}


@pytest.mark.parametrize("name", ["standard", "yat-spherical"])
def test_exact_mechanisms_do_not_depend_on_the_linear_form(name):
    for params in jobs(name):
        assert "slay.ops.chunked" not in closure(params.modules())


@pytest.mark.parametrize("name", TASKS.names())
def test_a_job_depends_on_its_own_task(name):
    everyone = {TASKS.module(other) for other in TASKS.names()}
    found = closure(TaskParams(attention="linear", task=name).modules())
    assert everyone & set(found) == {TASKS.module(name)}


def test_no_job_depends_on_commands_plans_or_reports():
    for params in jobs("linear"):
        reached = closure(params.modules())
        for name in (
            "slay.cli",
            "slay.pipeline.config",
            "slay.pipeline.jobs",
            "slay.pipeline.provenance",
            "slay.registry",
        ):
            assert name not in reached
        assert not [name for name in reached if name.startswith("slay.report")]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package from elsewhere that a mechanism may come from."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(code, "_OUTSIDE", {})
    files = {
        "__init__.py": "",
        "kernels.py": "from neighbour import shared\nimport numpy\nimport slay.attention.layer\n",
        "shared.py": "ONE = 1\n",
        "other.py": "",
    }
    for name, text in files.items():
        (tmp_path / "neighbour").mkdir(exist_ok=True)
        (tmp_path / "neighbour" / name).write_text(text)
    yield tmp_path / "neighbour"
    code.forget()


def test_a_mechanism_from_outside_depends_on_its_neighbours_and_on_what_it_uses_here(outside):
    found = closure(["neighbour.kernels"])
    assert {"neighbour", "neighbour.kernels", "neighbour.shared"} <= set(found)
    assert "slay.attention.layer" in found
    assert not {"neighbour.other", "numpy"} & set(found)
    before = fingerprint(["neighbour.kernels"])
    (outside / "shared.py").write_text("ONE = 2\n")
    code.forget()
    assert fingerprint(["neighbour.kernels"]) != before


def test_a_module_from_outside_that_is_not_there_is_refused():
    with pytest.raises(SlayError, match="no module 'nowhere'"):
        closure(["nowhere.kernels"])


ODD = """
def f(x, *, width=8):
    'Not counted.'
    return f"{x:{width}}" f"{x!r:>{width}} {'a' if x else 'b'}" + u"é"
"""


def test_every_version_of_python_gives_the_same_digest():
    """What is measured on one counts on another; this number is that of 3.11, 3.12 and 3.13."""
    assert code._digest(ODD)[:16] == "91f554a78b0240e8"
