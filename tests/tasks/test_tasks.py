"""What every registered task owes: answers that follow from the past, and only from the past."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import slay
from slay.cli import main
from slay.errors import SlayError
from slay.task_groups import task_groups
from slay.tasks.base import IGNORE
from slay.tasks.nulls import null_accuracies
from slay.tasks.page import drawing, page

LENGTHS = (16, 32, 64)
every_task = pytest.mark.parametrize("name", slay.list_tasks())


def sample(name, seq_len, *, batch=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return slay.get_task(name).sample(generator, batch, seq_len)


@every_task
@pytest.mark.parametrize("seq_len", LENGTHS)
def test_the_oracle_answers_everything_from_prefixes(name, seq_len):
    task = slay.get_task(name)
    inputs, targets = sample(name, seq_len, batch=32)
    asked = (targets != IGNORE).nonzero().tolist()
    assert asked
    for row, position in asked:
        prefix = inputs[row, : position + 1].tolist()
        assert task.oracle(prefix, position) == targets[row, position]


@every_task
@pytest.mark.parametrize("seq_len", LENGTHS)
def test_no_null_predictor_gets_far(name, seq_len):
    assert max(null_accuracies(slay.get_task(name), seq_len, seed=0).values()) <= 0.55


@every_task
def test_every_length_works_or_is_refused_with_those_that_work(name):
    task = slay.get_task(name)
    worked = 0
    for seq_len in (*range(16, 41), 63, 64, 100, 127, 128, 255, 256, 1000, 1023, 1024):
        if not task.allows(seq_len):
            with pytest.raises(SlayError) as caught:
                sample(name, seq_len)
            for word in (name, f"seq_len = {seq_len}", task.lengths):
                assert word in str(caught.value)
            continue
        worked += 1
        inputs, targets = sample(name, seq_len, batch=2)
        assert inputs.shape == targets.shape == (2, seq_len)
        assert inputs.dtype == targets.dtype == torch.int64
        answers = targets[targets != IGNORE]
        assert len(answers)
        for tokens in (inputs, answers):
            assert tokens.min() >= 0
            assert tokens.max() < task.vocab_size(seq_len)
    assert worked


@every_task
@pytest.mark.parametrize("seq_len", [-1, 0, 1, 2, 3])
def test_lengths_without_room_are_refused(name, seq_len):
    with pytest.raises(SlayError, match="allowed"):
        sample(name, seq_len)


@every_task
def test_the_generator_alone_decides_the_data(name):
    first, again, other = (sample(name, 32, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert (first[0] != first[0][:1]).any(dim=1)[1:].all()  # rows differ too


@pytest.mark.parametrize("seq_len", [8, 9, 16, 65])
def test_majority_has_one_winner(seq_len):
    inputs, targets = sample("majority", seq_len, batch=500)
    counts = torch.nn.functional.one_hot(inputs[:, :-1], 9).sum(1)
    top = counts.topk(2, dim=-1)
    assert (top.values[:, 0] > top.values[:, 1]).all()
    assert torch.equal(top.indices[:, 0], targets[:, -1])


def test_groups_say_what_the_classes_say():
    groups = task_groups()
    tasks = {name: slay.get_task(name) for name in slay.list_tasks()}
    for name, task in tasks.items():
        assert task.name == name
        assert name in groups[f"{task.category}/*"]
    assert len(groups["core"]) == 22
    assert groups["attention_critical"] == [
        name for name in groups["core"] if tasks[name].attention_critical
    ]


@every_task
@given(data=st.data())
def test_any_length_and_seed_gives_questions_that_the_oracle_answers(name, data):
    task = slay.get_task(name)
    seq_len = data.draw(st.integers(task.minimum, 80).filter(task.allows))
    inputs, targets = sample(name, seq_len, batch=3, seed=data.draw(st.integers(0, 2**32)))
    for row, position in (targets != IGNORE).nonzero().tolist():
        assert task.oracle(inputs[row, : position + 1].tolist(), position) == targets[row, position]


@every_task
def test_a_drawing_shows_every_token_and_answer_by_name(name):
    task = slay.get_task(name)
    inputs, targets = sample(name, 32, batch=1, seed=5)
    names = task.vocabulary(32)
    drawn = drawing(task, 32, seed=5, width=60)
    assert max(map(len, drawn.splitlines())) <= 60
    shown = {"input": [], "asked": []}
    for line in filter(None, drawn.splitlines()):
        label, *cells = line.split()
        shown[label] += cells
    assert shown["input"] == [names[token] for token in inputs[0]]
    assert shown["asked"] == ["." if t == IGNORE else names[t] for t in targets[0]]


def test_the_list_of_tasks_is_by_category_and_has_each_once():
    lines = CliRunner().invoke(main, ["tasks", "memory/*", "sort", "kv_recall"]).output.splitlines()
    assert [line for line in lines if line and line[0] not in " *"] == ["basic", "memory"]
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == ["sort", *task_groups()["memory/*"]]
    for name, line in zip(listed, (line for line in lines if line.startswith("  ")), strict=True):
        assert slay.get_task(name).lengths in line


@pytest.mark.parametrize(
    "words",
    [
        ["--show", "copi"],
        ["--show", "copy", "--seq-len", "17"],
        ["--show", "copy", "--seed", "-1"],
        ["no_such_category/*"],
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed(words):
    done = CliRunner().invoke(main, ["tasks", *words])
    errors = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert done.exit_code != 0
    assert len(errors) == 1
    assert any(word in errors[0] for word in ("there are", "allowed", "range"))


@given(seq_len=st.integers(16, 96), seed=st.integers(0, 2**32))
def test_pieces_of_fuzzy_recall_are_pairs_and_values_come_back(seq_len, seed):
    inputs, targets = sample("mad_fuzzy_recall", seq_len, batch=4, seed=seed)
    for text, asked in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert any(answer != IGNORE for answer in asked)
        runs = [tuple(run) for _, run in groupby(text, lambda token: token >= 8)]
        assert max(map(len, runs)) <= 3
        for run in runs:
            assert len(set(run)) == len(run)
        meanings = {}
        whole = runs[: (len(runs) - 1) // 2 * 2]  # the last pair may be cut off
        for key, value in zip(whole[::2], whole[1::2], strict=True):
            assert meanings.setdefault(key, value) == value
        assert len(meanings) <= seq_len // 8


def test_the_page_of_tasks_is_up_to_date():
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert text == page(), "write it again: slay tasks --markdown > docs/tasks.md"
