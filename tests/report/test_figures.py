"""Every figure draws a real run, however small, and says so where there is nothing to draw."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import jinja2
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.container import ErrorbarContainer

from slay import list_attention_types
from slay.experiments.run import run_job
from slay.pipeline.config import load
from slay.pipeline.jobs import expand, manifest
from slay.report.aggregate import collect, points, summarise
from slay.report.figures import draw_figure
from slay.report.figures.decision import FINER, finer
from slay.report.results import MissingError, Results
from slay.report.shown import has_figure
from slay.report.sources import FIGURES
from slay.report.style import LOOKS, look, styled

pytestmark = pytest.mark.xdist_group("figures")

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
                    planned=(),
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


@pytest.fixture(scope="module", params=FIGURES)
def figure(request, results):
    """Each figure, drawn."""
    with styled():
        drawn = import_module(f"slay.report.figures.{request.param}").draw(results)
        drawn.canvas.draw()
    yield drawn
    plt.close(drawn)


def test_every_label_lies_on_the_page(figure):
    page = figure.bbox
    boxes = [legend.get_window_extent() for legend in figure.legends]
    boxes += [text.get_window_extent() for axes in figure.axes for text in _texts(axes)]
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
    for aspect in ("colour", "dashes"):
        assert len({getattr(found, aspect) for found in LOOKS.values()}) >= len(LOOKS) - 1
    assert len({(found.marker, found.filled) for found in LOOKS.values()}) == len(LOOKS)
    assert look("a-new-one") == look("a-new-one")


def test_it_can_be_read_without_colour(figure):
    for axes in figure.axes:
        forms = {}
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            line = handle[0] if isinstance(handle, ErrorbarContainer) else handle
            hollow = str(line.get_markerfacecolor()) == "white"
            forms[label] = (line.get_marker(), hollow, line.get_linestyle())
        assert len(set(forms.values())) == len(forms), forms
        for image in [*axes.images, *axes.collections]:
            if image.get_array() is not None and image.cmap.N > 16:
                lightness = image.cmap(np.linspace(0, 1, 64))[:, :3] ** 2.2 @ (0.21, 0.72, 0.07)
                assert np.all(np.diff(lightness) > 0), image.cmap.name


@pytest.mark.parametrize("sharp", [None, 0.3, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_regions_between_the_points_of_a_grid_are_those_of_the_scores(seed, sharp):
    neurons = np.random.default_rng(seed).uniform(-1, 1, (4, 2))

    def scores(number):
        axis = np.linspace(-1, 1, number)
        u = np.stack(np.meshgrid(axis, axis), axis=-1)
        distance = ((u[:, :, None] - neurons) ** 2).sum(-1)
        return u @ neurons.T if sharp is None else 1 / (1 + 1 / (sharp + distance))

    coarse, fine = scores(31), scores(30 * FINER + 1)
    winner, _ = finer(coarse.argmax(-1), coarse.max(-1))
    assert np.mean(winner != fine.argmax(-1)) < 2e-3


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
