"""Records are read whole or refused, and written whole or not at all."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slay.pipeline.record import (
    Provenance,
    Record,
    RecordError,
    read_by_path,
    read_record,
    read_records,
    write_record,
    write_records,
)

NUMBERS = (
    st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
)
NAMES = st.text(max_size=8)


def record(**changes):
    return Record(
        **{
            "schema": 1,
            "experiment": "quality",
            "params": {"attention": "linear", "options": {"seed": 1}},
            "status": "ok",
            "metrics": {"rel_l2": 0.25, "num_features": 32, "accuracy": None},
            "provenance": Provenance(
                code="0" * 16,
                commit=None,
                dirty=None,
                device="cpu",
                host="here",
                platform="Linux",
                processor="one",
                cores=2,
                threads=1,
                python="3.11",
                torch="2.8",
                started="2026-01-01T00:00:00+00:00",
                seconds=1.5,
                peak_memory_bytes=1000,
            ),
            **changes,
        }
    )


@given(
    metrics=st.dictionaries(NAMES, NUMBERS, max_size=4),
    curve=st.lists(st.dictionaries(NAMES, NUMBERS, max_size=2), max_size=2),
    message=st.text(max_size=20),
)
def test_round_trip(tmp_path_factory, metrics, curve, message):
    path = tmp_path_factory.getbasetemp() / "deep" / "er" / "record.json"
    written = record(metrics=metrics, curve=curve, message=message, status="diverged")
    write_record(path, written)
    assert read_record(path) == written
    assert os.listdir(path.parent) == ["record.json"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "record.json"
    write_record(path, record())
    return path.read_text()


def refused(path):
    """The error a record gives: one line with the file and what to do about it."""
    with pytest.raises(RecordError) as caught:
        read_record(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert f"rm {path}" in message
    return message


def test_a_file_of_one_or_many_is_read_by_one_function(tmp_path):
    one, many, placed = (tmp_path / name for name in ("one.json", "many.jsonl", "placed.jsonl"))
    records = [record(message=f"a\n{n}\u2028") for n in range(3)]
    write_record(one, records[0])
    write_records(many, records)
    write_records(placed, dict(zip("abc", records, strict=True)))
    assert read_records(one) == records[:1]
    assert read_records(many) == read_records(placed) == records
    assert read_by_path(placed) == dict(zip("abc", records, strict=True))
    assert len(many.read_text().splitlines()) == 3
    with pytest.raises(RecordError, match="without a path"):
        read_by_path(many)
    with pytest.raises(RecordError, match="3 records"):
        read_record(many)


@given(share=st.floats(0.0, 1.0))
def test_a_record_cut_short_anywhere_is_refused(tmp_path_factory, text, share):
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(text[: int(share * (len(text) - 2))])
    assert "cut short" in refused(path)


EDITS = {
    "schema 99": lambda data: data | {"schema": 99},
    "schema None": lambda data: {k: v for k, v in data.items() if k != "schema"},
    "metrics.rel_l2": lambda data: data | {"metrics": {"rel_l2": float("nan")}},
    "metrics.m": lambda data: data | {"metrics": {"m": float("inf")}},
    "metrics.name": lambda data: data | {"metrics": {"name": "high"}},
    "surplus": lambda data: data | {"surplus": 1},
    "status": lambda data: data | {"status": "fine"},
    "provenance": lambda data: {k: v for k, v in data.items() if k != "provenance"},
    "provenance.surplus": lambda data: data | {"provenance": data["provenance"] | {"surplus": 1}},
    "broken": lambda data: [data],
}


@pytest.mark.parametrize("named", EDITS)
def test_a_record_of_another_shape_is_refused(tmp_path, text, named):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(EDITS[named](json.loads(text))))
    assert named in refused(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"\xff\x00\xfe")
    refused(path)


def test_a_record_that_is_not_there_says_so(tmp_path):
    with pytest.raises(RecordError, match="no such record"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "record.json"
    write_record(path, record())
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(RecordError, match=r"record\.json: cannot be written \(No space left"):
        write_record(path, record(metrics={"rel_l2": 1.0}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "record.json"):
        with pytest.raises(RecordError, match="cannot be written") as caught:
            write_record(path, record())
        assert str(caught.value).startswith(f"{path}: ")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
