"""Each form's scores are the inner products of what it expands to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slay.features.forms import Dense, Product, Square


def draws(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(*shape, generator=generator, dtype=torch.float64)


FORMS = {
    "dense": lambda t: Dense(next(t)),
    "product": lambda t: Product(next(t), next(t)[..., :2]),
    "square": lambda t: Square(next(t)),
}
SIZES = {"dense": lambda n: n, "product": lambda n: 2 * n, "square": lambda n: n * (n + 1) // 2}


@pytest.mark.parametrize("form", FORMS)
@given(n=st.integers(2, 6), lq=st.integers(1, 5), lk=st.integers(1, 5), seed=st.integers(0, 999))
def test_scores_are_inner_products(form, n, lq, lk, seed):
    q = FORMS[form](draws(seed, 2, 3, lq, n))
    k = FORMS[form](draws(seed + 1, 2, 3, lk, n))
    assert q.expand().shape == (2, 3, lq, SIZES[form](n))
    torch.testing.assert_close(q.scores(k), q.expand() @ k.expand().mT, rtol=1e-12, atol=1e-12)
