"""Run functions in child processes, so that a crash or a hang costs only that function's result.

Children are forked, so that imported modules are available at once. A GPU can be used only by a
process that was forked before its parent initialised CUDA: the caller must leave the GPU to the
children.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from ctypes import Array, c_char
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from slay.errors import SlayError
from slay.experiments.result import Progress

FORK = get_context("fork")
NAME = 256  # bytes for the name of a child's current step


class Died(Exception):
    """A child ended without a result; `at` names the step that it reported last."""

    def __init__(self, message: str, at: str):
        super().__init__(message)
        self.at = at


class Parent:
    """A child's connection to its parent: log lines, and the name of the current step."""

    def __init__(self, pipe: Connection, place: Array[c_char]):
        self.pipe, self.place = pipe, place

    def say(self, text: str) -> None:
        self.pipe.send(("said", text))

    def at(self, name: str) -> None:
        """Record the name of the next step in shared memory, which outlives this process."""
        self.place.value = name.encode()[: NAME - 1]


Task = Callable[[Parent], Any]


class Child:
    """A running child process with a time limit of `seconds`."""

    def __init__(self, task: Task, seconds: float):
        self.place = FORK.RawArray("c", NAME)
        self.pipe, theirs = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_run, args=(task, theirs, self.place), daemon=True)
        self.process.start()
        theirs.close()
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def receive(self, say: Progress) -> tuple[Any] | None:
        """Read one message: return the result as a tuple of one, or None after a log line.

        Raises `Died` if the child failed, ended without a result or exceeded its time limit.
        """
        if not self.pipe.poll(max(0.0, self.end - time.monotonic())):
            raise self._died(f"not done after {self.seconds:.0f} s")
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5.0)
            raise self._died(f"the process {_end(self.process.exitcode)}") from None
        if kind == "said":
            say(value)
            return None
        if kind == "failed":
            line, full = value
            say(full)
            raise self._died(line)
        return (value,)

    def _died(self, message: str) -> Died:
        return Died(message, self.place.value.decode(errors="replace"))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run(task: Task, say: Progress, seconds: float) -> Any:
    """Return the result of a task run in a child process. Raises `Died`."""
    outcome = run_all({"": task}, say, seconds, at_once=1)[""]
    if isinstance(outcome, Died):
        raise outcome
    return outcome


def want_a_gpu(otherwise: str) -> None:
    """Raise `SlayError` if PyTorch sees no GPU; asked in a child, to leave CUDA to children."""
    try:
        found = run(lambda parent: torch.cuda.is_available(), lambda text: None, seconds=60)
    except Died:
        found = False
    if not found:
        raise SlayError(
            "--device cuda: this machine has no CUDA GPU that PyTorch sees; "
            f"--device cpu tries {otherwise}"
        )


def run_all(
    tasks: Mapping[str, Task], say: Progress, seconds: float, *, at_once: int
) -> dict[str, Any]:
    """Run tasks in child processes, `at_once` in parallel, each for at most `seconds`.

    Return each task's result, or the `Died` error of its process.
    """
    waiting, running = list(tasks.items()), dict[str, Child]()
    outcomes: dict[str, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name, task = waiting.pop(0)
                running[name] = Child(task, seconds)
            first = min(child.end for child in running.values())
            wait([c.pipe for c in running.values()], max(0.0, first - time.monotonic()))
            for name, child in list(running.items()):
                if not child.pipe.poll() and time.monotonic() < child.end:
                    continue
                try:
                    received = child.receive(say)
                except Died as death:
                    received = (death,)
                if received is not None:
                    outcomes[name] = received[0]
                    running.pop(name).kill()
    finally:
        for child in running.values():
            child.kill()
    return {name: outcomes[name] for name in tasks}


def _run(task: Task, pipe: Connection, place: Array[c_char]) -> None:
    """Run the task in the child; exit without cleanup, which might fail on a broken GPU."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent kills this process
    try:
        pipe.send(("done", task(Parent(pipe, place))))
    except BaseException as error:
        line = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        pipe.send(("failed", (line, "".join(traceback.format_exception(error)).rstrip())))
    finally:
        os._exit(0)


def _end(code: int | None) -> str:
    """Describe how a process ended, given its exit code."""
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
