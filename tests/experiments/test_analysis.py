"""The points of the pictures, against what is known of them; inputs of a trained model."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

import slay
from slay.errors import SlayError
from slay.experiments import analysis
from slay.experiments.trained import trained
from slay.features.elementwise import unit
from slay.pipeline.params import AnalysisParams, QualityParams

SMALL = {"head_dim": 8, "seq_len": 12, "n_heads": 2, "device": "cpu"}


def points(kind, attention="yat-spherical", **asked):
    params = AnalysisParams(attention=attention, kind=kind, **{**SMALL, **asked})
    return analysis.run(params, lambda line: None).curve


def test_every_kind_is_there():
    assert set(get_args(AnalysisParams.model_fields["kind"].annotation)) == set(analysis.KINDS)


@pytest.mark.parametrize("kind", sorted(set(analysis.KINDS) - {"quadrature"}))
@pytest.mark.parametrize("attention", slay.list_attention_types())
def test_every_mechanism_has_every_picture(kind, attention):
    rows = points(kind, attention)
    assert rows
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_the_profile_of_the_target_is_the_target():
    for row in points("profile"):
        assert row["kernel"] == pytest.approx(row["exact"], abs=1e-3 + 1e-3 * row["exact"])


def test_quadrature_converges_and_its_nodes_add_up():
    rows = points("quadrature", "yat-performer-laplace", options={"num_quadrature_nodes": 3})
    errors = [row["error"] for row in rows if "error" in row]
    assert errors == sorted(errors, reverse=True)
    assert {row["node"] for row in rows if "node" in row} == {1, 2, 3}
    middle = [row["share"] for row in rows if row.get("x") == pytest.approx(-1.0)]
    assert sum(middle) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(SlayError, match="num_quadrature_nodes"):
        points("quadrature", "linear")


def test_the_average_has_full_entropy_and_the_target_has_not():
    assert points("entropy", "uniform")[-1]["entropy"] == pytest.approx(1.0, abs=1e-5)
    sharp = points("entropy", seq_len=64, head_dim=32)
    assert sharp[-1]["entropy"] < 0.5 < sharp[0]["entropy"]
    assert sharp[-1]["weight"] > 0.9


def test_rows_of_a_map_sum_to_one_and_see_no_future():
    weights = torch.zeros(12, 12)
    for row in points("maps"):
        weights[row["i"], row["j"]] = row["weight"]
    assert torch.allclose(weights.sum(1), torch.ones(12), atol=1e-5)
    assert weights.triu(1).abs().max() == 0


def test_queries_of_a_trained_model_find_their_keys():
    asked = QualityParams(
        attention="linear", inputs="trained", seq_len=16, head_dim=16, device="cpu"
    )
    q, k, v = trained(asked, lambda line: None)
    assert q.shape == k.shape == v.shape == (8, 4, 16, 16)
    found = (unit(q) @ unit(k).mT).tril().amax(-1)[..., -4:].mean()
    noise = (unit(torch.randn_like(q)) @ unit(torch.randn_like(k)).mT).tril().amax(-1)
    assert found > noise[..., -4:].mean()


def test_a_model_that_learnt_nothing_is_refused(monkeypatch):
    monkeypatch.setattr("slay.experiments.trained.STEPS", 1)
    asked = QualityParams(
        attention="linear", inputs="trained", seq_len=64, head_dim=2, n_heads=1, device="cpu"
    )
    with pytest.raises(SlayError, match="accuracy of 0"):
        trained(asked, lambda line: None)
