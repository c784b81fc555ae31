"""Progress and estimated end of a workflow; at its end, a summary of failures.

Follows the events that Snakemake logs for its logger plugins.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TAIL, SHOWN = 12, 5  # lines shown of a log, failures shown with their log
ROOM = 2**20  # a disk with fewer free bytes counts as full


@dataclass
class Step:
    """A running or failed step."""

    rule: str
    name: str
    share: float = 0.0  # seconds; concurrent steps share the elapsed time
    command: str = ""
    logs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def tail(self) -> list[str]:
        """The last lines of its logs."""
        lines: list[str] = []
        for path in self.logs:
            if os.path.isfile(path):
                lines += Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip()][-TAIL:]


class Progress(logging.Handler):
    """Log handler that counts steps. `planned` is the number of steps of each rule."""

    def __init__(
        self, planned: Mapping[str, int] | None = None, clock: Callable[[], float] = time.monotonic
    ):
        super().__init__()
        self.left = Counter(planned)  # includes running steps
        self.running: dict[int, Step] = {}
        self.failed: dict[int, Step] = {}
        self._spent: dict[str, list[float]] = defaultdict(list)  # shares of finished steps, by rule
        self._clock, self._last = clock, clock()

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        facts: Any = record
        if event == "job_info":
            self._pass_time()
            name = " ".join((facts.rule_msg or facts.rule_name).split())
            self.running[facts.jobid] = Step(facts.rule_name, name)
            self.failed.pop(facts.jobid, None)  # another attempt
        elif event == "job_finished":
            self._pass_time()
            step = self.running.pop(facts.job_id, None)
            if step is not None:
                self.left[step.rule] -= 1
                self._spent[step.rule].append(step.share)
        elif event == "job_error":
            self._pass_time()
            step = self.running.pop(facts.jobid, Step(facts.rule_name, facts.rule_name))
            step.command = facts.shellcmd or ""
            step.logs, step.outputs = list(facts.log or ()), list(facts.output or ())
            self.failed[facts.jobid] = step

    def _pass_time(self) -> None:
        now = self._clock()
        for step in self.running.values():
            step.share += (now - self._last) / len(self.running)
        self._last = now

    def seconds_left(self) -> float | None:
        """Estimated from the finished steps of the same rule; None before any step has finished."""
        shares = [share for rule in self._spent.values() for share in rule]
        if not shares:
            return None
        overall = sum(shares) / len(shares)
        mean = {rule: sum(known) / len(known) for rule, known in self._spent.items()}
        whole = sum(number * mean.get(rule, overall) for rule, number in self.left.items())
        begun = sum(min(s.share, mean.get(s.rule, overall)) for s in self.running.values())
        return whole - begun

    def line(self, facts: Mapping[str, Any]) -> str:
        """Format Snakemake's progress event, `done` of `total` steps, as one line."""
        done, total = facts["done"], facts["total"]
        parts = [f"{done} of {total} steps ({done / max(total, 1):.0%}) done"]
        if done < total:
            parts += [f"{len(self.running)} running", f"{total - done - len(self.running)} left"]
        if self.failed:
            parts[-1] += f", {len(self.failed)} failed"
        seconds = self.seconds_left()
        if done < total and seconds is not None:
            end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
            parts.append(f"about {duration(seconds)} to go, until {end}")
        return ", ".join(parts)

    def summary(self) -> str:
        """Failed steps by rule and parameters, with the tails of logs; "" if none failed.

        Steps whose logs end in the same line are grouped, whatever the order of failure.
        """
        groups: dict[str, list[Step]] = defaultdict(list)
        for step in sorted(self.failed.values(), key=lambda step: (step.rule, step.name)):
            if not step.outputs or not all(map(os.path.exists, step.outputs)):
                groups[(step.tail() or [step.name])[-1]].append(step)
        lines = []
        for steps in list(groups.values())[:SHOWN]:
            first = steps[0]
            lines += ["", f"{first.rule}: {first.name}"]
            lines += [f"    {first.command}"] if first.command else []
            lines += [f"    log: {path}" for path in first.logs]
            lines += [f"    | {line}" for line in first.tail()]
            if len(steps) > 1:
                named = ", ".join(step.name for step in steps[1 : SHOWN + 1])
                more = ", ..." if len(steps) > SHOWN + 1 else ""
                lines.append(f"    {len(steps) - 1} more ended alike: {named}{more}")
        if len(groups) > SHOWN:
            lines += ["", f"and {len(groups) - SHOWN} other kinds of failure, in the log"]
        number = sum(map(len, groups.values()))
        if not number:
            return ""
        lines += self._full_disks()
        head = f"{number} step{'s' if number > 1 else ''} failed:"
        foot = "Once that is mended, the same command makes these and what depends on them."
        return "\n".join([head, *lines, "", foot])

    def _full_disks(self) -> list[str]:
        """Lines that name full disks, which logs on the same disks cannot report."""
        files = (path for step in self.failed.values() for path in (*step.outputs, *step.logs))
        folders = {parent for path in files for parent in Path(path).parents if parent.is_dir()}
        full = [f for f in folders if shutil.disk_usage(f).free < ROOM]
        disks = {os.stat(f).st_dev: f for f in sorted(full, reverse=True)}  # the shortest last
        return ["", *(f"No space left on the disk of {f}" for f in disks.values())] if disks else []


def duration(seconds: float) -> str:
    """Format a duration: 40 s, 12 min, 3 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
