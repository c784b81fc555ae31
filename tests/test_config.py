"""Configurations expand to jobs, and every mistake in one is a single line that names the key."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from slay.errors import SlayError
from slay.pipeline.config import Config, load
from slay.pipeline.jobs import expand
from slay.pipeline.params import PARAMS
from slay.registry import ATTENTION, TASKS
from slay.task_groups import task_groups

ROOT = Path(__file__).parents[1]
BASE = {
    "run": "trial",
    "title": "a trial",
    "device": "cpu",
    "epsilon": 0.01,
    "attention": ["standard", "linear"],
    "options": {"yat-performer-anchor": {"poly_dim": 4}},
    "experiments": {
        "quality": [{"head_dim": [8, 16], "seed": [0, 1]}],
        "scaling": [{"seq_len": 64, "repeats": 10}],
        "tasks": [{"task": ["copy", "majority"], "lr": 0.01}],
    },
}


def changed(path, value):
    """The base configuration with one value set."""
    data = copy.deepcopy(BASE)
    *above, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    place = data
    for key in above:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[last] = value
    return data


def jobs(data):
    return [job for group in expand(load(data)).values() for job in group]


def refused(data, *words):
    with pytest.raises(SlayError) as caught:
        expand(load(data))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("name", ["config", "smoke", "gpu", "borrowed", "language", "full"])
def test_shipped_configurations_give_different_jobs(name):
    found = jobs(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    assert found
    assert len({job.path for job in found}) == len(found)
    assert len({repr(job.params) for job in found}) == len(found)


def test_a_grid_is_every_combination_of_its_lists():
    asked = {(job.params.attention, job.params.head_dim, job.params.seed)
             for job in expand(load(BASE))["quality"]}  # fmt: skip
    assert asked == set(product(["standard", "linear"], [8, 16], [0, 1]))


def test_shared_settings_reach_every_job_and_grids_overrule_them():
    data = changed("experiments/scaling/0/epsilon", 0.5)
    data["experiments"]["quality"][0] |= {
        "attention": "yat-performer-anchors",
        "options": {"num_prf_features": [2, 3]},
    }
    grids = expand(load(data))
    assert {job.params.epsilon for job in grids["scaling"]} == {0.5}
    assert {job.params.epsilon for job in grids["tasks"]} == {0.01}
    assert {job.params.device for group in grids.values() for job in group} == {"cpu"}
    assert {job.params.attention for job in grids["quality"]} == {"yat-performer-anchor"}
    options = [job.params.options for job in grids["quality"] if job.params.seed == 0]
    assert options[:2] == [{"poly_dim": 4, "num_prf_features": n} for n in (2, 3)]
    assert "num_prf_features=2" in grids["quality"][0].path.split("/")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("experiments/quality/0/seed", [0, 1, 2]),
        ("experiments/quality/0/head_dim", [4, 8, 16]),
        ("experiments/tasks/0/task", ["copy", "majority", "induction"]),
        ("attention", ["standard", "linear", "uniform"]),
    ],
)
def test_more_entries_add_jobs_and_change_none(path, value):
    before = {job.path: job.params for job in jobs(BASE)}
    after = {job.path: job.params for job in jobs(changed(path, value))}
    assert before.items() < after.items()


def test_a_grid_that_repeats_jobs_adds_none():
    data = copy.deepcopy(BASE)
    data["experiments"]["quality"].append({"head_dim": 8, "seed": 1})
    assert {job.path for job in jobs(data)} == {job.path for job in jobs(BASE)}


@pytest.mark.parametrize("key", ["n_heads", "epsilon"])
def test_one_path_for_two_settings_is_refused(key):
    data = copy.deepcopy(BASE)
    data["experiments"]["quality"].append({"head_dim": 8, "seed": 0, key: 1})
    refused(data, "experiments.quality", "d8", "different")


def misspelt(names):
    """Pairs of a name and the name with one letter left out or doubled."""

    def wrong(name, place, times):
        at = place % len(name)
        return name, name[:at] + name[at] * times + name[at + 1 :]

    long = st.sampled_from([name for name in names if len(name) > 4])
    return st.builds(wrong, long, st.integers(1, 20), st.sampled_from([0, 2]))


@given(pair=misspelt([*ATTENTION.names(), *ATTENTION._aliases]))
@pytest.mark.parametrize("path", ["attention", "experiments/quality/0/attention"])
def test_a_misspelt_mechanism_gives_the_nearest(path, pair):
    known = {*ATTENTION.names(), *ATTENTION._aliases}
    assume(pair[1] not in known)
    refused(changed(path, [pair[1]]), "attention", repr(pair[1]), f"did you mean {pair[0]!r}")


@given(pair=misspelt(TASKS.names()))
def test_a_misspelt_task_gives_the_nearest(pair):
    refused(
        changed("experiments/tasks/0/task", [pair[1]]),
        "experiments.tasks[0].task",
        repr(pair[1]),
        f"did you mean {pair[0]!r}",
    )


@given(pair=misspelt(Config.model_fields))
def test_a_misspelt_key_of_the_run_gives_the_nearest(pair):
    data = {"plugins": {}, **copy.deepcopy(BASE)}
    data[pair[1]] = data.pop(pair[0])
    refused(data, repr(pair[1]), f"did you mean {pair[0]!r}")


@pytest.mark.parametrize("experiment", PARAMS)
@given(data=st.data())
def test_a_misspelt_key_of_a_grid_gives_the_nearest(experiment, data):
    name, wrong = data.draw(misspelt(PARAMS[experiment].model_fields))
    refused(
        changed(f"experiments/{experiment}", [{wrong: 1}]),
        f"experiments.{experiment}[0]",
        repr(wrong),
        f"did you mean {name!r}",
    )


@given(pair=misspelt(PARAMS))
def test_a_misspelt_experiment_gives_the_nearest(pair):
    refused(changed(f"experiments/{pair[1]}", []), repr(pair[1]), f"did you mean {pair[0]!r}")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("device", "gpu", "'gpu'"),
        ("epsilon", 0, "0"),
        ("epsilon", True, "True"),
        ("epsilon", float("nan"), "nan"),
        ("attention", [], "[]"),
        ("attention", "linear", "'linear'"),
        ("attention", ["linear", "linear"], "twice"),
        ("options", {"liner": {}}, "did you mean 'linear'"),
        ("options/linear", None, "None"),
        ("experiments", None, "None"),
        ("experiments/quality", {"seed": 0}, "{'seed': 0}"),
        ("run", "../elsewhere", "'../elsewhere'"),
        ("experiments/quality/0/seed", "0", "'0'"),
        ("experiments/quality/0/seed", True, "True"),
        ("experiments/quality/0/seed", -1, "-1"),
        ("experiments/quality/0/seed", [], "empty"),
        ("experiments/quality/0/seed", [0, 0], "twice"),
        ("experiments/quality/0/seed", {"a": 1}, "{'a': 1}"),
        ("experiments/quality/0/head_dim", 1, "1"),
        ("experiments/quality/0/inputs", "planed", "'planed'"),
        ("experiments/quality/0/attention", [["linear"]], "['linear']"),
        ("experiments/quality/0/attention", {"linear": 1}, "{'linear': 1}"),
        ("experiments/quality/0/options", [1], "[1]"),
        ("experiments/quality/0/options", {"poly_dim": []}, "empty"),
        ("experiments/quality/0/options", {"poly_dim": "a b"}, "'a b'"),
        ("experiments/quality/0/options", {"poly_dim": float("nan")}, "nan"),
        ("experiments/quality/0/options", {"../../up": 1}, "'../../up'"),
        ("experiments/scaling/0/repeats", 0, "0"),
        ("experiments/scaling/0/repeats", 9, "10"),
        ("experiments/scaling/0/seq_len", 64.0, "64.0"),
        ("experiments/scaling/0/dtype", "float8", "'float8'"),
        ("experiments/tasks/0/lr", True, "True"),
        ("experiments/tasks/0/lr", "fast", "'fast'"),
        ("experiments/tasks/0/task", 5, "5"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(path, value, says):
    key = next(part for part in reversed(path.split("/")) if not part.isdigit())
    refused(changed(path, value), key, says)


@pytest.mark.parametrize("path", ["run", "title", "experiments", "experiments/tasks/0/task"])
def test_a_missing_key_is_named(path):
    data = changed(path, None)
    place = data
    *above, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in above:
        place = place[key]
    del place[last]
    refused(data, str(last), "missing")


def test_a_mechanism_from_outside_is_asked_for_by_its_place():
    data = changed("plugins/unit-test.soft", "somewhere.kernels:Soft")
    data["attention"] = ["unit-test.soft"]
    try:
        assert load(data).attention == ["unit-test.soft"]
        assert ATTENTION.module("unit-test.soft") == "somewhere.kernels"
        refused(changed("plugins/unit-test.soft", "elsewhere:Soft"), "somewhere.kernels:Soft")
    finally:
        del ATTENTION._paths["unit-test.soft"], ATTENTION._plugs["unit-test.soft"]


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        ("linear", "mine:Soft", "registered already, as slay.attention.elu:EluAttention"),
        ("so/ft", "mine:Soft", "a name has letters"),
        ("soft", "mine.Soft", "'mine.Soft' should be module:Class"),
    ],
)
def test_a_wrong_plugin_is_refused(name, path, says):
    data = changed("run", "trial")
    data["plugins"] = {name: path}
    refused(data, says)


@pytest.mark.parametrize("asked", ["memory/*", ["memory/*", "attention_critical"], "core", "all"])
def test_a_group_of_tasks_is_all_of_its_tasks_once(asked):
    found = expand(load(changed("experiments/tasks/0/task", asked)))["tasks"]
    tasks = [job.params.task for job in found]
    groups = [asked] if isinstance(asked, str) else asked
    assert set(tasks) == {task for group in groups for task in task_groups()[group]}
    assert len({job.path for job in found}) == len(found)


def test_only_takes_numbers_as_text_too():
    parts = [expand(load(changed("only", {"head_dim": value}))) for value in (8, "8", ["8"])]
    assert {job.params.head_dim for job in parts[0]["quality"]} == {8}
    assert parts[0] == parts[1] == parts[2]


def test_only_leaves_a_part_of_the_run():
    whole = expand(load(changed("experiments/tasks/0/task", "core")))
    part = changed("experiments/tasks/0/task", "core")
    part["only"] = {"experiment": "tasks", "task": ["memory/*", "sort"]}
    found = expand(load(part))
    wanted = {*task_groups()["memory/*"], "sort"}
    assert not any(found[name] for name in found if name != "tasks")
    assert found["tasks"] == [job for job in whole["tasks"] if job.params.task in wanted]


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ({"tsak": "copy"}, "'task'"),
        ({"task": "memroy/*"}, "'memory/*'"),
        ({"attention": "lineer"}, "'linear'"),
        ({"attention": "rff"}, "no job"),
        ({"experiment": "taks"}, "'tasks'"),
        ("copy", "table"),
    ],
)
def test_a_part_that_cannot_be_meant_is_refused(only, told):
    with pytest.raises(SlayError, match="only") as caught:
        load(changed("only", only))
    assert told in str(caught.value)
