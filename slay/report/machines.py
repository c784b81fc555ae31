"""The forward pass on several machines: in the original study, in runs, in kernel benchmarks."""

from __future__ import annotations

import math

from slay.pipeline.record import Record
from slay.report.published import Published, benchmarks, others, printed
from slay.report.results import Estimate, Results

# Mechanisms in the study, and those that the text compares with them.
COMPARED = ["standard", "yat-spherical", "linear", "performer", "yat-performer-anchor"]
COMPARED += ["yat-quadratic"]
PRINTED = "printed, "  # prefix of the study's device
Cells = dict[str, dict[int, float]]  # a number by mechanism and length


def device_name(run: Results) -> str:
    """Name of a run (its folder if published) and its device, or processor if that is a CPU."""
    name = f"published {run.name}" if isinstance(run, Published) else run.config["run"]
    device = run.machine["device"]
    return f"{name}, {run.machine['processor'] if device == 'cpu' else device}"


def by_machine(results: Results, metric: str) -> dict[str, Cells]:
    """A metric of the forward pass by machine, the study's first; empty if this run has none."""
    own = _forward(results, metric)
    if not own:
        return {}
    study = printed()["paper"]
    machines = {f"{PRINTED}{study['device']}": _study(study, metric), device_name(results): own}
    machines |= {device_name(run): _forward(run, metric) for run in others(results)}
    for name, records in benchmarks().items():
        machines[_benchmark_name(name, records[0])] = _timed(records, metric)
    return {machine: cells for machine, cells in machines.items() if cells}


def _benchmark_name(name: str, record: Record) -> str:
    where = record.provenance
    return f"kernels {name}, {where.processor if where.device == 'cpu' else where.device}"


def _timed(records: list[Record], metric: str) -> Cells:
    """A metric of a benchmark's forward passes, each from the fastest implementation."""
    cells: Cells = {}
    fastest: dict[tuple[str, int], float] = {}
    for record in records:
        name, n = record.params["attention"], record.params["seq_len"]
        latency, value = record.metrics.get("latency_ms"), record.metrics.get(metric)
        if name not in COMPARED or record.params["mode"] != "forward" or record.status != "ok":
            continue
        if latency is not None and latency < fastest.get((name, n), math.inf):
            fastest[name, n] = latency
            if value is not None:
                cells.setdefault(name, {})[n] = value
    return {name: dict(sorted(cells[name].items())) for name in COMPARED if name in cells}


def _study(study: dict, metric: str) -> Cells:
    if metric == "latency_ms":
        cells = study["latency_ms"]
    else:
        cells = {
            name: {n: value * 2**20 for n, value in of_name.items()}
            for name, of_name in study["memory_mb"].items()
        }
    return {name: cells[name] for name in COMPARED if name in cells}


def _forward(run: Results, metric: str) -> Cells:
    cells: Cells = {}
    for name in COMPARED:
        where = {"attention": name, "mode": "forward"}
        for n in sorted(run.axis("scaling", "seq_len", mode="forward")):
            value = run.value("scaling", metric, seq_len=n, **where)
            if isinstance(value, Estimate):
                cells.setdefault(name, {})[int(n)] = value.mean
    return cells
