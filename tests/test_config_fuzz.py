"""Configurations near a valid one are meant or refused, and nothing in them gets out of its place.

Each is a valid one with a few edits: keys left out, misspelt or added, values of any type and size,
lists emptied, doubled or nested, strings made for shells, folders and LaTeX.
"""

from __future__ import annotations

import copy
import datetime
import json
import posixpath
import re
import shlex
from contextlib import suppress
from itertools import product
from typing import Any

import click
from hypothesis import given, settings
from hypothesis import strategies as st

from slay.errors import SlayError
from slay.pipeline.config import Config, load
from slay.pipeline.flags import flags_of, parsed
from slay.pipeline.jobs import Job, expand, manifest
from slay.pipeline.params import PARAMS, Params
from slay.registry import ATTENTION, TASKS
from slay.task_groups import expand_tasks, task_groups

BASE: dict[str, Any] = {
    "run": "trial",
    "title": "a trial",
    "device": "cpu",
    "epsilon": 0.01,
    "plugins": {"fuzz.soft": "slay.attention.elu:EluAttention"},
    "attention": ["standard", "linear", "fuzz.soft"],
    "options": {"yat-performer-anchor": {"poly_dim": 4, "sketch": "srht"}},
    "experiments": {
        "quality": [{"head_dim": [8, 16], "seed": [0, 1], "inputs": "planted"}],
        "scaling": [{"seq_len": 64, "repeats": 10, "mode": ["forward", "decode"]}],
        "ablation": [{"attention": "yat-performer-anchor", "options": {"poly_dim": [2, 3]}}],
        "tasks": [{"task": ["copy", "memory/*"], "lr": 0.01}],
        "max_context": [{"memory_mb": 4, "max_seconds": 1.5}],
        "language": [{"data": "my text/*.jsonl", "tokenizer": "gpt2", "dropout": 0.1}],
    },
    "only": {"seed": [0, 1]},
}

HOSTILE = [
    "a b", "'", '"', "a'b\"c", ";", "$(touch hacked)", "`id`", "&& false", "|", "> file", "*", "~",
    "a\nb", "a\tb", "a\0b", "\x1b[31m", "\ud800", "..", "../../up", "/etc/passwd", "-", "--help",
    r"\input{/etc/passwd}", "%", "a_b^c", "#1", "$x$", "{", "}", "{wildcards.job}", "☃ Ψ é 漢字",
    "", " ", "x" * 300, "nan", "inf", "1", "1.0", "True", "1e3", "1_0", "=", "a=b", "+", "null",
]  # fmt: skip
HUGE = [-1, 0, 1, 2, 2**31, 2**63, 2**64, 10**30, 10**400, 10**4000, -(10**30)]
NAMES = [*ATTENTION.names(), *TASKS.names(), *task_groups(), *PARAMS]
LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 20) | st.sampled_from(HUGE) | st.floats()
    | st.sampled_from(HOSTILE) | st.sampled_from(NAMES) | st.text(max_size=8)
    | st.binary(max_size=3) | st.just(datetime.date(2020, 2, 3))
)  # fmt: skip
FIELDS = sorted({*Config.model_fields}.union(*(cls.model_fields for cls in PARAMS.values())))
KEYS = st.sampled_from([*FIELDS, *NAMES, *HOSTILE]) | LEAVES
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


# Values that can be meant, for the edits that add a setting: by name or for any that takes numbers.
MEANT = {
    "attention": ["rff", ["yat", "uniform"], "yat-performer-anchors"],
    "task": ["sort", ["core", "mqar"], "arithmetic/*"],
    "dtype": ["bfloat16", ["float32", "float16"]],
    "options": [{"poly_dim": 3}, {"gamma": [0.5, "2", 1e30]}, {"kind": ["a.b", True]}, {}],
    "plugins": [{"fuzz.soft": "slay.attention.rff:C.d"}, {"fuzz.soft": "no.where:C"}, {}],
    **dict.fromkeys(["data", "eval_data", "tokenizer", "title", "run"], HOSTILE),
    "only": [{"task": "copy"}, {"seed": ["1", 0]}, {"experiment": "scaling", "mode": "decode"}],
    "experiments": [{"analysis": [{"kind": ["maps", "profile"]}]}, {"tasks": [{"task": "all"}]}],
    "device": ["auto", "cuda", ["cpu", "cuda"]],
    "mode": ["forward", ["forward", "forward_backward"]],
    "inputs": ["trained", ["isotropic", "trained"]],
    "kind": ["sphere", ["entropy", "a.b"], True],
    "gamma": [0.5, [1e30, "2"], "x"],
    "gradient_checkpointing": [True, [True, False]],
    "dropout": [0, 0.5, [0.1, 0.2]],
    "embed_dim": [64, [128, 256]],
}
KINDS = ["mean", "mean", "mean", "set", "add", "misspell", "delete"]
NUMBERS = [10, 64, [64, 128], [12, 13, 14]]


