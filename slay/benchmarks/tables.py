"""Tables of a benchmark's records, and the verdicts on its targets. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slay.benchmarks.settings import (
    BASELINE,
    CONTEXTS,
    LONGEST,
    MAIN,
    MODEL_HEAD_DIM,
    SHORT,
    KernelParams,
    Shape,
    params_of,
)
from slay.pipeline.record import Number, Record

GPU = "H100"  # on which the targets hold, with the default shapes
STEPS = ((16, 1024, 1.15), (1, 16_384, 0.8), (1, 65_536, 0.35))  # sequences, tokens, bound
SHORT_BOUNDS = ((16, 1024, 1.5), (1, 16_384, 0.5))
COLUMNS = "{:34} {:>8} {:>10} {:>19} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}"
HEAD = COLUMNS.format(
    "contestant", "L", "ms", "quartiles", "GB", "TFLOP", "copy ms", "mm ms", "x floor", "x flash",
    "memory",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A target and its measured value, None if not measured."""

    target: str
    bound: float
    value: float | None
    most: bool = True  # True for an upper bound, False for a lower one
    unit: str = ""

    @property
    def holds(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.most else self.value >= self.bound

    @property
    def words(self) -> tuple[str, str, str]:
        """The bound, the measured value and the verdict as text."""
        said = {True: "holds", False: "FAILS", None: "not measured"}[self.holds]
        asked = f"{'at most' if self.most else 'at least'} {self.bound:,g}{self.unit}"
        found = "" if self.value is None else f"{self.value:,.4g}{self.unit}"
        return asked, found, said

    def __str__(self) -> str:
        asked, found, said = self.words
        return f"{said:13} {self.target:62} {asked:20} {found}"


def line(record: Record) -> str:
    """One record as a line."""
    p, m = params_of(record.params), record.metrics
    if record.status != "ok":
        return f"{p.label:34} {p.seq_len:>8} {record.status}: {record.message}"
    speed = m.get("ratio")
    return COLUMNS.format(
        p.label,
        p.seq_len,
        _number(m.get("latency_ms")),
        f"{_number(m.get('latency_ms_q1'))}–{_number(m.get('latency_ms_q3'))}",
        _number(m.get("bytes"), 1e9),
        _number(m.get("operations"), 1e12),
        _number(m.get("copy_ms")),
        _number(m.get("product_ms")),
        _number(m.get("floor_ratio")),
        _number(1 / speed if speed else None),
        _number(m.get("memory_ratio")),
    )


def table(records: Iterable[Record]) -> str:
    """All records, by mode and shape, then by length."""
    lines: list[str] = []
    rows = [(params_of(record.params), record) for record in records]
    for mode in ("forward", "forward_backward", "decode", "training_step"):
        some = [(p, r) for p, r in rows if p.mode == mode and r.status != "unsupported"]
        for shape in dict.fromkeys(p.shape for p, _ in some):
            lines += ["", f"{mode.replace('_', ' and ', mode == 'forward_backward')}, {_of(shape)}"]
            lines += [HEAD]
            of_shape = [(p.seq_len, r) for p, r in some if p.shape == shape]
            lines += [line(r) for _, r in sorted(of_shape, key=lambda item: item[0])]
    why = {f"{p.label}: {r.message}": None for p, r in rows if r.status == "unsupported"}
    return "\n".join([*lines, *(["", "not timed", *why] if why else [])])


def _of(shape: Shape) -> str:
    return "{} x {} heads of {}".format(*shape)


def verdicts(records: Iterable[Record]) -> list[Verdict]:
    """Verdicts on long sequences, on training sizes, and against flash-linear-attention."""
    rows = list(records)
    return [*_long(rows), *_in_models(rows), *_beside_fla(rows)]


def _long(rows: list[Record]) -> list[Verdict]:
    """Verdicts on the kernels of `MAIN`, the study's choice of features."""

    def found(metric: str, mode: str, length: int) -> float | None:
        own = {"attention": MAIN, "backend": "triton"}
        fields = KernelParams.model_fields
        shape = {name: fields[name].default for name in ("batch_size", "n_heads", "head_dim")}
        return _value(rows, metric, mode=mode, seq_len=length, **own, **shape)

    slower = found("ratio", "forward", LONGEST)
    faster = 1 / slower if slower else None
    short, long = (found("latency_ms", "decode", n) for n in CONTEXTS)
    after = long / short if long and short else None
    both = found("latency_ms", "forward_backward", LONGEST)
    memory = found("memory_ratio", "forward", LONGEST)
    at = f"L = {LONGEST:,}"
    return [
        Verdict(f"forward at {at}", 1.2, found("latency_ms", "forward", LONGEST), unit=" ms"),
        Verdict(f"times faster than flash attention at {at}", 12, faster, most=False),
        Verdict("crossover with flash attention, in tokens", 4096, crossover(rows)),
        Verdict(f"forward and backward at {at}", 4.0, both, unit=" ms"),
        Verdict(f"peak memory over q, k, v and y at {at}", 1.8, memory),
        Verdict(f"a token after {CONTEXTS[1]:,} over one after {CONTEXTS[0]}", 1.2, after),
    ]


def _in_models(rows: list[Record]) -> list[Verdict]:
    """Verdicts on time over flash attention's, for attention alone and for training steps."""
    found = []
    for sequences, tokens, bound in SHORT_BOUNDS:
        what = f"{SHORT}, forward and backward over flash, {sequences} x {tokens:,}"
        found.append(Verdict(what, bound, _ratio(rows, SHORT, "forward_backward", tokens)))
    for sequences, tokens, bound in STEPS:
        for name in (SHORT, MAIN):
            what = f"{name}, training step over softmax's, {sequences} x {tokens:,}"
            found.append(Verdict(what, bound, _ratio(rows, name, "training_step", tokens)))
    return found


def _ratio(rows: list[Record], name: str, mode: str, tokens: int) -> float | None:
    own = {"attention": name, "backend": "triton", "head_dim": MODEL_HEAD_DIM}
    return _value(rows, "ratio", mode=mode, seq_len=tokens, **own)


def _beside_fla(rows: list[Record]) -> list[Verdict]:
    """Verdict on the worst ratio to flash-linear-attention's time for the same mechanism."""
    ratios = [
        ratio
        for record in rows
        if (record.params["attention"], record.params["backend"]) == ("linear", "fla")
        and (ratio := _float(record.metrics.get("kernels_ratio"))) is not None
    ]
    return [Verdict("linear over flash-linear-attention, at worst", 1, max(ratios, default=None))]


def _value(rows: list[Record], metric: str, **where: object) -> float | None:
    """Metric of the first record that has these parameters."""
    for record in rows:
        if all(record.params.get(key) == value for key, value in where.items()):
            return _float(record.metrics.get(metric))
    return None


def crossover(rows: Iterable[Record], attention: str = MAIN) -> float | None:
    """Least length from which our forward pass is always faster than flash attention.

    Infinite if it is not faster at the longest length measured; None if nothing was measured.
    """
    own = ("forward", attention, "triton")
    ratios = {
        record.params["seq_len"]: ratio
        for record in rows
        if tuple(record.params[key] for key in ("mode", "attention", "backend")) == own
        and (ratio := _float(record.metrics.get("ratio"))) is not None
    }
    if not ratios:
        return None
    least = float("inf")
    for length in sorted(ratios, reverse=True):
        if ratios[length] >= 1:
            break
        least = length
    return least


def comparisons(records: Iterable[Record]) -> str:
    """Our kernels against flash attention and flash-linear-attention; "" if neither was timed."""
    rows = list(records)
    lines = []
    for name in dict.fromkeys(record.params["attention"] for record in rows):
        least = crossover(rows, name)
        if least is not None:
            when = f"from L = {least:,} on" if least < float("inf") else "nowhere"
            lines.append(f"{name} by triton: faster than flash attention {when}")
    for record in rows:
        own, other = (record.metrics.get(key) for key in ("kernels_latency_ms", "latency_ms"))
        if own and other:
            p = params_of(record.params)
            lines.append(
                f"{p.label}: {other / own:.3g} times as long as by triton, {p.mode} at L = "
                f"{p.seq_len:,} ({_of(p.shape)}), without the time to form its features"
            )
    return "\n".join(lines)


def conditions(records: Iterable[Record]) -> str:
    """Device and versions of the records, and whether the targets apply; "" without records."""
    rows = list(records)
    if not rows:
        return ""
    p, where = params_of(rows[0].params), rows[0].provenance
    versions = f"torch {where.torch}, triton {where.triton}, driver {where.driver}"
    text = f"{where.device}: {p.dtype}; {versions}"
    plain = all(not r.params["options"] for r in rows)
    if (
        GPU not in where.device
        or not plain
        or p.dtype != KernelParams.model_fields["dtype"].default
    ):
        text += f"\nThe targets are for an {GPU} and the default shapes: nothing follows from this."
    return text


def report(records: Iterable[Record]) -> str:
    """The full report: table, comparisons, conditions and verdicts."""
    rows = list(records)
    held = "\n".join(map(str, verdicts(rows)))
    head = f"{MAIN} by triton against {BASELINE} by flash, unless said otherwise"
    parts = [table(rows), comparisons(rows), conditions(rows), f"{head}\n{held}"]
    return "\n\n".join(part for part in parts if part)


def markdown(records: Iterable[Record]) -> str:
    """Markdown table of the measured targets; "" if there are none, or on another GPU."""
    rows = list(records)
    if not rows or GPU not in rows[0].provenance.device:
        return ""
    found = [(verdict, *verdict.words) for verdict in verdicts(rows) if verdict.value is not None]
    heads = [f"| {rows[0].provenance.device} | target | measured | |", "|---|---|---:|---|"]
    lines = [f"| {v.target} | {asked} | {value} | {said} |" for v, asked, value, said in found]
    return "".join(f"{line}\n" for line in [*heads, *lines]) if found else ""


def _float(value: Number) -> float | None:
    return None if value is None else float(value)


def _number(value: Number, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.3g}"
