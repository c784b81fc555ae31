"""`slay kernels verify`: every kernel in every configuration on a device, each in its own process.

A kernel that reads where it must not kills its process, and one that waits for ever is ended. What
came of every task is kept in a journal, so that a second start goes on. At the end what is right is
timed, one kernel after another, and the file of the device is written.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slay.errors import SlayError
from slay.experiments.kernels.cases import Case
from slay.experiments.kernels.processes import Process
from slay.experiments.kernels.search import Search, Trial
from slay.ops.triton import assembler
from slay.ops.triton.verified import Facts, Tried, Verification, config, file_name, read
from slay.progress import duration

WORKER = (sys.executable, "-m", "slay.experiments.kernels.worker")
HANGS = 180.0  # seconds without an answer; compiling takes the most of them
FOR_TIMING = 0.2  # of the seconds that there are
EVERY = 5.0  # seconds between lines of progress
Answer = dict[str, Any]
Slots = dict[tuple[str, str], list[str]]  # configurations by class of calls and kernel


class OutOfTimeError(Exception):
    """There is no time left to begin something."""


@dataclass(eq=False)
class Subject:
    """A case, what its calls launch, and what is known of that."""

    case: Case
    slots: Slots
    search: Search


@dataclass
class Verifier:
    """Verifies the kernels of one device, and writes its file into a folder."""

    facts: Facts
    cases: Sequence[Case]
    folder: Path
    command: Sequence[str] = WORKER  # a process that answers tasks, see `worker`
    device: str = "cuda"
    jobs: int = 1
    only: str = "*"  # classes of calls, as a pattern
    seconds: float = float("inf")
    hangs: float = HANGS
    progress: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.path = self.folder / file_name(self.facts.device)
        self.journal = self.path.with_suffix(".journal")
        self.began = self.said = time.monotonic()
        self.counted: Counter[str] = Counter()
        self.known: dict[str, Answer] = {}  # by the task's text
        self.times: dict[tuple[str, str, str], dict[int, float]] = {}  # by class, kernel, config
        self.processes: set[Process] = set()
        self.stopped = False
        self.writing, self.retrying = threading.Lock(), threading.Lock()

    def run(self) -> Verification:
        """Verify what is not known yet and write the file, a partial one when time ends."""
        with self._alone():
            self._resume()
            subjects, complete = [], False
            try:
                subjects = self._planned()
                complete = self._check(subjects)
                self._time(subjects)
            except OutOfTimeError:
                complete = False
            if not complete:
                self.progress("time is up: what was not verified counts as not right")
            result = self._result(subjects, complete)
            result.write(self.path)
            if complete:
                self.journal.unlink(missing_ok=True)
        return result

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.with_suffix(".lock"))
            lock.acquire(blocking=False)
        except Timeout as error:
            raise SlayError(
                f"another process verifies the kernels of this {self.facts.device} now; wait for "
                f"it to end ({self.path} is what it writes)"
            ) from error
        except OSError as error:
            raise SlayError(
                f"{self.folder}: cannot be written ({error.strerror}); set SLAY_CACHE to a folder "
                "that can"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _resume(self) -> None:
        """Read the journal of an earlier start with the same facts; its last line may be half."""
        head = json.dumps(self.facts)
        lines = []
        if self.journal.exists():
            lines = self.journal.read_text(encoding="utf-8").split("\n")[:-1]
        if lines[:1] == [head]:
            entries = [json.loads(line) for line in lines[1:]]
            self.known = {entry["task"]: entry["answer"] for entry in entries}
        text = "".join(f"{line}\n" for line in (lines if self.known else [head]))
        self.journal.write_text(text, encoding="utf-8")
        if self.known:
            self.progress(f"going on after {len(self.known)} tasks of an earlier start")

    def _planned(self) -> list[Subject]:
        """The cases whose classes of calls are wanted and not those of an earlier case."""
        subjects: list[Subject] = []
        seen: set[tuple[str, str]] = set()
        self.progress("finding out which kernels are launched")
        number = max(1, min(self.jobs, len(self.cases)))
        with ThreadPoolExecutor(number) as pool, self._ending_what_runs():
            shares = list(pool.map(self._launches, (self.cases[i::number] for i in range(number))))
        for index, case in enumerate(self.cases):
            slots = shares[index % number][index // number]
            if slots.keys() - seen:
                seen.update(slots)
                subjects.append(Subject(case, slots, self._search(slots)))
        if not subjects:
            raise SlayError(
                f"no kernel is launched for a class of calls like {self.only!r}; "
                "`slay kernels verify` without --only verifies all"
            )
        classes = len({key for key, _ in seen})
        self.progress(f"{classes} classes of calls in {len(subjects)} cases, {self.jobs} at once")
        return subjects

    def _launches(self, cases: Sequence[Case]) -> list[Slots]:
        """What is launched by some cases, found by one process."""
        process = Process(self.command)
        try:
            return [self._slots(case, process) for case in cases]
        finally:
            process.end()

    def _slots(self, case: Case, process: Process) -> Slots:
        planned = self._ask({"do": "plan", "case": asdict(case)}, process)
        if "plan" not in planned:
            self.progress(f"{case}: {planned.get('wrong', 'no answer')}")
        return {
            (key, kernel): configs
            for key, kernel, configs in planned.get("plan", ())
            if fnmatchcase(key, self.only)
        }

    def _search(self, slots: Slots) -> Search:
        """A search among the safe configurations of the kernels."""
        candidates: dict[str, list[str]] = {}
        for (_, kernel), texts in slots.items():
            known = candidates.setdefault(kernel, [])
            known += [text for text in texts if self._safe(text) and text not in known]
        return Search(candidates)

    def _safe(self, text: str) -> bool:
        version = tuple(map(int, self.facts.assembler.split(".")))
        return assembler.safe(config(text), self.facts.capability, version)

    def _check(self, subjects: list[Subject]) -> bool:
        """Make every subject's trials, round after round, some at once; whether there was time."""
        end = self.began + (1 - FOR_TIMING) * self.seconds
        running: dict[Future[Answer], tuple[Subject, Trial]] = {}
        waiting = [(subject, trial) for subject in subjects for trial in subject.search.trials()]
        with ThreadPoolExecutor(self.jobs) as pool, self._ending_what_runs():
            while waiting or running:
                while waiting and len(running) < self.jobs and time.monotonic() < end:
                    subject, trial = waiting.pop(0)
                    task = {"do": "check", "case": asdict(subject.case), "configs": trial}
                    running[pool.submit(self._ask, task)] = subject, trial
                if not running:
                    return False
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    subject, trial = running.pop(future)
                    subject.search.note(trial, _wrong(future.result()))
                    self._count(future.result(), len(waiting) + len(running))
                    busy = [other for other, _ in (*running.values(), *waiting)]
                    if subject not in busy:
                        waiting += [(subject, trial) for trial in subject.search.trials()]
        for subject in subjects:
            subject.search.finish()
        return True

    @contextmanager
    def _ending_what_runs(self) -> Iterator[None]:
        """After a failure or an interruption, nobody is waited for."""
        try:
            yield
        except BaseException:
            self.stopped = True
            for process in tuple(self.processes):
                process.kill()
            raise

    def _time(self, subjects: list[Subject]) -> None:
        """Time kernels of which there is a choice, one after another, while nothing else runs."""
        subjects = [s for s in subjects if any(len(right) > 1 for right in s.search.right.values())]
        process = Process(self.command)
        try:
            for number, subject in enumerate(subjects, 1):
                if time.monotonic() > self.began + self.seconds:
                    raise OutOfTimeError
                right = subject.search.right
                task = {"do": "time", "case": asdict(subject.case), "configs": right}
                for key, kernels in self._ask(task, process).get("times", {}).items():
                    for kernel, configs in kernels.items():
                        for text, spent in configs.items():
                            self.times[key, kernel, text] = spent
                self._say(f"timed {number} of {len(subjects)}")
        finally:
            process.end()

    def _ask(self, task: Answer, process: Process | None = None) -> Answer:
        """The answer to a task, by a process of its own if none is given; raises for no kernels."""
        text = json.dumps(task, sort_keys=True)
        if text in self.known:
            return self.known[text]
        own = process or Process(self.command)
        self.processes.add(own)
        try:
            answer = self._answer(json.dumps({**task, "device": self.device}), own)
        finally:
            self.processes.discard(own)
            if process is None:
                own.end()
        if "absent" in answer:
            raise SlayError(f"kernels cannot be verified: {answer['absent']}")
        self.known[text] = answer
        with self.writing, self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"task": text, "answer": answer}) + "\n")
        return answer

    def _answer(self, task: str, process: Process) -> Answer:
        left = self.began + self.seconds - time.monotonic()
        if left <= 0:
            raise OutOfTimeError
        answer = process.ask(task, min(left, self.hangs))
        if "full" in answer:  # others may have had the memory
            with self.retrying:
                answer = process.ask(task, min(left, self.hangs))
        if self.stopped or time.monotonic() > self.began + self.seconds:
            raise OutOfTimeError  # who was ended for that says nothing
        return answer

    def _count(self, answer: Answer, left: int) -> None:
        self.counted["wrong" if _wrong(answer) else "right"] += 1
        done, spent = self.counted.total(), time.monotonic() - self.began
        wrong = f", {self.counted['wrong']} of them wrong" if self.counted["wrong"] else ""
        self._say(
            f"checked {done} of {done + left}{wrong}, about {duration(spent / done * left)} to go"
        )

    def _say(self, text: str) -> None:
        if time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            self.progress(text)

    def _result(self, subjects: list[Subject], complete: bool) -> Verification:
        """What is known now, beside what the file says of classes that were not begun."""
        before, _ = read(self.path, self.facts)
        classes = {} if before is None else {k: dict(v) for k, v in before.classes.items()}
        for subject in subjects:
            for (key, kernel), texts in subject.slots.items():
                known = classes.setdefault(key, {})
                if subject.search.made or kernel not in known:
                    known[kernel] = self._tried(subject, key, kernel, texts)
        whole = complete and (self.only == "*" or (before is not None and before.complete))
        facts = self.facts._asdict()
        return Verification(**facts, complete=whole, classes=classes)

    def _tried(self, subject: Subject, key: str, kernel: str, texts: list[str]) -> Tried:
        right, wrong = subject.search.right[kernel], subject.search.wrong[kernel]
        unsafe = f"not tried: unsafe by ptxas {self.facts.assembler}; {assembler.INSTALL}"
        return Tried(
            right={
                text: self.times.get((key, kernel, text), {}) for text in texts if text in right
            },
            wrong={text: unsafe for text in texts if not self._safe(text)}
            | {text: wrong[text] for text in texts if text in wrong},
        )


def _wrong(answer: Answer) -> str | None:
    """What was wrong, None if nothing was."""
    if answer.get("right"):
        return None
    return str(answer.get("wrong") or answer.get("full") or "no answer that is one")


def summary(result: Verification) -> str:
    """How much is right, in a line."""
    tried = [kernel for kernels in result.classes.values() for kernel in kernels.values()]
    right, wrong = (sum(len(getattr(t, name)) for t in tried) for name in ("right", "wrong"))
    usable = sum(all(t.right for t in kernels.values()) for kernels in result.classes.values())
    rest = "" if result.complete else "; not all was tried, the next start goes on"
    return (
        f"{right} of {right + wrong} configurations are right; {usable} of {len(result.classes)} "
        f"classes of calls have kernels{rest}"
    )
