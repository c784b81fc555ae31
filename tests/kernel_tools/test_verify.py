"""`slay kernels verify` of a pretended device: right, wrong, illegal, hanging, absent kernels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from slay.errors import SlayError

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.cli import main
from slay.kernel_tools import worker
from slay.kernel_tools.cases import Case
from slay.kernel_tools.search import Search
from slay.kernel_tools.verify import Verifier
from slay.ops.triton import verified

WORKER = Path(__file__).with_name("pretended_worker.py")
CUDA = torch.device("cuda", 0)
HERE = verified.Facts("NVIDIA P1", (9, 0), "580.10", "3.7.1", "13.5.37", "abc")
CASES = [Case("anchor", 32, 32, "bfloat16"), Case("quadratic", 64, 64, "bfloat16")]
WIDE, MIDDLE, NARROW = (
    "T=64 warps=8 stages=2",
    "T=64 warps=4 stages=2",
    "T=32 warps=2 stages=1",
)


class Device:
    """A pretended device: what its kernels do, and what was asked of them."""

    def __init__(self, folder):
        self.folder, self.file = folder / "devices", folder / "does.json"
        self.path = self.folder / "NVIDIA_P1.json"
        self.does({})

    def does(self, behaviour):
        self.file.write_text(json.dumps(behaviour))

    def verify(self, **options):
        options = {
            "facts": HERE,
            "cases": CASES,
            "jobs": 2,
            "progress": lambda line: None,
        } | options
        command = [sys.executable, str(WORKER), str(self.file)]
        verified.forget()
        return Verifier(folder=self.folder, command=command, **options).run()

    def tasks(self):
        lines = Path(f"{self.file}.log").read_text().splitlines()
        return [json.loads(line.partition(" ")[2]) for line in lines]

    def pids(self):
        log = Path(f"{self.file}.log")
        lines = log.read_text().splitlines() if log.exists() else []
        return {int(line.partition(" ")[0]) for line in lines}


@pytest.fixture
def device(tmp_path, monkeypatch):
    monkeypatch.setenv(verified.VARIABLE, str(tmp_path))
    monkeypatch.setattr(verified, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(verified, "facts", lambda device: HERE)
    yield Device(tmp_path)
    verified.forget()


def one_line(caught, *words):
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_all_right(device):
    result = device.verify()
    assert result.complete
    for key in ("anchor e32", "quadratic e32"):
        assert verified.reason(CUDA, key) is None
        for kernel in ("states", "outputs"):  # more warps are faster here
            assert str(verified.choice(CUDA, kernel, key, 2000)) == WIDE
    assert [p.name for p in device.folder.iterdir() if p.suffix != ".lock"] == ["NVIDIA_P1.json"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("wrong", "y by 0.5"),
        ("illegal", "killed by SIGSEGV: CUDA error: an illegal memory access was encountered"),
        ("aborting", "killed by SIGABRT"),
        ("hanging", "no answer within 3 s"),
        ("leaving", "exit code 3"),
    ],
)
def test_a_bad_configuration_is_known_and_not_used(device, how, says):
    device.does({f"outputs {WIDE}": how})
    tried = device.verify(cases=CASES[:1], hangs=3.0).classes["anchor e32"]
    assert list(tried["outputs"].wrong) == [WIDE]
    assert says in tried["outputs"].wrong[WIDE]
    assert not tried["states"].wrong
    assert verified.reason(CUDA, "anchor e32") is None
    assert str(verified.choice(CUDA, "outputs", "anchor e32", 2000)) == MIDDLE
    assert str(verified.choice(CUDA, "states", "anchor e32", 2000)) == WIDE


def test_both_half_precisions(device):
    """Of one class of calls: right is what is right in both."""
    device.does({f"float16 outputs {WIDE}": "wrong"})
    half = Case("anchor", 32, 32, "float16")
    tried = device.verify(cases=[CASES[0], half]).classes["anchor e32"]
    assert list(tried["outputs"].wrong) == [WIDE]
    assert set(tried["outputs"].right) == {MIDDLE, NARROW}
    assert not tried["states"].wrong


def test_a_kernel_that_an_earlier_case_has_tried(device):
    """It is not tried again, but used in a configuration that was right."""
    device.does({f"states {WIDE}": "wrong"})
    classes = device.verify(cases=[CASES[0], Case("alike", 32, 32, "bfloat16")]).classes
    checks = [task for task in device.tasks() if task["do"] == "check"]
    beside = [task["configs"] for task in checks if task["case"]["mechanism"] == "alike"]
    assert {configs["states"] for configs in beside} == {MIDDLE}
    assert len(beside) == len(classes["alike e32"]["outputs"].right) == 3
    assert list(classes["anchor e32"]["states"].wrong) == [WIDE]


def test_a_kernel_without_a_right_configuration(device):
    device.does({f"outputs {text}": "illegal" for text in (WIDE, MIDDLE, NARROW)})
    device.verify()
    says = verified.reason(CUDA, "anchor e32")
    assert "\n" not in says
    assert "slay kernels verify" in says
    assert "outputs" in says


def test_no_kernels_at_all(device):
    device.does({"all": "absent"})
    with pytest.raises(SlayError) as caught:
        device.verify()
    one_line(caught, "No module named 'triton'")
    assert not device.path.exists()
    assert "not verified on this NVIDIA P1" in verified.reason(CUDA, "anchor e32")


def test_what_no_kernel_takes(device):
    device.verify(cases=[*CASES, Case("unsupported", 256, 256, "float32")])
    assert set(json.loads(device.path.read_text())["classes"]) == {"anchor e32", "quadratic e32"}


def test_an_old_assembler(device):
    """On Hopper, what may be wrong with it is not even tried."""
    old = HERE._replace(assembler="12.8.93")
    result = device.verify(facts=old)
    tried = result.classes["anchor e32"]["outputs"]
    assert list(tried.right) == [NARROW]
    assert "ptxas 12.8.93" in tried.wrong[WIDE]
    checks = [task for task in device.tasks() if task["do"] == "check"]
    assert {text for task in checks for text in task["configs"].values()} == {NARROW}
    assert "assembler 12.8.93, here is 13.5.37" in verified.reason(CUDA, "anchor e32")


def test_some_classes_only(device):
    """What is known of the others stays."""
    device.verify()
    device.does({f"outputs {WIDE}": "wrong"})
    result = device.verify(only="quadratic*")
    assert result.complete
    assert not result.classes["anchor e32"]["outputs"].wrong
    assert list(result.classes["quadratic e32"]["outputs"].wrong) == [WIDE]
    with pytest.raises(SlayError) as caught:
        device.verify(only="cubic*")
    one_line(caught, "'cubic*'", "slay kernels verify")


def test_time_ends(device):
    """What was verified by then counts, and the next start goes on."""
    device.does({f"outputs {NARROW}": "hanging"})
    result = device.verify(seconds=2.0, jobs=1)
    assert not result.complete
    assert "not verified" in verified.reason(CUDA, "quadratic e32")
    before = len(device.tasks())
    device.does({})
    assert device.verify().complete
    assert verified.reason(CUDA, "quadratic e32") is None
    again = [json.dumps(t) for t in device.tasks()]
    repeated = set(again[:before]) & set(again[before:])
    assert len(repeated) <= 1  # what was ended
    assert all(NARROW in text for text in repeated)


PROGRAM = """
import sys
from pathlib import Path
from slay.kernel_tools import worker
from slay.kernel_tools.cases import Case
from slay.kernel_tools.verify import Verifier
from slay.ops.triton.verified import Facts
Verifier(
    facts=Facts(*{facts!r}), cases=[Case(**case) for case in {cases!r}], folder=Path({folder!r}),
    command={command!r},
).run()
"""


def test_killed_in_the_middle(device):
    """Nothing half-written is read, no process stays, and a second start goes on."""
    slow = {f"states {text}": "slow" for text in (WIDE, MIDDLE, NARROW)}
    device.does(slow)
    command = [sys.executable, str(WORKER), str(device.file)]
    code = PROGRAM.format(
        facts=tuple(HERE), cases=[asdict(c) for c in CASES], folder=str(device.folder),
        command=command,
    )  # fmt: skip
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    journal = device.path.with_suffix(".journal")
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_text().splitlines()) > 4):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert not device.path.exists()
    assert "not verified" in verified.reason(CUDA, "anchor e32")
    with journal.open("a") as file:
        file.write('{"task": "half')
    done, before = len(journal.read_text().splitlines()) - 2, len(device.tasks())
    lines = []
    assert device.verify(progress=lines.append).complete
    assert lines[0] == f"going on after {done} tasks of an earlier start"
    texts = [json.dumps(task) for task in device.tasks()]
    assert len(set(texts[:before]) & set(texts[before:])) <= 1
    assert verified.reason(CUDA, "anchor e32") is None
    assert not [pid for pid in device.pids() if alive(pid)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_at_once(device):
    slow = {f"states {text}": "slow" for text in (WIDE, MIDDLE, NARROW)}
    device.does(slow)
    from filelock import FileLock

    device.folder.mkdir()
    with FileLock(device.path.with_suffix(".lock")), pytest.raises(SlayError) as caught:
        device.verify()
    one_line(caught, "another process", "NVIDIA P1")
    assert device.verify().complete


def test_a_folder_that_cannot_be_written(device):
    device.folder.parent.joinpath("file").touch()
    device.folder = device.folder.parent / "file/devices"
    with pytest.raises(SlayError) as caught:
        device.verify()
    one_line(caught, "cannot be written", "SLAY_CACHE")
    if os.getuid():
        device.folder = device.file.parent / "read-only"
        device.folder.mkdir(mode=0o500)
        with pytest.raises(SlayError, match="cannot be written"):
            device.verify()


def test_a_journal_of_other_versions(device):
    device.verify(seconds=0.0)
    lines = []
    assert device.verify(facts=HERE._replace(triton="3.8.0"), progress=lines.append).complete
    assert not any("earlier start" in line for line in lines)


@given(st.data())
def test_the_guilty_kernels_are_found(data):
    """Wherever some round is right, all that is right is found, and nothing else."""
    numbers = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    candidates = {f"k{i}": [f"warps={w} stages=1" for w in range(1, n + 1)]
                  for i, n in enumerate(numbers)}  # fmt: skip
    every = [(name, text) for name, texts in candidates.items() for text in texts]
    bad = set(data.draw(st.lists(st.sampled_from(every), unique=True)))
    search, made = Search(candidates), 0
    while trials := search.trials():
        for trial in trials:
            search.note(trial, "bad" if bad & set(trial.items()) else None)
            made += 1
    search.finish()
    found = {(name, text) for name, texts in search.right.items() for text in texts}
    wrong = {(name, text) for name, texts in search.wrong.items() for text in texts}
    assert not found & bad
    assert found | wrong == set(every)
    some_right = any(
        all((name, texts[min(i, len(texts) - 1)]) not in bad for name, texts in candidates.items())
        for i in range(3)
    )
    if some_right:
        assert wrong == bad
    assert made <= 3 + 2 * len(every)


def test_the_real_worker(device):
    """Plan and check, on a CPU by Triton's interpreter, with a kernel that is right in one way."""
    lengths = (1, 5, 20, 30, 32)
    cases = [
        Case("copying", 16, 16, "float32", lengths=lengths),
        Case("yat", 16, 16, "float32", lengths=lengths),  # which has no kernels
    ]
    command = [sys.executable, str(WORKER.with_name("copying_worker.py"))]
    verifier = Verifier(
        HERE, cases, device.folder, command=command, device="cpu", progress=lambda line: None
    )
    tried = verifier.run().classes
    assert list(tried) == ["copy torch.float32"]
    copy = tried["copy torch.float32"]["copy"]
    assert list(copy.right) == ["T=64 warps=2 stages=1"]
    assert copy.wrong == {"T=32 warps=2 stages=1": "long: y by inf (allowed 0.0001)"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "Permission denied", "/cache"), "absent"),
        (OSError(28, "No space left on device"), "absent"),
        (RuntimeError("Failed to find C compiler. Please set CC"), "absent"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "wrong"),
        (torch.OutOfMemoryError("CUDA out of memory"), "full"),
    ],
    ids=str,
)
def test_what_is_not_the_kernels_fault(error, kind, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(worker, "_do", fail)
    task = {"do": "check", "case": asdict(CASES[0]), "device": "cpu"}
    ((found, says),) = worker.answer(task).items()
    assert found == kind
    assert "\n" not in says


def test_without_a_gpu():
    done = CliRunner().invoke(main, ["kernels", "verify"])
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert "NVIDIA GPU" in done.output
