"""A benchmark's records as a table, and the verdicts on its targets. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from slay.experiments.kernels.settings import CONTEXTS, LONGEST, MAIN, OPPONENT, KernelParams
from slay.record import Number, Record

Rows = dict[tuple[Any, ...], Record]  # by mode, attention, backend, length
GPU = "H100"  # that the targets are for, with the default shapes
COLUMNS = "{:34} {:>8} {:>10} {:>19} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}"
HEAD = COLUMNS.format(
    "contestant", "L", "ms", "quartiles", "GB", "TFLOP", "copy ms", "mm ms", "x floor", "x flash",
    "memory",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; `value` is None where it was not."""

    target: str
    bound: float
    value: float | None
    most: bool = True  # whether the bound is the most that holds, or the least
    unit: str = ""

    @property
    def holds(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.most else self.value >= self.bound

    def __str__(self) -> str:
        said = {True: "holds", False: "FAILS", None: "not measured"}[self.holds]
        asked = f"{'at most' if self.most else 'at least'} {self.bound:,g}{self.unit}"
        found = "" if self.value is None else f"{self.value:,.4g}{self.unit}"
        return f"{said:13} {self.target:52} {asked:20} {found}"


def line(record: Record) -> str:
    """One record as a line."""
    p, m = KernelParams(**record.params), record.metrics
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
    """All records, by mode and length."""
    lines: list[str] = []
    rows = list(records)
    for mode in ("forward", "forward_backward", "decode"):
        some = [r for r in rows if r.params["mode"] == mode and r.status != "unsupported"]
        if some:
            lines += ["", mode.replace("_", " and "), HEAD]
            lines += [line(r) for r in sorted(some, key=lambda r: r.params["seq_len"])]
    why = {
        f"{KernelParams(**r.params).label}: {r.message}": None
        for r in rows
        if r.status == "unsupported"
    }
    return "\n".join([*lines, *(["", "not timed", *why] if why else [])])


def verdicts(records: Iterable[Record]) -> list[Verdict]:
    """The targets for the kernels of the study's own choice of features."""
    rows = _indexed(records)

    def found(metric: str, mode: str, length: int) -> float | None:
        record = rows.get((mode, MAIN, "triton", length))
        return None if record is None else _float(record.metrics.get(metric))

    slower = found("ratio", "forward", LONGEST)
    short, long = (found("latency_ms", "decode", n) for n in CONTEXTS)
    at = f"L = {LONGEST:,}"
    return [
        Verdict(f"forward at {at}", 1.2, found("latency_ms", "forward", LONGEST), unit=" ms"),
        Verdict(
            f"times faster than flash attention at {at}",
            12,
            1 / slower if slower else None,
            most=False,
        ),
        Verdict("crossover with flash attention, in tokens", 4096, crossover(rows)),
        Verdict(
            f"forward and backward at {at}",
            4.0,
            found("latency_ms", "forward_backward", LONGEST),
            unit=" ms",
        ),
        Verdict(
            f"peak memory over q, k, v and y at {at}",
            1.8,
            found("memory_ratio", "forward", LONGEST),
        ),
        Verdict(
            f"a token after {CONTEXTS[1]:,} over one after {CONTEXTS[0]}",
            1.2,
            long / short if long and short else None,
        ),
    ]


def crossover(rows: Rows, attention: str = MAIN) -> float | None:
    """The least length from which on our forward pass is faster than flash attention, always.

    Infinite if it is not even at the greatest that was measured; None if nothing was.
    """
    ratios = {
        length: ratio
        for (mode, name, backend, length), record in rows.items()
        if (mode, name, backend) == ("forward", attention, "triton")
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
    """Our kernels beside flash attention and flash-linear-attention; "" where neither was timed."""
    rows = _indexed(records)
    lines = []
    for name in dict.fromkeys(attention for _, attention, _, _ in rows):
        least = crossover(rows, name)
        if least is not None:
            when = f"from L = {least:,} on" if least < float("inf") else "nowhere"
            lines.append(f"{name} by triton: faster than flash attention {when}")
    for record in rows.values():
        own, other = (record.metrics.get(key) for key in ("kernels_latency_ms", "latency_ms"))
        if own and other:
            p = KernelParams(**record.params)
            lines.append(
                f"{p.label}: {other / own:.3g} times as long as by triton, {p.mode} at L = "
                f"{p.seq_len:,}, without the time to form its features"
            )
    return "\n".join(lines)


def conditions(records: Iterable[Record]) -> str:
    """Where the records were made, and whether the targets are for that; "" without records."""
    rows = list(records)
    if not rows:
        return ""
    p, where = KernelParams(**rows[0].params), rows[0].provenance
    shapes = f"batch {p.batch_size}, {p.n_heads} heads of {p.head_dim}, {p.dtype}"
    versions = f"torch {where.torch}, triton {where.triton}, driver {where.driver}"
    text = f"{where.device}: {shapes}; {versions}"
    fields = KernelParams.model_fields
    same = all(
        getattr(p, name) == fields[name].default
        for name in ("batch_size", "n_heads", "head_dim", "dtype")
    )
    plain = all(not r.params["options"] for r in rows)
    if GPU not in where.device or not same or not plain:
        text += f"\nThe targets are for an {GPU} and the default shapes: nothing follows from this."
    return text


def report(records: Iterable[Record]) -> str:
    """Everything that there is to read."""
    rows = list(records)
    held = "\n".join(map(str, verdicts(rows)))
    head = f"{MAIN} by triton against {OPPONENT} by flash"
    parts = [table(rows), comparisons(rows), conditions(rows), f"{head}\n{held}"]
    return "\n\n".join(part for part in parts if part)


def _indexed(records: Iterable[Record]) -> Rows:
    keys = ("mode", "attention", "backend", "seq_len")
    return {tuple(r.params[key] for key in keys): r for r in records}


def _float(value: Number) -> float | None:
    return None if value is None else float(value)


def _number(value: Number, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.3g}"
