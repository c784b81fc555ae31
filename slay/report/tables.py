"""The rows of each table; how they look is in paper/tables/<name>.tex.j2."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slay.errors import unknown
from slay.report import groups, scores, sources
from slay.report.context import basic, whole
from slay.report.keys import keys
from slay.report.latex import Latex, environment, escape, render, with_notes
from slay.report.machines import PRINTED, by_machine, device_name
from slay.report.published import others, printed
from slay.report.results import Estimate, Missing, Results
from slay.report.shown import empty_table


def render_table(name: str, results: Results, templates: Path) -> str:
    """LaTeX of a table, environment and caption included; a comment where it would have no row.

    Raises `UnknownNameError`.
    """
    if name not in sources.TABLES:
        raise unknown("table", name, sources.TABLES)
    env = environment(templates)
    if name.startswith("claims"):
        context = whole(results, env, templates)
    else:
        context = basic(results) | TABLES[name](results)
        if not context["rows"]:
            return empty_table()
    return with_notes(render(env, f"tables/{name}.tex.j2", **context))


def mechanisms(results: Results) -> dict[str, Any]:
    """Facts of each mechanism, as its class states them."""
    return {"rows": results.mechanisms}


def quality(results: Results) -> dict[str, Any]:
    """A block a head dimension; first what needs no mechanism: answering zero."""
    published = printed()["readme"]["quality"]
    length = next(iter(results.axis("quality", "seq_len")), None)
    trained = {"seq_len": next(iter(results.axis("quality", "seq_len", inputs="trained")), None)}
    blocks: list[dict[str, Any]] = []
    dims = sorted(results.axis("quality", "head_dim"))
    for dim in dims:
        rows = []
        for name in results.names:
            for variant in results.axis("quality", "variant", attention=name, head_dim=dim):
                where = {"attention": name, "head_dim": dim, "variant": variant, "seq_len": length}
                m = results.value("quality", "num_features", **where)
                rows.append(
                    {
                        "name": name,
                        "variant": _letters(variant),
                        "m": m,
                        "bound": _bound(results, dim, m),
                        "isotropic": _by_metric(results, inputs="isotropic", **where),
                        "planted": _by_metric(results, inputs="planted", **where),
                        "trained": _by_metric(results, inputs="trained", **(where | trained)),
                        "published": {} if variant or dim != 32 else published.get(name, {}),
                    }
                )
        zeros = {
            inputs: results.value("quality", "target_mse", head_dim=dim, inputs=inputs)
            for inputs in ("isotropic", "planted")
        }
        blocks.append({"dim": dim, "rows": rows, "zeros": zeros})
    widest = max((len(block["rows"]) for block in blocks), default=0)
    blocks.sort(key=lambda block: len(block["rows"]) != widest)  # the fullest first
    rows = [row for block in blocks for row in block["rows"]]
    return {"rows": rows, "blocks": blocks, "length": length, "trained_length": trained["seq_len"]}


def _bound(results: Results, dim: int, m: Estimate | Missing) -> float | None:
    return results.bound(dim, int(m.mean)) if isinstance(m, Estimate) else None


def _by_metric(results: Results, **where: Any) -> dict[str, Estimate | Missing]:
    metrics = ("rel_l2", "cosine", "mse", "kernel_error")
    return {metric: results.value("quality", metric, **where) for metric in metrics}


def scaling(results: Results) -> dict[str, Any]:
    """Latency, ratio to `standard` and memory at each length, with fitted growth."""
    lengths = sorted(results.axis("scaling", "seq_len", mode="forward"))
    rows = []
    for name in _measured(results, "scaling"):
        where = {"attention": name, "mode": "forward"}
        rows.append(
            {
                "name": name,
                "cells": [
                    {
                        metric: results.value("scaling", metric, seq_len=length, **where)
                        for metric in ("latency_ms", "ratio", "peak_memory_bytes")
                    }
                    for length in lengths
                ],
                "time_growth": scores.growth(results, name, "latency_ms"),
                "memory_growth": scores.growth(results, name, "peak_memory_bytes"),
            }
        )
    return {"lengths": lengths, "rows": rows}


def passes(results: Results) -> dict[str, Any]:
    """Latency and ratio of what else is timed than the forward pass, by mode and length."""
    columns = [
        (mode, length)
        for mode in results.axis("scaling", "mode")
        if mode != "forward"
        for length in sorted(results.axis("scaling", "seq_len", mode=mode))
    ]
    rows = []
    for name in results.names:
        cells = [
            {
                metric: results.value("scaling", metric, attention=name, mode=mode, seq_len=length)
                for metric in ("latency_ms", "ratio", "tokens_per_second")
            }
            for mode, length in columns
        ]
        if any(isinstance(cell["latency_ms"], Estimate) for cell in cells):
            rows.append({"name": name, "cells": cells})
    return {"columns": columns, "rows": rows}


def longest_context(results: Results) -> dict[str, Any]:
    """The longest context in each memory budget, and the number of lengths tried for it."""
    budgets = sorted(results.axis("max_context", "memory_mb"))
    rows = [
        {
            "name": name,
            "cells": [
                {
                    metric: results.value("max_context", metric, attention=name, memory_mb=budget)
                    for metric in ("longest", "capped", "probes")
                }
                for budget in budgets
            ],
        }
        for name in _measured(results, "max_context")
    ]
    return {"budgets": budgets, "rows": rows}


def budget(results: Results) -> dict[str, Any]:
    """Error beside latency for every budget of features, by number of features."""
    metrics = ("num_features", "rel_l2", "kernel_error", "latency_ms", "ratio", "ratio_standard")
    rows = []
    for name in _measured(results, "ablation"):
        of_name = []
        for variant in results.axis("ablation", "variant", attention=name):
            where = {"attention": name, "variant": variant}
            cells = {metric: results.value("ablation", metric, **where) for metric in metrics}
            of_name.append({"name": name, "variant": _letters(variant), **cells})
        rows += sorted(of_name, key=_size)
    return {"rows": rows}


LETTERS = {"num_quadrature_nodes": "R", "num_prf_features": "M", "poly_dim": "P"}


def _letters(variant: str) -> Latex:
    """The options of a variant with the letters of the text, in their order there."""
    pairs = [part.split("=") for part in variant.split("+") if part]
    order = list(LETTERS)
    pairs.sort(key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))
    return Latex(
        ", ".join(
            f"${LETTERS[name]}={value}$" if name in LETTERS else escape(f"{name} = {value}")
            for name, value in pairs
        )
    )


def _size(row: dict[str, Any]) -> float:
    m = row["num_features"]
    return m.mean if isinstance(m, Estimate) else 0.0


def denominators(results: Results) -> dict[str, Any]:
    """Sign and size of the normaliser by mechanism and inputs, with the distance of the rows."""
    kinds = results.axis("quality", "inputs")
    metrics = ("nonpositive_share", "min_normaliser", "row_tv")
    rows = [
        {
            "name": name,
            "cells": [
                {
                    metric: results.value(
                        "quality", metric, attention=name, inputs=inputs, head_dim=32
                    )
                    for metric in metrics
                }
                for inputs in kinds
            ],
        }
        for name in _measured(results, "quality")
    ]
    return {"kinds": kinds, "rows": rows}


def tasks(results: Results) -> dict[str, Any]:
    """Mean normalised score by group of tasks, and how many that need attention are solved."""
    there = groups.complete(results)
    rows = [
        {
            "name": name,
            "cells": [scores.mean_score(results, name, tasks) for tasks in there.values()],
            "solved": groups.solved(results, name, "attention_critical"),
        }
        for name in _measured(results, "tasks")
    ]
    sizes = {name: len(tasks) for name, tasks in there.items()}
    return {"groups": sizes, "rows": rows}


def tasks_full(results: Results) -> dict[str, Any]:
    """Accuracy by task and mechanism, with the null, and what does not differ from softmax."""
    names = _measured(results, "tasks")
    alike = scores.like_opponent(results)
    rows = []
    for task, length in scores.lengths(results):
        where = {"task": task, "seq_len": length}
        cells = [
            {
                "accuracy": results.value("tasks", "accuracy", attention=name, **where),
                "alike": (name, task, length) in alike,
            }
            for name in names
        ]
        null = results.value("tasks", "null", **where)
        rows.append({"task": task, "length": length, "null": null, "cells": cells})
    return {"names": names, "rows": rows}


def language(results: Results) -> dict[str, Any]:
    """Loss and cost of each mechanism's model, by the width of the short convolution."""
    costs = ("tokens_per_second", "peak_memory_bytes", "flops_utilisation")
    metrics = ("loss", "perplexity", "bits_per_byte", *costs)
    convs = sorted(results.axis("language", "short_conv"))
    rows = [
        {
            "name": name,
            "cells": [
                {
                    metric: results.value("language", metric, attention=name, short_conv=conv)
                    for metric in metrics
                }
                for conv in convs
            ],
        }
        for name in _measured(results, "language")
    ]
    study = printed()["paper"]["language"]
    used = not results.select("language", "flops_utilisation").empty if rows else False
    facts = {key: value for key in ABOUT for value in results.axis("language", key)[:1]}
    return {
        "rows": rows,
        "convs": convs,
        "utilisation": used,
        "study": study if facts.get("embed_dim") == 768 else {},
        "unigram": results.value("language", "unigram_entropy"),
        "about": Latex(", ".join(ABOUT[key].format(escape(str(facts[key]))) for key in facts)),
    }


