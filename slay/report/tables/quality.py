"""The table of approximation errors."""

from __future__ import annotations

from typing import Any

from slay.report.published import printed
from slay.report.results import Estimate, Missing, Results
from slay.report.tables.parts import letters


def context(results: Results) -> dict[str, Any]:
    """One block of rows per head dimension, each with the error of answering zero."""
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
                        "variant": letters(variant),
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
    blocks.sort(key=lambda block: len(block["rows"]) != widest)  # largest first
    rows = [row for block in blocks for row in block["rows"]]
    return {"rows": rows, "blocks": blocks, "length": length, "trained_length": trained["seq_len"]}


def _bound(results: Results, dim: int, m: Estimate | Missing) -> float | None:
    return results.bound(dim, int(m.mean)) if isinstance(m, Estimate) else None


def _by_metric(results: Results, **where: Any) -> dict[str, Estimate | Missing]:
    metrics = ("rel_l2", "cosine", "mse", "kernel_error")
    return {metric: results.value("quality", metric, **where) for metric in metrics}
