"""The benchmark of kernels: what it counts, what it refuses, what it keeps, how it judges."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import slay
from slay.benchmarks import backends, bench, check, floors, tables, training
from slay.benchmarks.calls import Inputs
from slay.benchmarks.settings import LONGEST, MAIN, BenchConfig, KernelParams, ModelParams
from slay.benchmarks.timing import interleaved
from slay.benchmarks.training import TrainingStep
from slay.cli import main
from slay.errors import SlayError
from slay.experiments.run import provenance
from slay.pipeline.record import Record, read_records

pytestmark = pytest.mark.xdist_group("kernels")

CPU = torch.device("cpu")
TINY = [
    "--device", "cpu", "--dtype", "float32", "--n-heads", 1, "--head-dim", 4, "--rounds", 10,
    "--attention", MAIN, "--lengths", "8,16", "--backward-lengths", 8, "--contexts", "2,4",
    "--batches", "2x6", "--n-layers", 1, "--vocab-size", 32,
]  # fmt: skip


def call(*args):
    return CliRunner().invoke(main, ["bench", *map(str, args)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("kernels") / "deep" / "kernels.json"
    done = call("kernels", "--out", out, *TINY)
    assert done.exit_code == 0, done.output
    return out, done


def test_a_run_times_what_it_can_and_says_why_not(measured):
    out, _ = measured
    records = read_records(out)
    assert {(r.params["mode"], r.params["seq_len"]) for r in records} == {
        ("forward", 8), ("forward", 16), ("forward_backward", 8), ("decode", 2), ("decode", 4),
        ("training_step", 6), ("forward_backward", 6),
    }  # fmt: skip
    for r in records:
        backend = r.params["backend"]
        assert r.status == ("ok" if backend in ("torch", "flash") else "unsupported")
        if r.status == "ok":
            m = r.metrics
            assert 0 < m["latency_ms_q1"] <= m["latency_ms"] <= m["latency_ms_q3"]
            assert m["floor_ms"] == max(m["copy_ms"], m["product_ms"])
            assert m["ratio"] > 0
        elif backend == "triton":
            assert "CUDA GPU" in r.message
        else:
            assert r.message


def test_what_was_printed_is_logged_and_shown_again(measured):
    out, done = measured
    log = out.with_suffix(".log").read_text()
    assert log.startswith("$ slay")
    assert set(done.stderr.splitlines()) <= set(log.splitlines())
    again = call("show", out)
    assert again.exit_code == 0
    assert again.output.strip() in log
    assert again.output.count("not measured") == len(tables.verdicts([]))
    assert "nothing follows" in again.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--device", "cuda"], "this machine has no CUDA GPU"),
        (["--lengths", "8,x"], "'8,x': write numbers of tokens"),
        (["--lengths", "0"], "write numbers of tokens"),
        (
            ["--lengths", "", "--backward-lengths", "", "--contexts", "", "--batches", ""],
            "nothing to time",
        ),
        (["--batches", "16x"], "'16x': write sequences and tokens"),
        (["--attention", "liner"], "did you mean 'linear'"),
        (["--option", "poli_dim=3"], "did you mean 'poly_dim'"),
        (["--option", "poly_dim=0"], "poly_dim"),
        (["--rounds", 2], "repeats"),
        (["--out", "there.json"], "there.json: is there already"),
        (["--out", "x.log"], "name another --out"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_writes_nothing(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "there.json").write_text("precious")
    done = call("kernels", "--out", "new.json", *TINY, *args)
    assert done.exit_code in (1, 2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.output
    assert says in errors[0]
    assert [p.name for p in tmp_path.iterdir()] == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "precious"


def test_show_wants_its_own_records(tmp_path):
    file = tmp_path / "other.json"
    file.write_text('{"schema": 1}\n')
    assert "broken record" in call("show", file).output


def test_an_interruption_keeps_what_was_measured(tmp_path, monkeypatch):
    whole, groups = bench.BenchRunner._group, []

    def interrupted(self, group):
        groups.append(group)
        if len(groups) == 2:
            raise KeyboardInterrupt
        return whole(self, group)

    monkeypatch.setattr(bench.BenchRunner, "_group", interrupted)
    out = tmp_path / "kernels.json"
    done = call("kernels", "--out", out, *TINY)
    assert done.exit_code == 1
    assert {r.params["seq_len"] for r in read_records(out)} == {16}
    assert "interrupted; what was measured is kept" in done.stderr


def test_what_time_did_not_allow_is_named_and_done_by_the_next_start(tmp_path, monkeypatch):
    out, some = tmp_path / "k.json", [*TINY, "--contexts", "", "--batches", ""]
    done = call("kernels", "--out", out, *some, "--seconds", 0)
    assert done.exit_code == 1
    assert done.output.count("left out for lack of time") == 5
    assert "with --resume" in done.stderr.splitlines()[-1]
    assert read_records(out) == []
    assert "is there already; --resume" in call("kernels", "--out", out, *some).stderr
    done = call("kernels", "--out", out, *some, "--resume")
    assert done.exit_code == 0, done.output
    records = read_records(out)
    assert {r.params["seq_len"] for r in records} == {8, 16}
    monkeypatch.setattr(bench.BenchRunner, "_group", lambda self, group: 1 / 0)
    assert call("kernels", "--out", out, *some, "--resume").exit_code == 0
    assert read_records(out) == records


def _tiny(**changes):
    base = KernelParams(
        attention="linear", device="cpu", dtype="float32", n_heads=1, head_dim=4, repeats=10
    )
    lengths = {"lengths": (8, 16), "backward_lengths": (8,), "contexts": (2, 4), "batches": ()}
    return BenchConfig(base=base, mechanisms=("linear",), **{**lengths, **changes})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nmore"), "oom"),
        (RuntimeError("the kernel is broken"), "unsupported"),
        (SlayError("kernels take less"), "unsupported"),
    ],
)
def test_a_contestant_that_fails_is_a_result(tmp_path, monkeypatch, error, status):
    def attend(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(slay.get_attention_class("linear"), "attend", attend)
    said = []
    setting = _tiny(lengths=(8,), backward_lengths=(), contexts=())
    records = bench.BenchRunner(setting, tmp_path / "k.json", said.append).run()
    by = {r.params["backend"]: r for r in records if r.params["attention"] != "yat-spherical"}
    assert by["torch"].status == status
    assert "\n" not in by["torch"].message
    assert str(error).partition("\n")[0] in by["torch"].message
    assert by["flash"].status == "ok"
    assert any("Traceback" in text for text in said) == isinstance(error, RuntimeError) - (
        status == "oom"
    )


def dies(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_contestant_that_kills_its_process_costs_its_own_record(tmp_path, monkeypatch):
    monkeypatch.setattr(slay.get_attention_class("linear"), "attend", dies)
    said = []
    setting = _tiny(lengths=(8, 16), backward_lengths=(), contexts=())
    records = bench.BenchRunner(setting, tmp_path / "k.json", said.append).run()
    for r in records:
        if r.params["backend"] == "flash":
            assert r.metrics["latency_ms"] > 0
        if r.params["backend"] == "torch":
            assert (r.status, r.message) == (
                "unsupported", "its process died: the process was ended by SIGKILL"
            )  # fmt: skip
    assert sum("died at linear by torch, forward of" in text for text in said) == 2


def test_kernels_are_refused_where_their_check_dies_hangs_or_finds_an_error(tmp_path, monkeypatch):
    def passed(calls, parent):
        if calls[0].mode == "forward":
            dies()
        if calls[0].mode == "decode":
            time.sleep(60)
        return {"y": 1e-9, "dq": 0.5 if calls[0].attention == "linear" else 1e-8}

    monkeypatch.setattr(bench, "_passed", passed)
    setting = _tiny(seconds=2)
    cuda = setting.base.model_copy(update={"device": "cuda"})
    setting = dataclasses.replace(setting, base=cuda)
    session = bench.BenchRunner(setting, tmp_path / "k.json", lambda text: None)
    session._check(setting.groups)
    why = {key.partition(", ")[2].partition(" ")[0]: text for key, text in session.refused.items()}
    assert why["forward"] == "its check died: the process was ended by SIGKILL"
    assert why["decode"] == "its check died: not done after 1 s"
    assert why["forward_backward"].startswith("differs from PyTorch in float32: dq by 0.5")
    exact = [key for key in session.errors if key not in session.refused]
    assert [key.partition(" ")[0] for key in exact] == ["yat-spherical"]


def tokens_of(length, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return Inputs(*(torch.randn(1, 2, length, 8, generator=draw).to(dtype) for _ in range(4)))


def test_kernels_that_agree_are_timed_and_others_are_not():
    cls = slay.get_attention_class("yat-performer-anchor")
    reference, other = (cls.heads_only(8, 2, seed=i, backend="torch") for i in range(2))
    tokens = tokens_of(150, torch.bfloat16)
    for mode, parts in (
        ("forward", {"y"}), ("forward_backward", {"y", "dq", "dk", "dv"}), ("decode", {"token"}),
    ):  # fmt: skip
        found = check.errors(reference, reference, tokens, mode)
        assert set(found) == parts
        assert 0 < max(found.values()) < 2e-2  # only rounding
        assert check.refusal(found, torch.bfloat16) == ""
        wrong = check.refusal(check.errors(other, reference, tokens, mode), torch.bfloat16)
        assert all(f"{part} by" in wrong for part in parts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad):
    x = torch.ones(3)
    found = {"y": check.error(torch.tensor([1.0, bad, 1.0]), x)}
    assert check.refusal(found, torch.float32).startswith("differs")


def test_bytes_are_those_of_inputs_outputs_and_states():
    def moved(**asked):
        params = KernelParams(**{"attention": "linear", "seq_len": 64, "batch_size": 3, **asked})
        own = slay.get_attention_class(params.attention).heads_only(32, 8)
        return backends.work_of(params, own).bytes

    tokens = 2 * 3 * 8 * 64 * 32
    assert moved() == 4 * tokens
    assert moved(mode="forward_backward") == 12 * tokens
    assert moved(mode="decode") == 3 * 8 * (2 * 4 * 32 * 33 + 4 * 2 * 32)
    assert moved(attention=MAIN, backend="fla") == 2 * tokens + 2 * tokens * 1024 // 32
    assert moved(attention="standard", mode="decode") == 2 * tokens + 4 * tokens // 64


def test_a_models_operations_are_about_those_that_pytorch_counts():
    params = ModelParams(
        attention="standard", backend="torch", mode="training_step", seq_len=32, batch_size=2,
        n_heads=12, head_dim=64, n_layers=2, vocab_size=128, dtype="float32", device="cpu",
    )  # fmt: skip
    step = TrainingStep(params, CPU)
    with FlopCounterMode(display=False) as counter:
        step()
    own = slay.get_attention_class("standard").heads_only(64, 12)
    found = backends.work_of(params, own, step.n_parameters)
    assert 0.95 < found.operations / counter.get_total_flops() < 1.05
    assert found.bytes == 40 * step.n_parameters


def test_pieces_of_logits_do_not_change_a_training_step(monkeypatch):
    params = ModelParams(
        attention="linear", backend="torch", mode="training_step", seq_len=16, batch_size=2,
        n_heads=12, head_dim=64, n_layers=1, vocab_size=32, dtype="float32", device="cpu",
    )  # fmt: skip
    losses = []
    for piece in (64, 7):
        monkeypatch.setattr(training, "PIECE", piece)
        step = TrainingStep(params, CPU)
        losses.append([float(step()) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][2] < losses[0][0] - 0.1  # it learns by heart


def test_a_floor_does_the_work_that_it_stands_for():
    for some in (
        floors.Work(2**12, 2**22),
        floors.Work(1, 1),
        floors.Work(6 * 2**20, 2 * 10**8 + 7),
    ):
        with FlopCounterMode(display=False) as counter:
            floors.product_of(some, torch.float32, CPU)()
        side = min(4096, max(64, round(some.operations ** (1 / 3))))
        assert some.operations <= counter.get_total_flops() <= some.operations + 4 * side**2
        target = floors.copy_of(some, CPU)()
        assert 2 * target.numel() in (some.bytes, some.bytes + 1)


def test_rounds_end_where_time_does():
    times = interleaved(
        {"a": lambda: None, "b": lambda: None},
        CPU, rounds=50, warmup_seconds=0, max_seconds=0, least=3,
    )  # fmt: skip
    assert [len(t) for t in times.values()] == [3, 3]


def made(mode="forward", length=LONGEST, backend="triton", attention=MAIN, shape=None, **metrics):
    params = KernelParams(
        attention=attention, mode=mode, seq_len=length, backend=backend, **(shape or {})
    )
    from datetime import UTC, datetime

    where = provenance("0" * 16, CPU, 1, datetime.now(UTC), 1.0)
    return Record(
        schema=1,
        experiment="kernels",
        params=params.model_dump(),
        status="ok",
        metrics=metrics,
        provenance=where.model_copy(update={"device": "NVIDIA H100"}),
    )


def all_at(scale):
    """Records whose every number is `scale` times better than its target."""
    steps = [
        made("training_step", tokens, attention=name, ratio=bound / scale,
             shape={"batch_size": sequences, "n_heads": 12, "head_dim": 64})
        for sequences, tokens, bound in ((16, 1024, 1.15), (1, 16_384, 0.8), (1, 65_536, 0.35))
        for name in ("yat-quadratic", MAIN)
    ]  # fmt: skip
    inside = [
        made("forward_backward", tokens, attention="yat-quadratic", ratio=bound / scale,
             shape={"batch_size": sequences, "n_heads": 12, "head_dim": 64})
        for sequences, tokens, bound in ((16, 1024, 1.5), (1, 16_384, 0.5))
    ]  # fmt: skip
    return [
        made(latency_ms=1.2 / scale, ratio=1 / (12 * scale), memory_ratio=1.8 / scale),
        made(length=int(4096 / scale), ratio=0.99),
        made(length=int(4096 / scale) // 2, ratio=1.01),
        *inside,
        made("forward_backward", latency_ms=4 / scale),
        made("decode", 128, latency_ms=1.0),
        made("decode", LONGEST, latency_ms=1.2 / scale),
        *steps,
        made("forward", 512, "fla", "linear", kernels_ratio=0.1),
        made("forward_backward", 512, "fla", "linear", kernels_ratio=1 / scale),
    ]


def test_each_target_is_judged():
    for scale, said in ((1.01, "holds"), (0.9, "FAILS")):
        found = tables.verdicts(all_at(scale))
        assert len(found) == 15
        assert all(str(verdict).startswith(said) for verdict in found), [*map(str, found)]
    text = tables.report(all_at(1.01))
    assert "nothing follows" not in text
    assert text.count("holds") == 15
    lines = tables.markdown(all_at(1.01)).splitlines()
    assert len(lines) == 2 + 15
    assert "| forward at L = 131,072 | at most 1.2 ms | 1.188 ms | holds |" in lines
    assert tables.markdown([]) == ""


@given(st.dictionaries(st.integers(1, 20), st.floats(0.1, 10), min_size=1))
def test_crossover_is_the_least_length_from_which_all_are_faster(ratios):
    rows = [made(length=n, ratio=r) for n, r in ratios.items()]
    least = [n for n in ratios if all(r < 1 for m, r in ratios.items() if m >= n)]
    assert tables.crossover(rows) == min(least, default=float("inf"))