ABOUT = {
    "n_layers": "of {} layers",
    "embed_dim": "width ${}$",
    "context_len": "context $L={}$",
    "steps": "trained for ${}$ steps",
    "batch_size": "${}$ sequences a step",
    "data": "on \\texttt{{{}}}",
}


UNITS = {"latency_ms": "ms", "peak_memory_bytes": "MiB"}


def machines(results: Results) -> dict[str, Any]:
    """Latency and memory of the forward pass by machine, mechanism and length."""
    rows: list[dict[str, Any]] = [
        {
            "metric": metric,
            "device": device,
            "printed": device.startswith(PRINTED),
            "name": name,
            "points": points,
        }
        for metric in UNITS
        for device, cells in by_machine(results, metric).items()
        for name, points in cells.items()
    ]
    lengths = sorted({n for row in rows for n in row["points"]})
    return {"rows": rows, "lengths": lengths, "units": UNITS}


def runs(results: Results) -> dict[str, Any]:
    """The key numbers of this run beside those of the published ones and of the study."""
    every = [results, *others(results)]
    rows = []
    for key in keys(printed()):
        cells = [key.find(run) for run in every]
        if not all(isinstance(cell, Missing) for cell in cells):
            what = re.sub(r"\b([a-z]) = (\d+)", r"$\1=\2$", escape(key.what))
            rows.append({"what": Latex(what), "key": key, "cells": cells})
    return {"rows": rows, "devices": [device_name(run) for run in every]}


def _measured(results: Results, experiment: str) -> list[str]:
    """The mechanisms that an experiment has, in the order of all tables."""
    there = results.axis(experiment, "attention")
    return [name for name in results.names if name in there]


TABLES: dict[str, Callable[[Results], dict[str, Any]]] = {
    "mechanisms": mechanisms,
    "quality": quality,
    "scaling": scaling,
    "tasks": tasks,
    "tasks-full": tasks_full,
    "passes": passes,
    "longest-context": longest_context,
    "budget": budget,
    "denominators": denominators,
    "language": language,
    "machines": machines,
    "runs": runs,
}
