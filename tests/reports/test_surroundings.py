"""What the environment may change, and that nothing else does.

docs/pipeline.md lists what it may change, which is what a user asks for by it. Each of these tests
sets something else, as users have it for other work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from slay.pipeline.record import read_record
from slay.report.paper import _typeset
from slay.report.style import plt, save, styled

ROOT = Path(__file__).parents[2]
SLAY = [sys.executable, "-m", "slay.cli"]
RUN = ["run", "quality", "--attention", "linear", "--seq-len", "8", "--head-dim", "4"]


def run(folder, *words, command=SLAY, **environment):
    """What a command prints in a folder, with some variables set."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([*command, *words], cwd=folder, env=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A record that was made in a quiet place."""
    folder = tmp_path_factory.mktemp("plain")
    run(folder, *RUN, "--device", "cpu", "--out", "r.json")
    return read_record(folder / "r.json")


HOSTILE = {
    "PYTHONOPTIMIZE": "2",
    "PYTHONHASHSEED": "7",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONDEVMODE": "1",
    "PYTHONWARNINGS": "ignore",
    "LC_ALL": "C",
    "LANG": "tr_TR.UTF-8",
    "TZ": "Pacific/Kiritimati",
    "HOME": "/proc/nowhere",
    "XDG_CACHE_HOME": "/proc/nowhere",
    "XDG_CONFIG_HOME": "/proc/nowhere",
    "MPLCONFIGDIR": "/proc/nowhere",
    "MPLBACKEND": "a backend that is not there",
    "GIT_DIR": "/proc/nowhere",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "20",
    "NO_COLOR": "1",
    "CDPATH": "/",
}


def test_a_record_does_not_depend_on_what_is_set_for_other_work(plain, tmp_path):
    """A number changes, or a traceback comes, by python -OO, a locale or an unwritable HOME."""
    for name in range(3):
        tmp_path = tmp_path / f"{'long' * 20}{name}"
    tmp_path.mkdir(parents=True)
    out = ["--device", "cpu", "--out", "r.json"]
    run(tmp_path, *RUN, *out, TMPDIR=str(tmp_path), **HOSTILE)
    found = read_record(tmp_path / "r.json")
    assert (found.params, found.metrics) == (plain.params, plain.metrics)
    assert found.provenance.code == plain.provenance.code
    assert found.provenance.commit == plain.provenance.commit
    assert os.listdir(tmp_path) == ["r.json"]


PAGES = [["mechanisms", "--markdown"], ["tasks", "--markdown"]]
PAGES += [["run", "tasks", "--help"], ["bench", "kernels", "--help"]]


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_pages_do_not_depend_on_docstrings_or_locale(words, tmp_path):
    """`slay mechanisms --markdown` ends in a traceback by python -OO, or where the locale is C."""
    plain = run(tmp_path, *words, COLUMNS="80")
    assert plain.decode().strip()
    assert run(tmp_path, *words, **HOSTILE | {"COLUMNS": "80"}) == plain


