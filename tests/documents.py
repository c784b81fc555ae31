"""The project's pages, read as a reader does who types what they say.

In a page every block of commands or of Python is run, from top to bottom, in one checkout, unless a
comment above it says why not:

    <!-- not run: it takes a quarter of an hour -->

A block that begins with a file's name as a comment is saved: it becomes the file, goes to the end
of one that is there, or `after` a word of it.

    # slay/registry.py, after "cosformer"

The tests have less time than a reader. Trainings get few steps; the default run is replaced by the
smallest one, and of other runs Snakemake lists the jobs instead of running them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clone import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("config/README.md", "results/README.md")),
]
BLOCK = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```(\w+)\n(.*?)^```$", re.M | re.S)
REMARK = re.compile(r"(^|\s+)# [^'\"]*$")
FILE = re.compile(r"(?:#|%) (\S+\.\w+)(?:, after (\S+))?\n")
SMOKE = "config/smoke.yaml"
FEW_STEPS = "--steps 2 --warmup 1 --batch-size 2 --eval-sequences 4"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run if it is not."""

    kind: str
    text: str
    excuse: str

    def follow(self, folder: Path, given: Iterable[str]) -> None:
        """Do in a checkout what the block says, but for commands that were given there before."""
        name = FILE.match(self.text)
        if name:
            save(folder / name[1], self.text[name.end() :] if name[2] else self.text, name[2])
        elif self.kind == "python":
            run([sys.executable, "-c", self.text], folder)
        else:
            for line in commands(self.text):
                if line not in given:
                    run(["bash", "-c", line], folder)


def blocks(page: Path) -> list[Block]:
    """Of a page: those to do something with."""
    found = [Block(kind, text, why) for why, kind, text in BLOCK.findall(page.read_text())]
    return [b for b in found if b.kind in ("sh", "python") or FILE.match(b.text)]


def needs_a_run(page: Path) -> bool:
    """Whether a page works with a run of the workflow."""
    text = "\n".join(block.text for block in blocks(page) if not block.excuse)
    return "snakemake" in text or "results/" in text


def follow(page: Path, folder: Path, given: Iterable[str] = ()) -> None:
    """Do in a checkout all that a page says, but for commands that other pages gave there."""
    for block in blocks(page):
        if not block.excuse:
            block.follow(folder, given)


def given_by(page: Path) -> list[str]:
    """The commands that a page gives."""
    return [
        line for b in blocks(page) if not b.excuse and b.kind == "sh" for line in commands(b.text)
    ]


def save(path: Path, text: str, after: str) -> None:
    if after:
        lines = path.read_text().splitlines(keepends=True)
        place = next(i for i, line in enumerate(lines) if after in line)
        lines.insert(place + 1, text)
        text = "".join(lines)
    elif path.exists():
        text = path.read_text() + "\n" + text.partition("\n")[2]
    path.write_text(text)


def commands(text: str) -> list[str]:
    """The commands of a block, one by one, those that take long made shorter."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shorter(REMARK.sub("", line)) for line in lines if line.strip()]


def shorter(command: str) -> str:
    command = command.replace("results/laptop", "results/smoke")
    if command.startswith("slay train "):
        return f"{command} {FEW_STEPS}"
    if command.startswith("snakemake ") and "smoke" not in command.partition("--configfile")[2]:
        whole = "--config" not in command  # neither another run nor a part of one
        return f"{command} --configfile {SMOKE}" if whole else f"{command} -n"
    if command == "slay stale":
        return f"{command} --configfile {SMOKE}"
    return command


def run(words: list[str], folder: Path, package: Path | None = None) -> str:
    """What a command prints, with this environment's programs and the package of a checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(package or folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{words[-1]}\n{done.stdout[-4000:]}"
    return done.stdout
