"""Numbers on the command line are numbers, names are text, and no key stands twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from snakemake.cli import parse_config
from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from slay.cli import main
from slay.errors import SlayError
from slay.pipeline.config import as_typed, load
from slay.pipeline.jobs import expand
from slay.yaml_files import parse

FILE = """
run: {run}
title: {title}
attention: [linear]
experiments:
  tasks:
    - {{task: copy, seq_len: 8, steps: 20}}
"""


def configured(folder, *words, run="trial", title="a trial"):
    """The configuration that Snakemake would hand over for a file and words of --config."""
    path = folder / "trial.yaml"
    path.write_text(FILE.format(run=run, title=title))
    config = load_configfile(path)
    update_config(config, parse_config(words))
    as_typed(config, [path], words)
    return load(config)


NUMBERS = st.integers(1, 2**31 - 1)


@given(length=NUMBERS, steps=st.lists(NUMBERS, min_size=1, max_size=3, unique=True))
@pytest.mark.parametrize("quoted", [False, True])
def test_nested_numbers_are_numbers(tmp_path_factory, quoted, length, steps):
    """--config 'experiments={tasks: [{seq_len: 16}]}' is refused as text."""
    number = '"{}"'.format if quoted else str
    grid = f"{{task: copy, seq_len: {number(length)}, steps: [{', '.join(map(number, steps))}]}}"
    config = configured(
        tmp_path_factory.getbasetemp(), f"experiments={{tasks: [{{lr: 1e-3, {grid[1:]}]}}"
    )
    found = [job.params for job in expand(config)["tasks"]]
    assert [(p.seq_len, p.steps, p.lr) for p in found] == [(length, n, 0.001) for n in steps]


def test_nested_text_that_looks_like_a_number_stays_text(tmp_path):
    """A folder of data that is called 2024 is refused as a number."""
    config = configured(tmp_path, 'experiments={language: [{data: "2024", steps: 5}]}')
    (job,) = expand(config)["language"]
    assert (job.params.data, job.params.steps) == ("2024", 5)


NAMES = ["2026_01", "2026", "007", "1e5", "1.10", "true", "on", "null", "0x1F", "2026-01-15"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_like_a_number_stays_as_it_is_written(tmp_path, name):
    """--config run=2026_01 makes results/202601, or is refused as a number."""
    assert configured(tmp_path, f"run={name}", f"title={name}").run == name
    config = configured(tmp_path, run=name, title=name)
    assert (config.run, config.title) == (name, name)
    path = tmp_path / "trial.yaml"
    done = CliRunner().invoke(main, ["stale", "--configfile", str(path)])
    assert f"results/{name}" in done.output


TWICE = [
    "run: a\ntitle: b\nrun: c\n",
    "run: a\nexperiments:\n  tasks: []\n  tasks: []\n",
    "run: a\nexperiments:\n  tasks:\n    - {lr: 1, task: copy, lr: 2}\n",
    "options: {linear: {bias: 1, bias: 1}}\n",
]


@pytest.mark.parametrize("text", TWICE)
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    """The first of two grids under one key is left out, silently."""
    path = tmp_path / "twice.yaml"
    path.write_text(text)
    done = CliRunner().invoke(main, ["stale", "--configfile", str(path)])
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith(f"Error: {path}, line ")
    assert line.endswith("stands twice")
    with pytest.raises(SlayError, match="stands twice"):
        as_typed({}, [path], [])


def test_a_key_that_stands_twice_on_the_command_line_is_refused(tmp_path):
    """--config 'only={seed: 0, seed: 1}' measures one of them."""
    with pytest.raises(SlayError, match="--config only, line 1: 'seed' stands twice"):
        configured(tmp_path, "only={seed: 0, seed: 1}")


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("*/*.yaml")), ids=str)
def test_files_are_read_as_yaml_reads_them(path):
    """A number in a file of this project changes."""
    text = path.read_text()
    assert parse(text, "file") == yaml.safe_load(text)
    merged = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n"
    assert parse(merged, "text") == yaml.safe_load(merged)
