"""Publishing what `slay gpu` leaves: a run without the workflow's tables, a benchmark, a device."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from slay.benchmarks.settings import KernelParams
from slay.cli import main
from slay.errors import SlayError
from slay.pipeline.record import read_record, read_records, write_records
from slay.report import machines
from slay.report.published import (
    Published,
    benchmarks,
    publish,
    publish_benchmark,
    publish_devices,
)

CONFIG = """
run: tiny
title: a tiny run
device: cpu
attention: [linear, standard]
experiments:
  scaling:
    - {seq_len: [8, 16], embed_dim: 8, n_heads: 2}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with results/tiny, measured by `slay measure` as if there were no git."""
    folder = tmp_path_factory.mktemp("borrowed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("slay.experiments.run.commit", lambda: (None, None))
        (folder / "tiny.yaml").write_text(CONFIG)
        command = ["measure", "--configfile", "tiny.yaml", "--threads", "1"]
        done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return folder


def test_a_run_without_the_workflow_is_published_as_any_other(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(measured)
    run = measured / "results/tiny"
    assert not (run / "data").exists()
    folder = publish(run, None, tmp_path, dirty=True)
    assert folder == tmp_path / "tiny"
    there = Published(folder)
    assert there.about["records"] == 4
    assert there.about["commit"]
    record = read_record(run / "records/scaling/linear/forward-float32/L16.json")
    cells = machines._forward(there, "latency_ms")
    assert cells["linear"][16] == pytest.approx(record.metrics["latency_ms"])


def test_what_is_measured_again_is_what_is_published(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(measured)
    path = measured / "results/tiny/records/scaling/linear/forward-float32/L8.json"
    before = path.read_text()
    path.unlink()
    with pytest.raises(SlayError, match="1 measurements are missing"):
        publish(measured / "results/tiny", None, tmp_path, dirty=True)
    done = CliRunner().invoke(main, ["measure", "--configfile", "tiny.yaml", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "1 of 4 measurements are missing" in done.stderr
    assert path.read_text() != before
    publish(measured / "results/tiny", None, tmp_path, dirty=True)


@pytest.mark.parametrize("cause", ["dies", "late"])
def test_what_could_not_be_measured_is_named(measured, tmp_path, monkeypatch, cause):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    if cause == "dies":
        monkeypatch.setattr("slay.experiments.run._measured", lambda *args: 1 / 0)
    late = ["--seconds", "0"] if cause == "late" else []
    done = CliRunner().invoke(main, ["measure", "--configfile", "tiny.yaml", *late])
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    if cause == "dies":
        assert "4 measurements are missing (4 failed, 0 were not begun)" in last
        log = tmp_path / "results/tiny/logs/scaling/linear/forward-float32/L8.log"
        assert f"ZeroDivisionError: division by zero, see {log.relative_to(tmp_path)}" in (
            done.stderr
        )
        assert "Traceback" in log.read_text()
    else:
        assert "4 measurements are missing (0 failed, 4 were not begun)" in last


def test_a_benchmark_is_published_under_its_devices_name(measured, tmp_path):
    record = read_record(measured / "results/tiny/records/scaling/linear/forward-float32/L8.json")
    where = record.provenance.model_copy(update={"device": "NVIDIA H100 80GB HBM3", "dirty": True})
    params = KernelParams(attention="linear", seq_len=8).model_dump()
    other = {"experiment": "kernels", "params": params, "provenance": where}
    file = tmp_path / "kernels.jsonl"
    write_records(file, [record.model_copy(update=other)])
    file.with_suffix(".log").write_text("said\n")
    with pytest.raises(SlayError, match="uncommitted changes"):
        publish_benchmark(file, None, tmp_path / "published")
    copy = publish_benchmark(file, None, tmp_path / "published", dirty=True)
    assert copy == tmp_path / "published/kernels/h100-80gb-hbm3.jsonl"
    assert read_records(copy) == read_records(file)
    assert copy.with_suffix(".log").read_text() == "said\n"
    (records,) = benchmarks(tmp_path / "published").values()
    assert machines._timed(records, "latency_ms")["linear"][8] > 0
    write_records(file, [])
    with pytest.raises(SlayError, match="has no records"):
        publish_benchmark(file, None, tmp_path / "published")


def test_verified_devices_go_into_the_package(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices/H100.json").write_text(json.dumps({"complete": True}))
    (copy,) = publish_devices(tmp_path / "devices", tmp_path / "package")
    assert json.loads(copy.read_text()) == {"complete": True}
    assert publish_devices(tmp_path / "none", tmp_path / "package") == []
