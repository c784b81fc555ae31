"""The paper: templates to LaTeX, LaTeX to PDF or to an archive, errors with file and line."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from slay import files
from slay.errors import SlayError
from slay.report.context import whole
from slay.report.latex import environment, render
from slay.report.results import Results

TEX = (
    "LaTeX is not installed (no latexmk); nothing measured is lost; run: make tex, "
    "or: sudo apt-get install latexmk texlive-latex-recommended texlive-latex-extra "
    "texlive-fonts-recommended texlive-pictures"
)
# Environment variables that LaTeX inherits: system, and the location of its distribution.
KEPT = re.compile("PATH|HOME|USER|TMPDIR|TEMP|LD_LIBRARY_PATH|SYSTEMROOT|TEXMF[A-Z]*|TEXLIVE.*")


def build(results: Results, templates: Path, folder: Path) -> Path:
    """Render main.tex and references.bib into `folder` and typeset folder/slay.pdf.

    The PDF is dated by the last measurement: the same results give the same bytes. Raises
    `SlayError` if LaTeX is missing, fails, leaves a reference undefined or lacks a glyph.
    """
    if shutil.which("latexmk") is None:
        raise SlayError(TEX)
    env = environment(templates)
    context = whole(results, env, templates)
    folder.mkdir(parents=True, exist_ok=True)
    text = render(env, "main.tex.j2", built="..", **context)
    files.write(folder / "main.tex", text)
    files.copy(templates / "references.bib", folder / "references.bib")
    _typeset(folder, epoch=results.epoch(results.experiments))
    pdf = folder / "slay.pdf"
    files.copy(folder / "build" / "slay.pdf", pdf)
    return pdf


def pack(results: Results, templates: Path, archive: Path) -> Path:
    """Write a .tar.gz of the built paper's source, which compiles without Python and BibTeX.

    main.tex is at the top level, as arXiv requires; the same results give the same bytes. Raises
    `SlayError` if the paper was not built.
    """
    folder = results.base / "paper"
    bibliography = folder / "build" / "slay.bbl"
    if not bibliography.is_file():
        raise SlayError(f"{folder}: no paper yet; run: snakemake --cores all paper")
    env = environment(templates)
    text = render(env, "main.tex.j2", built=".", **whole(results, env, templates))
    sources = {"main.tex": text.encode(), "main.bbl": bibliography.read_bytes()}
    sources["references.bib"] = (folder / "references.bib").read_bytes()
    for name in sorted(set(re.findall(r"\\built/([\w./-]+)", text))):
        name = name if name.endswith(".pdf") else f"{name}.tex"
        sources[name] = (results.base / name).read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in sources.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), results.epoch(results.experiments)
            tar.addfile(info, io.BytesIO(data))
    files.write(archive, gzip.compress(packed.getvalue(), mtime=0))
    return archive


def complaints(log: str, points: float = 2.0) -> list[str]:
    """Problems in an unwrapped TeX log.

    Boxes that are too wide by more than `points` points, missing glyphs, undefined references.
    """
    wide = re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\).*", log)
    found = [f"a box is {width} pt too wide" for width in wide if float(width) > points]
    found += re.findall(r"Missing character: .*", log)
    names = re.findall(r"(?:Reference|Citation) [`'](\S+?)'.*undefined", log)
    return found + [f"undefined in the text: {name}" for name in sorted(set(names))]


def _typeset(folder: Path, epoch: int) -> None:
    """Run latexmk in `folder`, with everything but the sources in folder/build."""
    command = ["latexmk", "-norc", "-pdf", "-interaction=nonstopmode", "-file-line-error"]
    command += ["-halt-on-error", "-jobname=slay", "-outdir=build", "main.tex"]
    shutil.rmtree(folder / "build", ignore_errors=True)
    done = subprocess.run(
        command, cwd=folder, env=_surroundings(epoch), capture_output=True, encoding="utf-8",
        errors="replace",
    )  # fmt: skip
    log = unwrapped(folder / "build" / "slay.log") or done.stdout + done.stderr
    if done.returncode:
        raise SlayError(f"LaTeX failed: {_first_error(log, folder)}")
    wrong = complaints(log, points=float("inf"))
    if wrong:
        raise SlayError(f"{folder / 'main.tex'}: {'; '.join(wrong)}")


def _surroundings(epoch: int) -> dict[str, str]:
    """Environment of LaTeX: paths of programs and fonts, no settings for other documents.

    The distribution's packages take precedence over those in a user's own tree.
    """
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    kinds = {"TEXINPUTS": "tex/{latex,generic}", "BSTINPUTS": "bibtex/bst"}
    first = {name: f".:$TEXMFDIST/{kind}//:" for name, kind in kinds.items()}
    clock = {"SOURCE_DATE_EPOCH": str(epoch), "FORCE_SOURCE_DATE": "1"}
    return {**kept, **first, **clock, "LC_ALL": "C"}


def unwrapped(log: Path) -> str:
    """TeX's log without its line breaks after 79 characters."""
    if not log.is_file():
        return ""
    return re.sub(r"(?<=[^\n]{79})\n", "", log.read_text(encoding="utf-8", errors="replace"))


def _first_error(log: str, folder: Path) -> str:
    """file:line: message of the first error in TeX's log, or in that of BibTeX."""
    found = re.search(r"^(\S+?):(\d+): (.*)$", log, flags=re.MULTILINE)
    if not found:
        found_plain = re.search(r"^! (.*)$", log, flags=re.MULTILINE)
        return found_plain.group(1) if found_plain else _bibliography_error(folder)
    file, line, message = found.groups()
    return f"{(folder / file).resolve()}:{line}: {message}"


def _bibliography_error(folder: Path) -> str:
    """file:line: message of the first error in BibTeX's log."""
    log = unwrapped(folder / "build" / "slay.blg")
    found = re.search(r"^(.*)---line (\d+) of file (\S+)\n : (.*)$", log, flags=re.MULTILINE)
    if not found:
        return f"see {folder / 'build' / 'slay.log'}"
    message, line, file, entry = found.groups()
    return f"{(folder / file).resolve()}:{line}: {message}: {entry}"
