"""Every figure draws a real run, however small, and says so where there is nothing to draw."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import jinja2
import numpy as np
import pytest
from matplotlib import pyplot as plt

from slay import list_attention_types
from slay.config import load
from slay.experiments.run import run_job
from slay.jobs import expand, manifest
from slay.report.aggregate import collect, points, summarise
from slay.report.figures import draw_figure
from slay.report.results import MissingError, Results
from slay.report.shown import has_figure
from slay.report.sources import FIGURES
from slay.report.style import LOOKS, look, styled

NAMES = ["standard", "yat-spherical", "linear", "yat-performer-laplace", "yat-quadratic"]
TINY = {"head_dim": 4, "n_heads": 2}
KINDS = ["profile", "reconstruction", "entropy", "maps", "sphere", "decision"]
CONFIG = {
    "run": "tiny",
    "title": "tiny",
    "device": "cpu",
    "epsilon": 1e-3,
    "attention": NAMES,
    "experiments": {
        "quality": [TINY | {"seq_len": 16, "inputs": ["isotropic", "planted"], "seed": [0, 1]}],
        "scaling": [{"seq_len": [8, 16], "embed_dim": 8, "n_heads": 2}],
        "ablation": [TINY | {"seq_len": 16}],
        "analysis": [
            TINY | {"seq_len": 8, "kind": KINDS},
            TINY | {"attention": "yat-performer-laplace", "kind": "quadrature"},
        ],
        "language": [
            {"attention": ["linear", "standard"], "short_conv": [0, 4], "context_len": 16}
            | {"embed_dim": 8, "n_heads": 2, "n_layers": 1, "steps": 2, "eval_sequences": 2}
        ],
        "tasks": [
            {"task": ["copy", "kv_recall"], "seq_len": [8, 16], "steps": 2, "seed": [0, 1]}
            | {"batch_size": 4, "embed_dim": 8, "n_heads": 2, "n_layers": 1}
        ],
    },
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A run that was measured in this process."""
    folder = tmp_path_factory.mktemp("figures")
    data = folder / "results/tiny/data"
    data.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for experiment, jobs in expand(load(CONFIG)).items():
            for job in jobs:
                run_job(
                    job.params,
                    folder / job.path,
                    threads=1,
                    expected_code=None,
                    progress=lambda line: None,
                )
            (data / "manifest.json").write_text(manifest(jobs))
            rows = collect(data / "manifest.json")
            rows.to_csv(data / f"{experiment}.csv", index=False)
            summarise(rows).to_csv(data / f"{experiment}.summary.csv", index=False)
            points(rows).to_csv(data / f"{experiment}.curves.csv", index=False)
    (data.parent / "config.json").write_text(json.dumps(CONFIG))
    (data.parent / "mechanisms.json").write_text(json.dumps([{"name": name} for name in NAMES]))
    return Results(data.parent)


@pytest.mark.parametrize("name", FIGURES)
def test_the_report_has_a_caption_for_it(name):
    text = Path("workflow/report/figure.rst").read_text(encoding="utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined)
    assert template.render(snakemake={"wildcards": {"figure": name}}).strip()


@pytest.mark.parametrize("name", FIGURES)
def test_every_label_lies_on_the_page(name, results):
    with styled():
        figure = import_module(f"slay.report.figures.{name}").draw(results)
        figure.canvas.draw()
        page = figure.bbox
        boxes = [legend.get_window_extent() for legend in figure.legends]
        boxes += [text.get_window_extent() for axes in figure.axes for text in _texts(axes)]
        plt.close(figure)
    assert boxes
    for box in boxes:
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1
        assert box.y1 <= page.y1 + 1


def _texts(axes):
    texts = (axes.title, axes.xaxis.label, axes.yaxis.label)
    return [text for text in texts if text.get_text() and axes.axison]


def test_every_mechanism_looks_like_itself_in_colour_and_in_grey():
    assert set(LOOKS) >= set(list_attention_types())
    colours, markers = zip(*LOOKS.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(LOOKS)
    assert look("a-new-one") == look("a-new-one")


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_measured_is_said(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "mechanisms.json").write_text(json.dumps([{"name": name} for name in NAMES]))
    empty = Results(tmp_path)
    with pytest.raises(MissingError):
        import_module(f"slay.report.figures.{name}").draw(empty)
    draw_figure(name, empty, tmp_path / f"{name}.pdf")
    assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert np.ptp(plt.imread(tmp_path / f"{name}.png")) > 0.5  # there is something to read
    assert not has_figure(tmp_path / f"{name}.pdf")  # and the paper leaves it out
