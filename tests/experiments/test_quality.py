"""What quality says of single rows, against a plain evaluation."""

from __future__ import annotations

import math

import pytest
import torch

import slay
from slay.experiments.quality import distribution, row_metrics, run
from slay.pipeline.params import QualityParams

SIGNED = [
    name for name in slay.list_attention_types() if not slay.get_attention_class(name).nonnegative
]


def measured(attention, **asked):
    settings = {"head_dim": 8, "seq_len": 40, "n_heads": 2, "device": "cpu", **asked}
    return run(QualityParams(attention=attention, **settings), lambda line: None)


def test_row_metrics_of_two_rows():
    exact = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    weights = torch.tensor([[1.0, 0.0], [-0.5, 1.5]])
    found = row_metrics(weights, exact, torch.tensor([2.0, -2.0]))
    assert found["row_tv"] == pytest.approx((0 + 1) / 2)
    assert found["nonpositive_share"] == 0.5
    assert found["min_normaliser"] == pytest.approx(-1 / 1.5)  # 2 / 1 and -2 / 2, over 1.5


def test_the_target_has_its_own_rows():
    assert measured("yat-spherical").metrics["row_tv"] < 1e-5


def test_total_variation_of_the_average_by_hand():
    asked = QualityParams(attention="uniform", head_dim=8, seq_len=40, n_heads=2, device="cpu")
    from slay.experiments.quality import draw_inputs

    q, k, _ = (t.double() for t in draw_inputs(asked, print))
    x = torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).mT
    kernel = x**2 / (2 + asked.epsilon - 2 * x)
    total = 0.0
    for i in range(40):
        p = kernel[..., i, : i + 1]
        p = p / p.sum(-1, keepdim=True)
        total += (p - 1 / (i + 1)).abs().sum(-1).mean().item() / 2
    assert run(asked, lambda line: None).metrics["row_tv"] == pytest.approx(total / 40, rel=1e-4)


@pytest.mark.parametrize("attention", slay.list_attention_types())
def test_positive_scores_have_positive_normalisers(attention):
    result = measured(attention)
    assert (result.curve[0]["share"], result.curve[-1]["share"]) == (0, 1)
    if attention not in SIGNED:
        assert result.metrics["nonpositive_share"] == 0
        assert result.metrics["row_tv"] <= 1 + 1e-6
    assert math.isfinite(result.metrics["min_normaliser"])


def test_some_signed_map_has_nonpositive_normalisers():
    shares = [
        measured(name, seed=seed).metrics["nonpositive_share"]
        for name in SIGNED
        for seed in range(3)
    ]
    assert max(shares) > 0


def test_a_distribution_goes_from_the_least_to_the_greatest():
    values = torch.randn(4, 300)
    points = distribution(values, 4)
    assert [point["share"] for point in points] == [0, 0.25, 0.5, 0.75, 1]
    found = [point["normaliser"] for point in points]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (values.min(), values.max())
    assert (values <= found[2]).float().mean() == 0.5
