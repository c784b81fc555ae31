"""Counting the steps of a workflow by the events that Snakemake logs."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_interface_logger_plugins.common import LogEvent

from slay.pipeline.progress import Progress, duration


class Run:
    """A run whose clock is turned by hand."""

    def __init__(self, **planned):
        self.now = 0.0
        self.total, self.done = sum(planned.values()), 0
        self.progress = Progress(planned, clock=lambda: self.now)

    def tell(self, event, **facts):
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, None, None, None)
        record.__dict__.update(event=event, **facts)
        self.progress.handle(record)

    def begin(self, number, rule):
        self.tell(LogEvent.JOB_INFO, jobid=number, rule_name=rule, rule_msg=f"{rule} no {number}")

    def end(self, number):
        self.done += 1
        self.tell(LogEvent.JOB_FINISHED, job_id=number)

    def fail(self, number, rule, log="", output="gone"):
        facts = {"shellcmd": f"make {number}", "log": [str(log)], "output": [str(output)]}
        self.tell(LogEvent.JOB_ERROR, jobid=number, rule_name=rule, **facts)

    def line(self):
        return self.progress.line({"done": self.done, "total": self.total})


def test_a_line_tells_done_running_left_and_the_end():
    run = Run(slow=3, quick=2)
    assert run.line() == "0 of 5 steps (0%) done, 0 running, 5 left"
    run.begin(1, "slow")
    run.now = 600
    run.end(1)
    run.begin(2, "quick")
    run.now = 660
    run.end(2)
    run.begin(3, "slow")
    assert run.line().startswith("2 of 5 steps (40%) done, 1 running, 2 left, about 21 min to go")
    for number, rule in [(4, "quick"), (5, "slow")]:
        run.begin(number, rule)
    for number in (3, 4, 5):
        run.end(number)
    assert run.line() == "5 of 5 steps (100%) done"


@given(st.permutations([(rule, n) for rule in ("a", "b") for n in (1, 2)]))
def test_the_summary_is_the_same_in_whichever_order_steps_fail(order):
    run = Run(a=2, b=2)
    for number, (rule, n) in enumerate(order):
        run.tell(LogEvent.JOB_INFO, jobid=number, rule_name=rule, rule_msg=f"{rule} {n}")
        run.tell(
            LogEvent.JOB_ERROR, jobid=number, rule_name=rule, shellcmd="", log=[], output=["gone"]
        )
    named = [line for line in run.progress.summary().splitlines() if ": " in line]
    assert named == ["a: a 1", "a: a 2", "b: b 1", "b: b 2"]


@given(st.integers(1, 8), st.integers(1, 10), st.floats(0.1, 1e4))
def test_steps_side_by_side_take_less_time_than_their_sum(width, rounds, seconds):
    run = Run(rule=width * rounds * 2)
    for turn in range(rounds):
        numbers = range(turn * width, (turn + 1) * width)
        for number in numbers:
            run.begin(number, "rule")
        run.now += seconds
        for number in numbers:
            run.end(number)
    assert run.progress.seconds_left() == pytest.approx(rounds * seconds)


def test_the_summary_names_rule_parameters_and_the_end_of_the_log(tmp_path):
    run = Run(rule=4)
    for number, reason in enumerate(["Error: no", "Error: no", "Error: yes", "Error: no"]):
        log = tmp_path / f"{number}.log"
        log.write_text("\n".join([*map(str, range(100)), reason, ""]))
        run.begin(number, "rule")
        run.fail(number, "rule", log)
    run.begin(3, "rule")  # again, and well this time
    run.end(3)
    text = run.progress.summary()
    assert text.startswith("3 steps failed:")
    assert "rule: rule no 0\n    make 0\n" in text
    assert "    | 99\n    | Error: no\n    1 more ended alike: rule no 1\n" in text
    assert "| 1\n" not in text
    assert "rule: rule no 2" in text


def test_what_was_made_in_a_group_that_failed_is_no_failure(tmp_path):
    run = Run(rule=1)
    run.begin(1, "rule")
    run.fail(1, "rule", output=tmp_path)
    assert run.progress.summary() == ""


def test_durations():
    assert [duration(s) for s in (3.4, 720, 11100)] == ["3 s", "12 min", "3 h 5 min"]