def places(data: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every table and list in a configuration."""
    inside = data.items() if isinstance(data, dict) else enumerate(data)
    found = [above]
    for key, value in inside:
        if isinstance(value, dict | list):
            found += places(value, (*above, key))
    return found


def fields(path: tuple[Any, ...]) -> list[str]:
    """Keys that a table at this path may have."""
    if not path:
        return list(Config.model_fields)
    if path[0] == "experiments" and len(path) == 3 and path[1] in PARAMS:
        return list(PARAMS[path[1]].model_fields)
    return ["poly_dim", "gamma", "kind"] if path[-1] == "options" else FIELDS


@st.composite
def configurations(draw: st.DrawFn) -> dict[Any, Any]:
    data = copy.deepcopy(BASE)
    for _ in range(draw(st.integers(1, 2))):
        place: Any = data
        path = draw(st.sampled_from(places(data)))
        for key in path:
            place = place[key]
        if isinstance(place, list):
            at = draw(st.integers(0, len(place)))
            kind = draw(st.sampled_from(["mean", "mean", "insert", "double", "empty"]))
            if kind == "empty":
                place.clear()
            elif kind == "double" and at < len(place):
                place.insert(at, copy.deepcopy(place[at]))
            elif kind == "mean":
                key = next((key for key in reversed(path) if isinstance(key, str)), "")
                place.insert(at, copy.deepcopy(draw(st.sampled_from(MEANT.get(key, NUMBERS)))))
            else:
                place.insert(at, draw(VALUES))
        else:
            key = draw(st.sampled_from(sorted(place, key=str)) if place else KEYS)
            kind = draw(st.sampled_from(KINDS))
            if kind == "set":
                place[key] = draw(VALUES)
            elif kind == "add":
                place[draw(KEYS)] = draw(VALUES)
            elif kind == "mean":
                key = draw(st.sampled_from(fields(path)))
                place[key] = copy.deepcopy(draw(st.sampled_from(MEANT.get(key, NUMBERS))))
            elif key in place:
                value = place.pop(key)
                if kind == "misspell":
                    place[f"{key}"[:-1] + draw(st.sampled_from(["", "s", " "]))] = value
    return data


@settings(max_examples=500)
@given(data=configurations())
def test_a_configuration_is_meant_or_refused_in_one_line(data):
    paths = dict(ATTENTION._paths), dict(ATTENTION._plugs)
    try:
        jobs = expand(load(data))
    except SlayError as error:
        check_line(str(error))
    else:
        whole = load({key: value for key, value in data.items() if key != "only"}).grids()
        for name, points in whole.items():
            found = [params for params, _ in points]
            check_meant(data, name, found)
            part = [params for params in found if wanted(params, data)]
            assert {repr(job.params) for job in jobs[name]} == set(map(repr, part))
        assert any(jobs.values())
        json.dumps(data, sort_keys=True)
        for job in (job for group in jobs.values() for job in group):
            check_place(data["run"], job)
            check_command(job)
    finally:
        ATTENTION._paths, ATTENTION._plugs = paths


def check_line(line: str) -> None:
    assert line.isprintable()
    assert len(line) < 1500, line
    assert any(re.search(rf"\b{key}\b", line) for key in Config.model_fields) or "key" in line, line


def check_meant(data: dict[str, Any], experiment: str, found: list[Params]) -> None:
    """Every combination of every grid is there with these very values, and there is no other."""
    asked = []
    for grid in data["experiments"][experiment]:
        whole = {"attention": data["attention"], **grid}
        options = whole.pop("options", {})
        axes = [[(key, v) for v in as_list(value)] for key, value in whole.items()]
        of_options = [[(key, v) for v in as_list(value)] for key, value in options.items()]
        for combination in product(product(*axes), product(*of_options)):
            point, some_options = map(dict, combination)
            for task in expand_tasks([point["task"]]) if "task" in point else [None]:
                asked.append((point | ({"task": task} if task else {}), some_options))
    dumps = [params.model_dump() for params in found]
    for point, some_options in asked:
        assert any(
            all(same(job[key], value) for key, value in point.items())
            and all(same(job["options"].get(key), v) for key, v in some_options.items())
            for job in dumps
        ), (point, some_options)
    assert len(found) <= len(asked)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def same(value: Any, asked: Any) -> bool:
    """Whether a parameter is what was asked for: the same, or what text or an alias stands for."""
    if isinstance(asked, str) and isinstance(value, int | float):
        with suppress(ValueError):
            return str(value) == asked or value == float(asked)
    return value == asked or ATTENTION._aliases.get(asked) == value


def wanted(params: Params, data: dict[str, Any]) -> bool:
    facts = {"experiment": params.experiment, **params.model_dump()}
    for key, value in data.get("only", {}).items():
        values = expand_tasks(as_list(value)) if key == "task" else as_list(value)
        values = [ATTENTION._aliases.get(v, v) for v in values] if key == "attention" else values
        if key in facts and str(facts[key]) not in map(str, values):
            return False
    return True


def check_place(run: str, job: Job) -> None:
    """A record lies in its run's folder, under a name that a file can have."""
    assert posixpath.normpath(job.path) == job.path
    assert job.path.startswith(f"results/{run}/records/{job.experiment}/")
    assert job.path.isascii()
    assert job.path.isprintable()
    assert not set(" '\"\\;$`&|<>*?()[]{}!#~") & set(job.path)
    assert all(len(part) < 250 for part in job.path.split("/"))
    assert job.path == f"results/{run}/{json.loads(manifest([job]))[0]['path']}"


def check_command(job: Job) -> None:
    """A shell reads the command as its words, and `slay run` reads those as the parameters."""
    words = shlex.split(shlex.join(job.argv))
    assert words == job.argv
    command = click.Command(
        "run", params=[*flags_of(PARAMS[job.experiment]), click.Option(["--plugin"], multiple=True)]
    )
    values = command.make_context("run", words[1:]).params
    values.pop("plugin")
    assert parsed(PARAMS[job.experiment], values) == job.params
    "\0".join(words).encode()
    assert not any("\0" in word for word in words)
