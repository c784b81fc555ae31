"""Each form's scores are the inner products of what it expands to, and so are its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slay.features.forms import Dense, Product, Square
from slay.features.workspace import Workspace


def draws(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


FORMS = {
    "dense": lambda t: Dense(next(t)),
    "square": lambda t: Square(next(t)),
    "product": lambda t: Product(Dense(next(t)), Dense(next(t)[..., :2])),
    "cubic": lambda t: Product(Square(next(t)), Dense(next(t))),
}
SIZES = {
    "dense": lambda n: n,
    "square": lambda n: n * (n + 1) // 2,
    "product": lambda n: 2 * n,
    "cubic": lambda n: n * n * (n + 1) // 2,
}
every_form = pytest.mark.parametrize("form", FORMS)
sizes = given(
    n=st.integers(2, 6), lq=st.integers(1, 5), lk=st.integers(1, 5), seed=st.integers(0, 999)
)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every_form
@sizes
def test_scores_are_inner_products(form, n, lq, lk, seed):
    q = FORMS[form](draws(seed, 2, 3, lq, n))
    k = FORMS[form](draws(seed + 1, 2, 3, lk, n))
    assert q.expand().shape == (2, 3, lq, SIZES[form](n))
    expected = q.expand() @ k.expand().mT
    assert_same(q.scores(k), expected)
    with torch.no_grad():
        work = Workspace()
        for _ in range(2):  # what a workspace held before does not matter
            assert_same(q.expand(work), q.expand())
            assert_same(q.scores(k, work), expected)


@every_form
@sizes
def test_pulled_gradients_are_those_of_autograd(form, n, lq, lk, seed):
    q = FORMS[form](draws(seed, 2, 3, lq, n))
    k = FORMS[form](draws(seed + 1, 2, 3, lk, n))
    gradients = draws(seed + 2, 2, 3, lq, SIZES[form](n))
    g, work = next(gradients).detach(), Workspace()
    expected = torch.autograd.grad(q.expand(), q.factors(), g)
    with torch.no_grad():
        assert_same(q.vjp(g, work), list(expected))
    g = torch.randn(2, 3, lq, lk, dtype=torch.float64)
    expected = torch.autograd.grad(q.scores(k), [*q.factors(), *k.factors()], g)
    with torch.no_grad():
        of_q, of_k = q.pull_scores(k, g, work)
    assert_same([*of_q, *of_k], list(expected))
