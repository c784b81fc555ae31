"""`slay kernels verify`: check every configuration of every kernel in its own process.

A kernel that accesses memory illegally kills only its process, and one that hangs is killed. The
outcome of every task is kept in a journal, so that an interrupted run resumes. At the end,
correct configurations are timed, one kernel after another, and the device's file is written.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from slay.errors import SlayError
from slay.kernel_tools.cases import Case
from slay.kernel_tools.search import Search, Trial
from slay.kernel_tools.tasks import Answer, OutOfTimeError, Process, Tasks
from slay.ops.triton import assembler
from slay.ops.triton.verified import Facts, Tried, Verification, config, file_name, read
from slay.pipeline.progress import duration

WORKER = (sys.executable, "-m", "slay.kernel_tools.worker")
HANGS = 180.0  # seconds after which an unanswered task is killed; compilation takes most of them
FOR_TIMING = 0.2  # share of the available time
EVERY = 5.0  # seconds between lines of progress
Slots = dict[tuple[str, str], list[str]]  # configurations by class of calls and kernel


@dataclass(eq=False)
class Subject:
    """A case, what its calls launch, and the search for correct configurations."""

    case: Case
    slots: Slots
    new: set[tuple[str, str]]  # the slots that no earlier case has in this precision
    search: Search = field(default_factory=lambda: Search({}))


@dataclass
class Verifier:
    """Verify the kernels of one device and write its file into a folder."""

    facts: Facts
    cases: Sequence[Case]
    folder: Path
    command: Sequence[str] = WORKER  # a process that answers tasks, see `worker`
    device: str = "cuda"
    jobs: int = 1
    only: str = "*"  # pattern of classes of calls
    seconds: float = float("inf")
    hangs: float = HANGS
    progress: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.path = self.folder / file_name(self.facts.device)
        journal = self.path.with_suffix(".journal")
        self.tasks = Tasks(
            self.command, journal, self.facts, seconds=self.seconds, hangs=self.hangs
        )
        self.began = self.said = time.monotonic()
        self.counted: Counter[str] = Counter()
        self.right: Slots = {}  # of finished searches
        self.times: dict[tuple[str, str, str], dict[int, float]] = {}  # by class, kernel, config

    def run(self) -> Verification:
        """Verify what is not known yet and write the file, a partial one if time runs out."""
        with self._alone():
            known = self.tasks.resume()
            if known:
                self.progress(f"going on after {known} tasks of an earlier start")
            subjects, complete = [], False
            try:
                subjects = self._planned()
                whole = [subject for subject in subjects if len(subject.new) == len(subject.slots)]
                rest = [subject for subject in subjects if subject not in whole]
                complete = self._check(whole) and self._check(rest)
                self._time(subjects)
            except OutOfTimeError:
                complete = False
            except KeyboardInterrupt:
                self.progress("interrupted; the same command goes on from here")
                raise
            if not complete:
                self.progress("time is up: what was not verified counts as not right")
            result = self._result(subjects, complete)
            result.write(self.path)
            if complete:
                self.tasks.journal.unlink(missing_ok=True)
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

    def _planned(self) -> list[Subject]:
        """Cases that have a requested class of calls which no earlier case has."""
        subjects: list[Subject] = []
        seen: set[tuple[str, str, str]] = set()
        self.progress("finding out which kernels are launched")
        number = max(1, min(self.jobs, len(self.cases)))
        with ThreadPoolExecutor(number) as pool, self.tasks.ended_with_this():
            shares = list(pool.map(self._launches, (self.cases[i::number] for i in range(number))))
        for index, case in enumerate(self.cases):
            slots = shares[index % number][index // number]
            new = {slot for slot in slots if (*slot, case.dtype) not in seen}
            if new:
                seen.update((*slot, case.dtype) for slot in new)
                subjects.append(Subject(case, slots, new))
        if not subjects:
            raise SlayError(
                f"no kernel is launched for a class of calls like {self.only!r}; "
                "`slay kernels verify` without --only verifies all"
            )
        classes = len({key for key, _, _ in seen})
        self.progress(f"{classes} classes of calls in {len(subjects)} cases, {self.jobs} at once")
        return subjects

    def _launches(self, cases: Sequence[Case]) -> list[Slots]:
        """Kernels that some cases launch, determined by one process."""
        process = Process(self.command)
        try:
            return [self._slots(case, process) for case in cases]
        finally:
            process.end()

    def _slots(self, case: Case, process: Process) -> Slots:
        planned = self.tasks.ask({"do": "plan", "case": asdict(case)}, self.device, process)
        if "plan" not in planned:
            self.progress(f"{case}: {planned.get('wrong', 'no answer')}")
        return {
            (key, kernel): configs
            for key, kernel, configs in planned.get("plan", ())
            if fnmatchcase(key, self.only)
        }

    def _search(self, subject: Subject) -> Search:
        """Search among the safe configurations; kernels that are not new keep one correct one."""
        candidates: dict[str, list[str]] = {}
        for (key, kernel), texts in subject.slots.items():
            known = candidates.setdefault(kernel, [])
            right = self.right.get((key, kernel), [])
            if right and (key, kernel) not in subject.new:
                texts = right[:1]
            known += [text for text in texts if self._safe(text) and text not in known]
        return Search(candidates)

    def _safe(self, text: str) -> bool:
        version = tuple(map(int, self.facts.assembler.split(".")))
        return assembler.safe(config(text), self.facts.capability, version)

    def _check(self, subjects: list[Subject]) -> bool:
        """Run every subject's trials, `jobs` in parallel; return False if time ran out."""
        end = self.began + (1 - FOR_TIMING) * self.seconds
        for subject in subjects:
            subject.search = self._search(subject)
        running: dict[Future[Answer], tuple[Subject, Trial]] = {}
        waiting = [(subject, trial) for subject in subjects for trial in subject.search.trials()]
        with ThreadPoolExecutor(self.jobs) as pool, self.tasks.ended_with_this():
            while waiting or running:
                while waiting and len(running) < self.jobs and time.monotonic() < end:
                    subject, trial = waiting.pop(0)
                    task = {"do": "check", "case": asdict(subject.case), "configs": trial}
                    future = pool.submit(self.tasks.ask, task, self.device)
                    running[future] = subject, trial
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
            for slot in subject.new:
                found = subject.search.right[slot[1]]
                self.right.setdefault(slot, [t for t in subject.slots[slot] if t in found])
        return True

    def _time(self, subjects: list[Subject]) -> None:
        """Time kernels with several correct configurations, one by one, while nothing else runs."""
        subjects = [s for s in subjects if any(len(right) > 1 for right in s.search.right.values())]
        process = Process(self.command)
        try:
            for number, subject in enumerate(subjects, 1):
                right = subject.search.right
                task = {"do": "time", "case": asdict(subject.case), "configs": right}
                answer = self.tasks.ask(task, self.device, process)
                for key, kernels in answer.get("times", {}).items():
                    for kernel, configs in kernels.items():
                        for text, spent in configs.items():
                            self.times[key, kernel, text] = spent
                self._say(f"timed {number} of {len(subjects)}")
        finally:
            process.end()

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
        """Merge the results with those that the file has for classes that were not begun."""
        before, _ = read(self.path, self.facts)
        fresh: dict[tuple[str, str], Tried] = {}
        for subject in subjects:
            for key, kernel in subject.new:
                tried = self._tried(subject, key, kernel)
                other = fresh.get((key, kernel))
                fresh[key, kernel] = tried if other is None else _both(tried, other)
        classes = {} if before is None else {k: dict(v) for k, v in before.classes.items()}
        for (key, kernel), tried in fresh.items():
            known_then = classes.setdefault(key, {})
            if tried.right or tried.wrong or kernel not in known_then:
                known_then[kernel] = tried
        whole = complete and (self.only == "*" or (before is not None and before.complete))
        facts = self.facts._asdict()
        return Verification(**facts, complete=whole, classes=classes)

    def _tried(self, subject: Subject, key: str, kernel: str) -> Tried:
        texts = subject.slots[key, kernel]
        if not subject.search.made and any(map(self._safe, texts)):
            return Tried()  # not begun
        right, wrong = (
            getattr(subject.search, name).get(kernel, {}) for name in ("right", "wrong")
        )
        unsafe = f"not tried: unsafe by ptxas {self.facts.assembler}; {assembler.INSTALL}"
        return Tried(
            right={
                text: self.times.get((key, kernel, text), {}) for text in texts if text in right
            },
            wrong={text: unsafe for text in texts if not self._safe(text)}
            | {text: wrong[text] for text in texts if text in wrong},
        )


def _both(a: Tried, b: Tried) -> Tried:
    """Merge a class in two precisions: correct is what is correct in both."""
    right = {text: {**b.right[text], **spent} for text, spent in a.right.items() if text in b.right}
    return Tried(right=right, wrong={**a.wrong, **b.wrong})


def _wrong(answer: Answer) -> str | None:
    """Return what was wrong, or None."""
    if answer.get("right"):
        return None
    return str(answer.get("wrong") or answer.get("full") or "no answer that is one")


def summary(result: Verification) -> str:
    """One-line summary of a verification."""
    tried = [kernel for kernels in result.classes.values() for kernel in kernels.values()]
    right, wrong = (sum(len(getattr(t, name)) for t in tried) for name in ("right", "wrong"))
    usable = sum(all(t.right for t in kernels.values()) for kernels in result.classes.values())
    rest = "" if result.complete else "; not all was tried, the next start goes on"
    return (
        f"{right} of {right + wrong} configurations are right; {usable} of {len(result.classes)} "
        f"classes of calls have kernels{rest}"
    )
