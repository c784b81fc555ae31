"""The command line: complete, quick to start, and brief about mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import slay
import slay.experiments.run
from slay.cli import main
from slay.pipeline.jobs import Job
from slay.pipeline.params import PARAMS
from slay.pipeline.record import read_record

TEXT = st.from_regex(r"[A-Za-z][A-Za-z-]{3,8}", fullmatch=True).filter(
    lambda text: text.lower() not in {"true", "false", "infinity"}
)
OPTIONS = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True),
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    max_size=3,
)


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def commands(group=main, path=()):
    """Every command, as the words that call it."""
    yield path
    for name in group.list_commands(None) if hasattr(group, "list_commands") else []:
        yield from commands(group.get_command(None, name), (*path, name))


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_explains_itself_with_an_example_of_its_own(path):
    done = call(*path, "--help")
    assert done.exit_code == 0
    summary = done.output.split("\n\n")[1].strip()
    assert summary.endswith(".")
    assert f"slay {' '.join(path)}" in done.output
    assert "..." not in done.output.replace("]...", "").replace("FILES...", "")  # nothing cut off
    for option in found(path).params:
        assert isinstance(option, click.Argument) or option.help


def found(path):
    command = main
    for name in path:
        command = command.get_command(None, name)
    return command


def test_help_says_to_what_subject_each_command_belongs():
    assert "Others" not in call("--help").output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("slay mech", {"mechanisms"}),
        ("slay run q", {"quality"}),
        ("slay run no", {""}),
        ("slay mechanisms yat-q", {"yat-quadratic"}),
        ("slay run tasks --attention yat-c", {"yat-cubic"}),
        ("slay run tasks --task ind", {"induction"}),
        ("slay train --attention lin", {"linear"}),
        ("slay tasks att", {"attention_critical"}),
        ("slay table tasks", {"tasks", "tasks-full"}),
        ("slay figure qu", {"quality", "quadrature"}),
    ],
)
def test_the_shell_completes_commands_and_names(typed, offered):
    words = typed.split()
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = CliRunner().invoke(
        main, prog_name="slay", env={"_SLAY_COMPLETE": "bash_complete", **asked}
    )
    assert {line.partition(",")[2] for line in done.output.splitlines()} == offered


def test_a_library_that_is_not_installed_is_named_with_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "slay.report.aggregate", raising=False)
    (tmp_path / "m.json").write_text("[]")
    done = call("collect", tmp_path / "m.json", "--table", "t", "--summary", "s")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "Error: this command needs pandas; install it with: pip install 'slay-attention[pipeline]'"
    ]


@pytest.mark.parametrize("experiment", PARAMS)
def test_every_parameter_has_a_flag_with_its_default(experiment):
    text = " ".join(call("run", experiment, "--help").output.split())
    for name, field in PARAMS[experiment].model_fields.items():
        assert ("--option" if name == "options" else f"--{name.replace('_', '-')}") in text
        assert field.description in text
        said = field.default is not False and field.default != ""
        if said and not field.is_required() and name != "options":
            assert f"[default: {field.default}]" in text


def asked_by(*args):
    """The parameters that a command line would have measured."""
    seen = []

    def stop(params, out, **settings):
        seen.append(params)
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slay.experiments.run, "run_job", stop)
        done = call(*args)
    assert done.exit_code == 0, done.output
    return seen[0]


@pytest.mark.parametrize("experiment", PARAMS)
@given(
    attention=st.sampled_from(slay.list_attention_types()),
    task=st.sampled_from(slay.list_tasks()),
    options=OPTIONS,
    epsilon=st.floats(1e-12, 1e3),
    number=st.integers(10, 10**6),
)
def test_a_jobs_command_gives_its_parameters(experiment, attention, task, options, epsilon, number):
    cls = PARAMS[experiment]
    whole = {name: number for name, field in cls.model_fields.items() if type(field.default) is int}
    extra = {"task": task} if "task" in cls.model_fields else {}
    if "max_len" in whole:
        whole["max_len"] = 64 * number
    params = cls(attention=attention, options=options, epsilon=epsilon, **whole, **extra)
    found = asked_by("run", *Job(params, "record.json").argv, "--out", "record.json")
    assert type(found) is cls
    assert (
        found.model_dump_json()
        == params.model_copy(update={"options": dict(sorted(options.items()))}).model_dump_json()
    )  # as JSON, 1, 1.0 and true differ


def test_run_writes_a_record(tmp_path):
    out = tmp_path / "record.json"
    flags = ["--head-dim", 4, "--seq-len", 8, "--n-heads", 1, "--device", "cpu"]
    done = call("run", "quality", "--attention", "linear", *flags, "--out", out)
    assert done.exit_code == 0, done.output
    assert "rel_l2" in done.stdout
    assert read_record(out).params["head_dim"] == 4


QUALITY = ["run", "quality", "--out", "record.json", "--device", "cpu", "--seq-len", 8]
TASKS = ["run", "tasks", "--out", "record.json", "--device", "cpu", "--attention", "linear"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "qualty"], "did you mean 'quality'"),
        ([*QUALITY, "--attention", "liner"], "did you mean 'linear'"),
        ([*QUALITY, "--attention", "linear", "--epsilon", "0"], "epsilon"),
        ([*QUALITY, "--attention", "linear", "--head-dim", "1"], "head_dim"),
        ([*QUALITY, "--attention", "linear", "--option", "bias"], "NAME=VALUE"),
        ([*QUALITY, "--attention", "linear", "--option", "bais=1"], "did you mean 'bias'"),
        ([*QUALITY, "--attention", "linear", "--code", "0"], "the code changed"),
        ([*QUALITY, "--attention", "yat-quadratic", "--option", "beta=-1"], "beta = -1"),
        ([*QUALITY, "--attention", "yat-quadratic", "--option", "beta=inf"], "beta"),
        ([*TASKS, "--task", "copi"], "did you mean 'copy'"),
        ([*TASKS, "--task", "copy", "--seq-len", "9"], "seq_len = 9"),
        ([*TASKS, "--task", "copy", "--n-heads", "7"], "n_heads = 7"),
        (["run", "scaling", "--attention", "linear", "--n-heads", 7, *QUALITY[2:]], "n_heads"),
        (["mechanisms", "liner"], "did you mean 'linear'"),
        (["mechanisms", "--head-dim", 0], "n_heads"),
        (["figure", "quality", "--run", ".", "--out", "x.pdf"], "is not a run's folder"),
        (["collect", __file__, "--table", "a", "--summary", "b"], "is no manifest"),
        (["tasks", "--show", "copi"], "did you mean 'copy'"),
        (["tasks", "--show", "copy", "--seq-len", "7"], "seq_len = 7"),
    ],
    ids=lambda value: " ".join(map(str, value[-4:])) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*args)
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, repr(done.exception)
    assert says in lines[0]
    assert lines[0] == done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_mechanisms_lists_all_as_text_and_json():
    rows = json.loads(call("mechanisms", "--json", "--head-dim", 8).output)
    assert [row["name"] for row in rows] == slay.list_attention_types()
    assert {row["num_features"] for row in rows if row["name"] == "yat-quadratic"} == {45}
    text = call("mechanisms").output
    assert all(row["name"] in text for row in rows)
    assert len(call("mechanisms", "linear").output.splitlines()) == 2


def test_tasks_lists_all_and_shows_one():
    text = call("tasks").output
    for name in slay.list_tasks():
        assert name in text
        example = call("tasks", "--show", name, "--seq-len", 16).output.splitlines()
        for label in ("input", "asked"):
            cells = [
                cell for line in example if line.startswith(label) for cell in line.split()[1:]
            ]
            assert len(cells) == 16
    rows = json.loads(call("tasks", "memory/*", "--json").output)
    assert {row["category"] for row in rows} == {"memory"}


def test_it_is_complete_as_a_module_too():
    words = [sys.executable, "-m", "slay.cli", "--help"]
    wide = {"COLUMNS": "100"}
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, **wide}
    )
    here = CliRunner(env=wide).invoke(main, ["--help"], prog_name="slay").output
    assert done.stdout.split() == here.split()


def test_starting_loads_neither_torch_nor_tables():
    script = "import sys, slay.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "pandas", "numpy", "matplotlib", "scipy", "pydantic"} & set(loaded)


@pytest.mark.parametrize("name", ["seed", "causal", "project"])
def test_an_option_that_the_experiment_sets_is_refused(tmp_path, name):
    words = ("--attention", "linear", "--task", "copy", "--option", f"{name}=1")
    done = call("run", "tasks", *words, "--out", tmp_path / "r.json")
    assert done.exit_code == 1
    assert done.output.strip().count("\n") == 0
    assert repr(name) in done.output
    assert "the experiment itself sets" in done.output


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"experiments": {}}')
    (tmp_path / "mechanisms.json").write_text("[]")
    (tmp_path / "file").touch()
    where = tmp_path / "file" / "tasks.tex"
    templates = Path(__file__).parents[1] / "paper"
    done = call("table", "tasks", "--run", tmp_path, "--templates", templates, "--out", where)
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"Error: {where}: cannot be written (Not a directory)"]
