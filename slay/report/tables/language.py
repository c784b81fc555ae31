"""The table of language models."""

from __future__ import annotations

from typing import Any

from slay.report.latex import Latex, escape
from slay.report.published import printed
from slay.report.results import Results
from slay.report.tables.parts import measured


def context(results: Results) -> dict[str, Any]:
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
        for name in measured(results, "language")
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
    "batch_size": "${}$ sequences per step",
    "data": "on \\texttt{{{}}}",
}