def test_a_path_that_is_no_unicode_is_printed(tmp_path):
    """A folder whose name is no UTF-8 ends a measurement in a traceback."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    out = os.fsdecode(folder + b"/r.json")
    run(tmp_path, *RUN, "--device", "cpu", "--out", out)
    assert json.loads(Path(out).read_text())["status"] == "ok"


MATPLOTLIBRC = """
savefig.bbox: tight
savefig.dpi: 40
figure.facecolor: red
lines.linestyle: --
axes.grid: True
font.size: 30
text.usetex: True
axes.formatter.use_locale: True
pdf.compression: 0
"""


def drawn(path):
    with styled():
        figure, axes = plt.subplots()
        axes.plot([1, 2], [-1.5, 2.5], label="line")
        save(figure, path, "test")
    return path.read_bytes(), path.with_suffix(".png").read_bytes()


def test_figures_do_not_depend_on_a_users_matplotlibrc(tmp_path):
    """Figures have another size, font or colour where the user has a matplotlibrc."""
    plain = drawn(tmp_path / "plain.pdf")
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    with mpl.rc_context(fname=tmp_path / "matplotlibrc"):
        assert drawn(tmp_path / "styled.pdf") == plain


def test_figures_do_not_depend_on_a_users_backend(tmp_path):
    """MPLBACKEND, as notebooks set it, stops `slay figure`."""
    look = "import slay.report.style as s; print(s.plt.get_backend())"
    found = run(tmp_path, look, command=[sys.executable, "-c"], MPLBACKEND="nowhere")
    assert found.decode().strip().lower() == "agg"


TEX = r"""
\documentclass{article}
\usepackage{booktabs}
\begin{document}
Text, Section~\ref{sec:one} and \citet{one}.
\section{One}\label{sec:one}
\bibliographystyle{plain}
\bibliography{references}
\end{document}
""".replace(r"\citet", r"\cite")
LATEXMKRC = '$aux_dir = "aux"; $out_dir = "elsewhere"; $pdf_mode = 4; die "read";'


@pytest.mark.tex
def test_the_paper_does_not_depend_on_what_is_set_for_other_documents(tmp_path, monkeypatch):
    """References are undefined where the user has a .latexmkrc with another aux_dir."""
    styles = tmp_path / "home/texmf/tex/latex/mine"
    styles.mkdir(parents=True)
    (styles / "booktabs.sty").write_text(r"\errmessage{a user's own}")
    for name in ("home/.latexmkrc", "paper/.latexmkrc", "paper/latexmkrc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(LATEXMKRC)
    for name in ("TEXINPUTS", "BIBINPUTS", "BSTINPUTS", "TEXMFOUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("max_print_line", "1000")
    monkeypatch.setenv("openin_any", "p")
    monkeypatch.setenv("PERL5OPT", "-Mnowhere")
    monkeypatch.setenv("LC_ALL", "nowhere")
    (tmp_path / "paper/main.tex").write_text(TEX)
    entry = "@misc{one, title={One}, author={A}, year=2026}"
    (tmp_path / "paper/references.bib").write_text(entry)
    _typeset(tmp_path / "paper", epoch=0)
    assert (tmp_path / "paper/build/slay.pdf").read_bytes().startswith(b"%PDF")
    assert not (tmp_path / "paper/aux").exists()


def test_kernels_need_no_home(tmp_path):
    """Kernels end in a traceback for a user whose home folder is not there or read-only."""
    look = "import slay.ops.triton.launch\nfrom slay.ops.triton.verified import user_folder\n"
    look += "from triton import knobs; import os; os.environ.pop('HOME')\n"
    look += "import pwd; pwd.getpwuid = {}.__getitem__; print(knobs.cache.dir, user_folder())"
    given = {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    found = run(tmp_path, look, command=[sys.executable, "-c"], **given).decode().split()
    assert [Path(place).name for place in found] == ["triton", "devices"]
    assert all(place.startswith(f"{tmp_path}/slay-") for place in found)


def test_workers_need_no_short_tmpdir(tmp_path):
    """`slay train --num-workers 1` ends with "AF_UNIX path too long" where TMPDIR is long."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    words = "train --attention linear --embed-dim 8 --n-layers 1 --n-heads 1 --context-len 8"
    words += " --batch-size 1 --steps 1 --warmup 1 --num-workers 1 --threads 1"
    run(folder, *words.split(), TMPDIR=str(folder))


def test_a_server_without_a_place_for_its_socket_ends_quietly(tmp_path):
    """A long TMPDIR prints a traceback about AF_UNIX among the lines of a run."""
    serve = "from slay.pipeline import warm; warm.serve('x' * 200)"
    run(tmp_path, serve, command=[sys.executable, "-c"])
    assert not list(tmp_path.iterdir())
