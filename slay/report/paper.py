"""The paper: templates to LaTeX, LaTeX to PDF, mistakes as file, line and message."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from slay.errors import SlayError
from slay.report.context import whole
from slay.report.latex import environment, render
from slay.report.results import Results

TEX = (
    "LaTeX is not installed (no latexmk); nothing measured is lost; run: make tex, "
    "or: sudo apt-get install latexmk texlive-latex-recommended texlive-latex-extra "
    "texlive-fonts-recommended texlive-pictures"
)


def build(results: Results, templates: Path, folder: Path) -> Path:
    """Render main.tex and references.bib into `folder` and typeset folder/slay.pdf.

    The PDF is dated by the last measurement: the same results give the same bytes. Raises
    `SlayError` where LaTeX is missing, fails, or leaves a reference undefined.
    """
    if shutil.which("latexmk") is None:
        raise SlayError(TEX)
    env = environment(templates)
    context = whole(results, env, templates)
    folder.mkdir(parents=True, exist_ok=True)
    text = render(env, "main.tex.j2", **context)
    (folder / "main.tex").write_text(text, encoding="utf-8")
    shutil.copy(templates / "references.bib", folder)
    _typeset(folder, epoch=results.epoch(results.experiments))
    pdf = folder / "slay.pdf"
    os.replace(folder / "build" / "slay.pdf", pdf)
    return pdf


def _typeset(folder: Path, epoch: int) -> None:
    """Run latexmk in `folder`, with everything but the sources in folder/build."""
    command = ["latexmk", "-pdf", "-interaction=nonstopmode", "-file-line-error", "-halt-on-error"]
    command += ["-jobname=slay", "-outdir=build", "main.tex"]
    clock = {"SOURCE_DATE_EPOCH": str(epoch), "FORCE_SOURCE_DATE": "1"}
    shutil.rmtree(folder / "build", ignore_errors=True)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **clock}, capture_output=True, text=True,
        errors="replace",
    )  # fmt: skip
    log = _unwrap(folder / "build" / "slay.log") or done.stdout + done.stderr
    if done.returncode:
        raise SlayError(f"LaTeX failed: {_first_error(log, folder)}")
    undefined = re.findall(r"(?:Reference|Citation) [`'](\S+?)'.*undefined", log)
    if undefined:
        names = ", ".join(sorted(set(undefined)))
        raise SlayError(f"{folder / 'main.tex'}: undefined in the text: {names}")


def _unwrap(log: Path) -> str:
    """TeX's log without its line breaks after 79 characters."""
    if not log.is_file():
        return ""
    return re.sub(r"(?<=[^\n]{79})\n", "", log.read_text(encoding="utf-8", errors="replace"))


def _first_error(log: str, folder: Path) -> str:
    """file:line: message of the first error in a log."""
    found = re.search(r"^(\S+?):(\d+): (.*)$", log, flags=re.MULTILINE)
    if not found:
        found_plain = re.search(r"^! (.*)$", log, flags=re.MULTILINE)
        return found_plain.group(1) if found_plain else f"see {folder / 'build' / 'slay.log'}"
    file, line, message = found.groups()
    return f"{(folder / file).resolve()}:{line}: {message}"
