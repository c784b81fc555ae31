"""The benchmark of kernels: what it counts, what it refuses, what it keeps, how it judges."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import slay
from slay.cli import main
from slay.errors import SlayError
from slay.experiments.kernels import bench, check, tables, work
from slay.experiments.kernels.contestants import Tokens
from slay.experiments.kernels.settings import LONGEST, MAIN, Bench, KernelParams
from slay.experiments.measure import interleaved
from slay.experiments.run import provenance
from slay.record import Record, read_records

CPU = torch.device("cpu")
TINY = [
    "--device", "cpu", "--dtype", "float32", "--n-heads", 1, "--head-dim", 4, "--rounds", 10,
    "--attention", MAIN, "--lengths", "8,16", "--backward-lengths", 8, "--contexts", "2,4",
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
    assert again.output.count("not measured") == 6
    assert "nothing follows" in again.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--device", "cuda"], "this machine has no CUDA GPU"),
        (["--lengths", "8,x"], "'8,x': write numbers of tokens"),
        (["--lengths", "0"], "write numbers of tokens"),
        (["--lengths", "", "--backward-lengths", "", "--contexts", ""], "nothing to time"),
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
    whole, groups = bench.Session._group, []

    def interrupted(self, group, tokens):
        groups.append(group)
        if len(groups) == 2:
            raise KeyboardInterrupt
        return whole(self, group, tokens)

    monkeypatch.setattr(bench.Session, "_group", interrupted)
    out = tmp_path / "kernels.json"
    done = call("kernels", "--out", out, *TINY)
    assert done.exit_code == 1
    assert {r.params["seq_len"] for r in read_records(out)} == {16}
    assert "interrupted; what was measured is kept" in done.stderr


def test_without_time_all_is_left_out_and_named(tmp_path):
    done = call("kernels", "--out", tmp_path / "k.json", *TINY, "--seconds", 0)
    assert done.exit_code == 0
    assert done.output.count("left out for lack of time") == len(_tiny().groups)
    assert read_records(tmp_path / "k.json") == []


def _tiny(**changes):
    base = KernelParams(
        attention="linear", device="cpu", dtype="float32", n_heads=1, head_dim=4, repeats=10
    )
    lengths = {"lengths": (8, 16), "backward_lengths": (8,), "contexts": (2, 4)}
    return Bench(base=base, mechanisms=("linear",), **{**lengths, **changes})


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
    records = bench.Session(setting, tmp_path / "k.json", said.append).run()
    by = {r.params["backend"]: r for r in records if r.params["attention"] != "yat-spherical"}
    assert by["torch"].status == status
    assert "\n" not in by["torch"].message
    assert str(error).partition("\n")[0] in by["torch"].message
    assert by["flash"].status == "ok"
    assert any("Traceback" in text for text in said) == isinstance(error, RuntimeError) - (
        status == "oom"
    )


def tokens_of(length, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return Tokens(*(torch.randn(1, 2, length, 8, generator=draw).to(dtype) for _ in range(4)))


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


def kernel_launches(name, length, *, backward=False, head_dim=32, n_heads=2):
    """The launches of a call, none of which is made."""
    pytest.importorskip("triton", reason="the kernels need Triton")
    from slay.ops.triton_linear import kernel_attention

    mechanism = slay.get_attention_class(name).heads_only(head_dim, n_heads)
    shape = (1, n_heads, length, head_dim)
    q, k, v = (torch.empty(shape, dtype=torch.bfloat16, requires_grad=backward) for _ in range(3))
    i = torch.arange(length).view(1, 1, -1)

    def run():
        recipe = mechanism.recipe(mechanism.prepare(q), mechanism.prepare(k), i, i)
        y, _ = kernel_attention(q, k, v, recipe, causal=True)
        if backward:
            torch.autograd.grad(y, (q, k, v), torch.empty_like(y))

    return mechanism, work.launched(run)


def test_bytes_are_those_that_the_kernels_move():
    length, heads, d = 4096, 2, 32
    mechanism, launches = kernel_launches(MAIN, length)
    (M,) = {arguments["M"] for _, arguments in launches if "M" in arguments}
    chunk = launches[0][1]["C"]
    states = 4 * heads * M.state * (length // chunk)
    tokens, sums = 2 * heads * length * d, 4 * heads * length
    weights = sum(t.numel() * 4 for t in (mechanism.anchors, mechanism.omega, mechanism.numbers))
    last = 4 * heads * M.state
    expected = {
        "chunk_states": 2 * tokens + states + weights,  # k, v
        "scan_states": 2 * states + last,
        "outputs": 4 * tokens + sums + states + 2 * weights,
    }
    assert {name: work.bytes_of(name, arguments) for name, arguments in launches} == expected


@pytest.mark.parametrize("name", ["linear", "performer", MAIN, "yat-quadratic", "yat-performer"])
def test_operations_are_those_of_the_method(name):
    """About what PyTorch counts for the same chunks, where scores are not halved.

    The kernels' state of a quadratic has rows that monomials would share.
    """
    _, launches = kernel_launches(name, 1)
    chunk = launches[0][1]["C"]
    mechanism, launches = kernel_launches(name, 4 * chunk)
    mechanism.chunk_size, mechanism.backend = chunk, "torch"
    inputs = torch.randn(3, 1, 2, 4 * chunk, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        mechanism.attend(*inputs)  # by PyTorch
    found = sum(work.operations_of(*launch) for launch in launches)
    assert 0.5 <= found / counter.get_total_flops() <= 1.5
    _, both = kernel_launches(name, 4 * chunk, backward=True)
    assert 2 * found < sum(work.operations_of(*launch) for launch in both) < 5 * found


def test_exact_kernels_move_their_tokens_and_multiply_all_pairs():
    pytest.importorskip("triton", reason="the kernels need Triton")
    from slay.ops.triton_exact import exact_yat

    params = KernelParams(attention="yat-spherical", seq_len=256, head_dim=32, n_heads=2)
    q, k, v = torch.empty(3, 1, 2, 256, 32, dtype=torch.bfloat16)
    launches = work.launched(lambda: exact_yat(q, k, v, 1e-3, causal=True, key_padding_mask=None))
    exact = slay.get_attention_class("yat-spherical").heads_only(32, 2)
    found = work.work_of(params, exact, launches)
    assert found.operations == 2 * exact.operations(256)
    assert found.bytes >= 4 * q.numel() * q.element_size()


def test_a_floor_does_the_work_that_it_stands_for():
    for some in (work.Work(2**12, 2**22), work.Work(1, 1), work.Work(6 * 2**20, 2 * 10**8 + 7)):
        with FlopCounterMode(display=False) as counter:
            work.product_of(some, torch.float32, CPU)()
        side = min(4096, max(64, round(some.operations ** (1 / 3))))
        assert some.operations <= counter.get_total_flops() <= some.operations + 4 * side**2
        target = work.copy_of(some, CPU)()
        assert 2 * target.numel() in (some.bytes, some.bytes + 1)


def test_rounds_end_where_time_does():
    times = interleaved(
        {"a": lambda: None, "b": lambda: None},
        CPU, rounds=50, warmup_seconds=0, max_seconds=0, least=3,
    )  # fmt: skip
    assert [len(t) for t in times.values()] == [3, 3]


def made(mode="forward", length=LONGEST, backend="triton", **metrics):
    params = KernelParams(attention=MAIN, mode=mode, seq_len=length, backend=backend)
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
    return [
        made(latency_ms=1.2 / scale, ratio=1 / (12 * scale), memory_ratio=1.8 / scale),
        made(length=int(4096 / scale), ratio=0.99),
        made(length=int(4096 / scale) // 2, ratio=1.01),
        made("forward_backward", latency_ms=4 / scale),
        made("decode", 128, latency_ms=1.0),
        made("decode", LONGEST, latency_ms=1.2 / scale),
    ]


def test_each_target_is_judged():
    for scale, said in ((1.01, "holds"), (0.9, "FAILS")):
        found = tables.verdicts(all_at(scale))
        assert len(found) == 6
        assert all(str(verdict).startswith(said) for verdict in found), [*map(str, found)]
    text = tables.report(all_at(1.01))
    assert "nothing follows" not in text
    assert text.count("holds") == 6


@given(st.dictionaries(st.integers(1, 20), st.floats(0.1, 10), min_size=1))
def test_crossover_is_the_least_length_from_which_all_are_faster(ratios):
    rows = {("forward", MAIN, "triton", n): made(length=n, ratio=r) for n, r in ratios.items()}
    least = [n for n in ratios if all(r < 1 for m, r in ratios.items() if m >= n)]
    assert tables.crossover(rows) == min(least, default=float("inf"))
