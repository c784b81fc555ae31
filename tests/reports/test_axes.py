"""Every field of every experiment is an axis where a grid gives it as a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slay.pipeline.config import load
from slay.pipeline.jobs import expand, manifest
from slay.pipeline.params import PARAMS
from slay.report.aggregate import _variant

ROOT = Path(__file__).parents[2]
LEAST = {"task": ["copy"], "attention": ["linear"]}  # what has no default
# Values of fields whose type does not give them away.
VALUES: dict[str, list[Any]] = {
    "attention": ["linear", "uniform", "standard"],
    "task": ["copy", "majority", "sort"],
    "data": ["a/b", "a b", "stdlib", "a-b"],
    "eval_data": ["", "a/b", "a b"],
    "tokenizer": ["", "gpt2", "my tokenizer.json"],
    "embed_dim": [8, 16, 24],
    "n_heads": [1, 2, 4],
    "max_len": [64, 128, 1024],
    "repeats": [10, 11, 20],
    "dropout": [0.0, 0.25, 1e-5],
    "gradient_checkpointing": [False, True],
    "device": ["cpu", "cuda", "auto"],
}
FIELDS = [(e, f) for e, cls in PARAMS.items() for f in cls.model_fields if f != "options"]


def values_of(experiment, field):
    choices = get_args(PARAMS[experiment].model_fields[field].annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return list(choices)
    kind = PARAMS[experiment].model_fields[field].annotation
    return VALUES.get(field, [0.5, 2.0, 1e-05, 1e30] if kind is float else [2, 3, 5])


def jobs(experiment, **grid):
    grid = {**{k: v for k, v in LEAST.items() if k in PARAMS[experiment].model_fields}, **grid}
    data = {"run": "r", "title": "t", "attention": ["linear"], "experiments": {experiment: [grid]}}
    return expand(load(data))[experiment]


@pytest.mark.parametrize(("experiment", "field"), FIELDS, ids="-".join)
@given(data=st.data())
def test_a_list_is_an_axis(experiment, field, data):
    """A list of learning rates is refused with "two grids give ..." although there is one."""
    all_values = values_of(experiment, field)
    values = data.draw(st.lists(st.sampled_from(all_values), min_size=1, unique=True))
    found = jobs(experiment, **{field: values})
    assert [getattr(job.params, field) for job in found] == values
    assert len({job.path for job in found}) == len(values)
    assert all(job.path.isascii() and " " not in job.path for job in found)
    more = {job.path: job.params for job in jobs(experiment, **{field: all_values})}
    assert {job.path: job.params for job in found}.items() <= more.items()  # adds, reruns none


@given(
    fields=st.sets(st.sampled_from([f for e, f in FIELDS if e == "tasks"]), min_size=2, max_size=3)
)
def test_several_lists_are_every_combination(fields):
    """Two lists in a grid of tasks give records of one name."""
    grid = {field: values_of("tasks", field)[:2] for field in fields}
    found = jobs("tasks", **grid, options={"bias": [True, False]})
    assert len({job.path for job in found}) == len(found) == 2 ** (len(fields) + 1)
    listed = json.loads(manifest(found))
    variants = {_variant(Path(job["path"])) for job in listed}
    assert all("bias=" in variant for variant in variants)


@pytest.mark.parametrize("name", ["config", "smoke", "gpu", "borrowed", "language", "full"])
def test_records_of_the_runs_there_are_keep_their_places(name):
    """All of a run is measured again although its configuration did not change."""
    data = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    for experiment, group in expand(load(data)).items():
        for job in group:
            named = f"results/{data['run']}/records/{experiment}/{job.params.place()}.json"
            assert "=" in job.path or job.path == named
            assert "=" not in job.path or experiment in ("ablation", "quality")
