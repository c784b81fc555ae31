"""Run steps in sequence, each with a time limit and a log; a failed or late one stops no other."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from slay import files
from slay.errors import SlayError
from slay.gpu.steps import ROOT, TESTS, Plan, Step, environment
from slay.pipeline.fingerprint import file_digest
from slay.pipeline.provenance import PACKAGE

SPARE = 10.0  # seconds before its time limit from which a step begins nothing more
LATE = 15.0  # seconds after its time limit at which a step is killed
LEAST = 2.0  # least seconds for which a step is started
Progress = Callable[[str], None]


class Driver:
    """One run of `slay gpu`; the outcome of each step is kept in the folder's steps.json."""

    def __init__(self, plan: Plan, steps: Sequence[Step], say: Progress):
        self.plan, self.steps, self.say = plan, steps, say
        self.notes = plan.folder / "steps.json"
        self.code = _digest(plan.configfile)
        self.done = self._read()
        self.trouble: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        """Run the steps that are not done; return why steps failed, by name."""
        begin = time.monotonic()
        waiting = [step for step in self.steps if not self._is_done(step)]
        for step in waiting:
            left = self.plan.seconds - (time.monotonic() - begin)
            share = step.share / sum(s.share for s in waiting[waiting.index(step) :])
            if left * share < LEAST:
                self.trouble[step.name] = "not begun, the time is over"
                continue
            number = f"[{self.steps.index(step) + 1}/{len(self.steps)}]"
            self.say(f"{number} {step.name}: {step.about}, at most {left * share:.0f} s")
            self._do(step, left * share)
        return self.trouble

    def _do(self, step: Step, seconds: float) -> None:
        argv = step.argv(self.plan, max(LEAST, seconds - SPARE))
        log = self.plan.folder / "logs" / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        status = _tee(argv, environment(self.plan), log, seconds + LATE, self.say)
        taken = time.monotonic() - begin
        if status != 0:
            late = taken >= seconds + LATE
            how = f"ended after {taken:.0f} s" if late else _exit(status)
            self.trouble[step.name] = f"{how}, see {log}"
        self.done[step.name] = {
            "status": status,
            "seconds": round(taken, 1),
            "device": self.plan.device,
            "code": self.code,
            "command": shlex.join(argv),
        }
        files.write(self.notes, json.dumps(self.done, indent=1) + "\n")
        self.say(f"{step.name}: {'done' if status == 0 else 'NOT DONE'} in {taken:.0f} s")

    def _is_done(self, step: Step) -> bool:
        note = self.done.get(step.name, {})
        known = (note.get("status"), note.get("device"), note.get("code"))
        if known != (0, self.plan.device, self.code):
            return False
        self.say(f"{step.name}: was done before")
        return True

    def _read(self) -> dict[str, dict]:
        try:
            found = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _tee(argv: list[str], env: dict[str, str], log: Path, seconds: float, say: Progress) -> int:
    """Run a command for at most `seconds`; show and log its output. Return its exit code."""
    with log.open("a", encoding="utf-8", buffering=1) as file:
        file.write(f"$ {shlex.join(argv)}\n")
        process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # its own process group, to be killed as one
        )
        clock = threading.Timer(seconds, _kill, [process])
        clock.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                say(line.rstrip("\n"))
            return process.wait()
        finally:
            clock.cancel()
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a step's process group, including processes that the step left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _exit(status: int) -> str:
    return f"exit code {status}" if status >= 0 else f"ended by signal {-status}"


def _digest(configfile: Path) -> str:
    """Digest of everything in this checkout that a step's outcome depends on."""
    digest = hashlib.sha256()
    for path in [*sorted(PACKAGE.rglob("*.py")), *sorted(TESTS.glob("*.py")), configfile]:
        place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        digest.update(f"{place} {file_digest(path)}\n".encode())
    return digest.hexdigest()[:16]


def check(steps: Sequence[Step], device: str) -> None:
    """Raise `SlayError` for steps that cannot run on the device."""
    for step in steps:
        if device == "cpu" and not step.toy:
            raise SlayError(f"--steps {step.name}: takes a GPU (--device cuda)")
