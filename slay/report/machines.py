"""One forward pass on several machines: the study's, this run's, the published runs'."""

from __future__ import annotations

from slay.report.published import others, printed
from slay.report.results import Estimate, Results

# What the study printed, and what the text compares with it.
COMPARED = ["standard", "yat-spherical", "linear", "performer", "yat-performer-anchor"]
COMPARED += ["yat-quadratic"]
Cells = dict[str, dict[int, float]]  # a number by mechanism and length


def device_name(run: Results) -> str:
    """The run and its device; of a processor the name."""
    device = run.machine["device"]
    return f"{run.config['run']}, {run.machine['processor'] if device == 'cpu' else device}"


def by_machine(results: Results, metric: str) -> dict[str, Cells]:
    """A metric of the forward pass by machine, the study's first; empty if no run has it."""
    measured = [(run, _forward(run, metric)) for run in [results, *others(results)]]
    runs = {device_name(run): cells for run, cells in measured if cells}
    study = printed()["paper"]
    return {f"printed, {study['device']}": _study(study, metric)} | runs if runs else {}


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
