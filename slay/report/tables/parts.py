"""Shared by the tables: the order of mechanisms, the symbols of options."""

from __future__ import annotations

from slay.report.latex import Latex, escape
from slay.report.results import Results

LETTERS = {"num_quadrature_nodes": "R", "num_prf_features": "M", "poly_dim": "P"}


def letters(variant: str) -> Latex:
    """The options of a variant with the paper's symbols, in the paper's order."""
    pairs = [part.split("=") for part in variant.split("+") if part]
    order = list(LETTERS)
    pairs.sort(key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))
    return Latex(
        ", ".join(
            f"${LETTERS[name]}={value}$" if name in LETTERS else escape(f"{name} = {value}")
            for name, value in pairs
        )
    )


def measured(results: Results, experiment: str) -> list[str]:
    """The mechanisms that an experiment has, in the order of all tables."""
    there = results.axis(experiment, "attention")
    return [name for name in results.names if name in there]
