"""Jobs that meet the end of memory, of the disk, or a GPU that is not there: real processes."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from slay.pipeline.record import read_record

SLAY = Path(sys.executable).parent / "slay"
QUALITY = ("quality", "--seq-len", 8, "--head-dim", 4)


def run(folder, *args, limits=(), **environment):
    """`slay run` for record.json in a folder, under limits of the system's."""
    words = [SLAY, "run", args[0], "--attention", "linear", *args[1:], "--out", "record.json"]

    def limit():
        for kind, most in limits:
            resource.setrlimit(kind, (most, most))

    return subprocess.run(
        list(map(str, words)), cwd=folder, env={**os.environ, **environment}, preexec_fn=limit,
        capture_output=True, text=True,
    )  # fmt: skip


def test_out_of_memory_is_a_result(tmp_path):
    size = ("--batch-size", 10**9, "--seq-len", 8, "--task", "copy", "--device", "cpu")
    done = run(tmp_path, "tasks", *size, limits=[(resource.RLIMIT_AS, 8 << 30)])
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "record.json")
    assert record.status == "oom"
    assert "allocate" in record.message
    assert record.metrics == {}


@pytest.mark.parametrize("before", [None, "an older record"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, before):
    record = tmp_path / "record.json"
    if before is not None:
        record.write_text(before)
    full = [(resource.RLIMIT_FSIZE, 500)]
    done = run(tmp_path, *QUALITY, "--device", "cpu", limits=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: record.json: cannot be written (File too large)"
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ([] if before is None else ["record.json"])
    assert before is None or record.read_text() == before


def test_a_full_disk_stops_what_writes_tables_with_one_line(tmp_path):
    done = run(tmp_path, *QUALITY, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "record.json")
    job = {"path": "record.json", "params": record.params, "codes": {"cpu": record.provenance.code}}
    (tmp_path / "manifest.json").write_text(json.dumps([job]))
    words = [SLAY, "collect", "manifest.json", "--table", "/dev/full", "--summary", "s.csv"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_code_than_was_planned_is_one_line(tmp_path):
    done = run(tmp_path, *QUALITY, "--device", "cpu", "--code", "0,1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"Error: the code changed .*\(fingerprint 0 or 1, now \w{16}\); .*", line)
    assert not os.listdir(tmp_path)


def test_no_gpu_is_one_line(tmp_path):
    done = run(tmp_path, *QUALITY, "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: device 'cuda': torch sees no GPU here; use device 'cpu' or 'auto'"
    ]
    assert not os.listdir(tmp_path)
