"""Derived numbers: scores over tasks, lengths, growth exponents."""

from __future__ import annotations

import numpy as np
import pandas as pd

from slay.report.results import Estimate, Missing, Results
from slay.report.stats import corrected, growth_exponent, interval, paired

BASELINE = "standard"
LEVEL = 0.05


def answers(results: Results) -> pd.DataFrame:
    """One row per trained model: attention, task, seq_len, seed, accuracy, score."""
    frame = results.records("tasks")
    if frame.empty or "metric.accuracy" not in frame:
        return pd.DataFrame(columns=["attention", "task", "seq_len", "seed", "accuracy", "score"])
    frame = frame[(frame["variant"] == "") & frame["metric.accuracy"].notna()]
    frame = frame.rename(columns=lambda name: name.removeprefix("metric."))
    return frame[["attention", "task", "seq_len", "seed", "accuracy", "score"]]


def lengths(results: Results) -> list[tuple[str, int]]:
    """Every task with every length, in the order of the configuration."""
    frame = results.summary("tasks")
    if frame.empty:
        return []
    return list(frame[["task", "seq_len"]].drop_duplicates().itertuples(index=False, name=None))


def mean_score(results: Results, attention: str, tasks: list[str]) -> Estimate | Missing:
    """Mean normalised score over some tasks, each at its first length, over the common seeds."""
    frame = answers(results)
    first = dict(reversed(lengths(results)))
    frame = frame[(frame["attention"] == attention) & frame["task"].isin(tasks)]
    frame = frame[frame["seq_len"] == frame["task"].map(first)]
    table = frame.pivot_table(index="task", columns="seed", values="score").dropna(axis=1)
    if set(table.index) != set(tasks) or table.empty:
        return Missing(f"tasks: scores of {attention} on {', '.join(tasks)}")
    found = interval(table.mean(axis=0).to_numpy(float))
    return Estimate(found["mean"], found["sd"], int(found["n"]), found["low"], found["high"])


def like_baseline(results: Results) -> set[tuple[str, str, int]]:
    """(attention, task, seq_len) whose accuracy does not differ significantly from softmax's.

    Paired t tests across seeds, all of them corrected together (Benjamini and Yekutieli 2001).
    """
    frame = answers(results)
    cells: list[tuple[str, str, int]] = []
    p: list[float] = []
    for task, length in lengths(results):
        group = frame[(frame["task"] == task) & (frame["seq_len"] == length)]
        table = group.pivot_table(index="seed", columns="attention", values="accuracy")
        for name in table.columns.difference([BASELINE]):
            if BASELINE in table:
                both = table[[name, BASELINE]].dropna().to_numpy(float)
                cells.append((str(name), task, length))
                p.append(paired(both[:, 0], both[:, 1]))
    alike = ~(corrected(np.array(p)) < LEVEL)
    return {cell for cell, same in zip(cells, alike, strict=True) if same}


def timed_lengths(results: Results) -> list[int]:
    """Lengths at which a linear mechanism was timed against softmax."""
    frame = results.select("scaling", "ratio", mode="forward")
    if frame.empty:
        return []
    return [int(n) for n in frame.loc[frame["attention"] != BASELINE, "seq_len"].unique()]


def reach(results: Results, attention: str) -> int | Missing:
    """The longest length at which a mechanism was timed against softmax."""
    frame = results.select("scaling", "ratio", mode="forward", attention=attention)
    return Missing(f"scaling: {attention}") if frame.empty else int(frame["seq_len"].max())


def growth(results: Results, attention: str, metric: str) -> float | Missing:
    """Growth exponent of a metric of the forward pass in the sequence length.

    Fitted to the longer half of the lengths, where fixed costs no longer matter.
    """
    where = {"attention": attention, "mode": "forward", "variant": ""}
    frame = results.select("scaling", metric, **where)
    if not frame.empty:
        frame = frame.drop_duplicates("seq_len").sort_values("seq_len")
        frame = frame.tail(max(2, (len(frame) + 1) // 2))
    if len(frame) < 2:
        return Missing(f"scaling: {metric} of {attention} at two lengths")
    return growth_exponent(frame["seq_len"].to_numpy(float), frame["mean"].to_numpy(float))
