"""Tasks for worker processes, which may be killed by them; a journal keeps every answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from slay.errors import SlayError

Answer = dict[str, Any]


class Process:
    """A process of `command` that exchanges lines of JSON; a task (re)starts it if need be."""

    def __init__(self, command: Sequence[str]):
        self.command = list(command)
        self._running: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def ask(self, task: str, seconds: float) -> dict[str, Any]:
        """Return the answer to a task, or {"wrong": reason} if there is none within `seconds`."""
        running = self._running or self._start()
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(task + "\n")
            running.stdin.flush()
            return json.loads(running.stdout.readline())
        except (OSError, ValueError):  # the process ended instead
            code = running.wait()
            ended = f"no answer within {seconds:.0f} s" if late.is_set() else self._ending(code)
            self.end()
            return {"wrong": ended}
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self.kill()
        if self._running is not None:
            self._running.wait()
            pipes = (self._running.stdin, self._running.stdout, self._log)
            for pipe in pipes:
                with suppress(OSError):  # a task was never read
                    if pipe is not None:
                        pipe.close()
        self._running = self._log = None

    def _start(self) -> subprocess.Popen[str]:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._running = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # its own process group, to be killed as one
        )
        return self._running

    def _ending(self, code: int) -> str:
        """Describe how the process ended, with the last line that it printed."""
        ended = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        assert self._log is not None
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return f"{ended}: {lines[-1][:200]}" if lines else ended


class OutOfTimeError(Exception):
    """Time is up: a task cannot begin, or was killed."""


class Tasks:
    """Run tasks in processes of `command`; answers that the journal holds are reused.

    Journalled answers are valid for the same `head` only. All tasks together have `seconds`; a task
    is killed after `hangs` seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        journal: Path,
        head: Sequence[object],
        *,
        seconds: float,
        hangs: float,
    ):
        self.command, self.journal, self.head = command, journal, json.dumps(head)
        self.hangs, self.end = hangs, time.monotonic() + seconds
        self.known: dict[str, Answer] = {}  # by the task's text
        self._asked: set[Process] = set()
        self._stopped = False
        self._writing, self._retrying = threading.Lock(), threading.Lock()

    def resume(self) -> int:
        """Read an earlier run's journal, whose last line may be cut; return the number of tasks."""
        try:
            head, *lines = self.journal.read_text(encoding="utf-8").split("\n")[:-1]
            entries = [json.loads(line) for line in lines] if head == self.head else []
            self.known = {entry["task"]: entry["answer"] for entry in entries}
        except (OSError, ValueError, KeyError, TypeError):
            self.known = {}
        entries = [{"task": text, "answer": answer} for text, answer in self.known.items()]
        text = "\n".join([self.head, *map(json.dumps, entries)])
        self.journal.write_text(f"{text}\n", encoding="utf-8")
        return len(entries)

    def ask(self, task: Answer, device: str, process: Process | None = None) -> Answer:
        """Return the answer to a task, from a new process if none is given.

        Raises `SlayError` if kernels cannot be verified here, `OutOfTimeError` when time is up.
        """
        text = json.dumps(task, sort_keys=True)
        if text in self.known:
            return self.known[text]
        own = process or Process(self.command)
        self._asked.add(own)
        try:
            answer = self._answer(json.dumps({**task, "device": device}), own)
        finally:
            self._asked.discard(own)
            if process is None:
                own.end()
        if "absent" in answer:
            raise SlayError(f"kernels cannot be verified: {answer['absent']}")
        self.known[text] = answer
        with self._writing, self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"task": text, "answer": answer}) + "\n")
        return answer

    def _answer(self, task: str, process: Process) -> Answer:
        answer = process.ask(task, self._limit())
        if "full" in answer:  # other tasks may have held the memory
            with self._retrying:
                answer = process.ask(task, self._limit())
        if self._stopped or time.monotonic() > self.end:
            raise OutOfTimeError  # the answer of a process killed for this is meaningless
        return answer

    def _limit(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0 or self._stopped:
            raise OutOfTimeError
        return min(left, self.hangs)

    @contextmanager
    def ended_with_this(self) -> Iterator[None]:
        """Kill all running processes on a failure or an interruption inside."""
        try:
            yield
        except BaseException:
            self._stopped = True
            for process in tuple(self._asked):
                process.kill()
            raise
