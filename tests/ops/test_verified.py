"""Which configurations a device's file gives, and what is said where it gives none."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import pytest
import torch

from slay.errors import SlayError, SlayWarning

pytest.importorskip("triton", reason="the kernels need Triton")

from slay.ops.triton import verified
from slay.ops.triton.configs import Config

CUDA = torch.device("cuda", 0)
HERE = verified.Facts("NVIDIA P1 16GB", (9, 0), "580.10.2", "3.7.1", "13.5.37", "abc")
SMALL, LARGE, OTHER = "T=32 warps=2 stages=1", "T=128 TK=64 warps=8 stages=2", "warps=4 stages=1"
KEY = "product 32x32 e32 bf16"
CLASSES = {
    KEY: {
        "chunk_output": {
            "right": {SMALL: {"1024": 0.1, "16384": 3.0}, LARGE: {"1024": 0.2, "16384": 1.0}},
            "wrong": {OTHER: "killed by SIGSEGV"},
        }
    },
    "dense 64": {
        "decode": {"right": {OTHER: {}}, "wrong": {}},
        "chunk_state": {"right": {}, "wrong": {OTHER: "y by 0.5"}},
    },
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file of a pretended device, which is this process's."""
    monkeypatch.setattr(verified, "facts", lambda device: HERE)
    monkeypatch.setenv(verified.VARIABLE, str(tmp_path))
    monkeypatch.setattr(verified, "SHIPPED", tmp_path / "shipped")
    path = tmp_path / "devices/NVIDIA_P1_16GB.json"
    path.parent.mkdir()
    content = {**HERE._asdict(), "complete": True, "classes": CLASSES}
    verified.Verification.model_validate(content).write(path)
    verified.forget()
    yield path
    verified.forget()


def change(path, **facts):
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_what_is_right_may_be_used(file):
    assert verified.reason(CUDA, KEY) is None
    assert [p.name for p in file.parent.iterdir()] == [file.name]  # nothing left beside it


@pytest.mark.parametrize(
    ("length", "text"), [(1, SMALL), (1024, SMALL), (4000, SMALL), (4200, LARGE), (10**6, LARGE)]
)
def test_the_fastest_at_about_that_length(file, length, text):
    chosen = verified.choice(CUDA, "chunk_output", KEY, length)
    assert str(chosen) == text
    assert isinstance(chosen, Config)


def test_a_process_keeps_to_its_choice(file):
    chosen = verified.choice(CUDA, "chunk_output", KEY, 1)
    file.unlink()
    assert verified.choice(CUDA, "chunk_output", KEY, 1) is chosen
    verified.forget()
    assert verified.choice(CUDA, "chunk_output", KEY, 1) is None


def test_a_file_that_comes_later(file):
    """Somebody verifies while a notebook is open."""
    text = file.read_text()
    file.unlink()
    assert verified.reason(CUDA, KEY) is not None
    file.write_text(text)
    assert verified.reason(CUDA, KEY) is None


def test_what_was_not_timed(file):
    assert verified.choice(CUDA, "decode", "dense 64", 1) == Config(4, 1)
    assert verified.choice(CUDA, "chunk_state", "dense 64", 1) is None
    assert verified.choice(CUDA, "decode", "dense 128", 1) is None


def one_line(says, *words):
    assert says is not None
    assert "\n" not in says
    assert all(word in says for word in (*words, "slay kernels verify")), says


def test_one_kernel_without_a_right_configuration(file):
    one_line(verified.reason(CUDA, "dense 64"), "chunk_state", "y by 0.5", "--only 'dense 64'")


def test_a_class_that_was_not_tried(file):
    one_line(verified.reason(CUDA, "dense 128"), "NVIDIA P1 16GB", "--only 'dense 128'")


def test_no_file(file):
    file.unlink()
    one_line(verified.reason(CUDA, KEY), "not verified on this NVIDIA P1 16GB")
    assert verified.choice(CUDA, "chunk_output", KEY, 1) is None


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_truncated_file(file, keep):
    file.write_text(file.read_text()[:keep])
    one_line(verified.reason(CUDA, KEY), str(file), "no whole file")
    assert verified.choice(CUDA, "chunk_output", KEY, 1) is None


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("device", "NVIDIA P2"),
        ("capability", (8, 0)),
        ("driver", "575"),
        ("triton", "3.6.0"),
        ("assembler", "12.8.93"),
        ("fingerprint", "abd"),
    ],
)
def test_a_file_of_other_versions(file, fact, value):
    change(file, **{fact: value})
    one_line(verified.reason(CUDA, KEY), str(file), str(value))


def test_a_fix_of_the_same_driver(file):
    change(file, driver="580.159.03")
    assert verified.reason(CUDA, KEY) is None


def test_the_file_that_ships_stands_in(file, tmp_path):
    """Where the user's own counts no more; the user's own wins where both do."""
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / file.name).write_text(file.read_text())
    change(file, classes={"dense 128": CLASSES[KEY]})  # another class: both count
    assert verified.reason(CUDA, KEY) is verified.reason(CUDA, "dense 128") is None
    change(file, classes={KEY: CLASSES["dense 64"]})
    verified.forget()
    assert "chunk_state" in verified.reason(CUDA, KEY)
    change(file, triton="3.6.0")
    verified.forget()
    assert verified.reason(CUDA, KEY) is None


def test_without_a_gpu():
    """As here, and everywhere without one."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, and the test is of machines without one")
    assert verified.reason(CUDA, KEY) == (
        "kernels run on NVIDIA GPUs, and PyTorch sees none at 'cuda:0'"
    )
    with pytest.raises(SlayError, match="NVIDIA GPUs"):
        verified.facts(torch.device("cpu"))


def test_an_old_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    verified._facts.cache_clear()
    with pytest.raises(SlayError, match=r"capability 8.0 or newer; Tesla T4 has 7.5$"):
        verified._facts(0, None)


def test_folders(monkeypatch, tmp_path):
    monkeypatch.delenv(verified.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert verified.user_folder() == tmp_path / "slay/devices"
    monkeypatch.setenv(verified.VARIABLE, str(tmp_path / "mine"))
    assert verified.user_folder() == tmp_path / "mine/devices"


def test_a_warning_once_a_reason():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for text in ("this", "that", "this"):
            verified.warn_once(f"{text} (a test)")
    assert [w.category for w in caught] == [SlayWarning, SlayWarning]
    assert "this (a test)" in str(caught[0].message)


def test_in_a_compiled_call(file):
    """Asked while torch.compile traces, without a break."""

    def call(x):
        if verified.reason(CUDA, KEY) is None and verified.reason(CUDA, "dense 64") is not None:
            verified.warn_once("a compiled call")
            return x + 1
        return x

    x = torch.zeros(2)
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    with pytest.warns(SlayWarning, match="a compiled call"):
        assert torch.equal(compiled(x), x + 1)


def test_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None; import torch;"
        "torch.cuda.get_device_name = lambda index: 'P1';"
        "torch.cuda.get_device_capability = lambda index: (9, 0);"
        "from slay.ops.triton import verified; verified._facts(0, None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.endswith("Triton is not installed; pip install 'slay-attention[kernels]'")
