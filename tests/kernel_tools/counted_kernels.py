"""Small kernels whose instructions can be counted by hand; prints their costs as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import torch
import triton
import triton.language as tl

from slay.kernel_tools.cost import cost_of
from slay.ops.triton.configs import Config, Kernel, recording

SIDE, ROUNDS, RUNS = 64, 3, 5


@triton.jit
def products(X, Y, runs, T: tl.constexpr, ROUNDS: tl.constexpr, EVEN: tl.constexpr):
    """exp2 of a sum of runs x ROUNDS products, of even programs only if `EVEN`."""
    place = tl.arange(0, T)[:, None] * T + tl.arange(0, T)[None, :]
    acc = tl.zeros((T, T), tl.float32)
    if not EVEN or tl.program_id(0) % 2 == 0:
        for i in range(runs):
            for j in range(ROUNDS):
                x = tl.load(X + (i * ROUNDS + j) * T * T + place)
                acc = tl.dot(x, x, acc)
        tl.store(Y + tl.program_id(0) * T * T + place, tl.exp2(acc))


@triton.jit
def strided(X, Y, runs, T: tl.constexpr):
    """Every 16th number of X, that is one of each piece of 32 bytes."""
    i = tl.program_id(0) * T + tl.arange(0, T)
    total = tl.zeros((T,), tl.float32)
    for j in range(runs):
        total += tl.load(X + 16 * (i + j * T))
    tl.store(Y + i, total)


@triton.jit
def data_dependent(X, Y, T: tl.constexpr):
    """A loop whose end is data."""
    i = tl.arange(0, T)
    total = tl.zeros((T,), tl.float32)
    for j in range(tl.load(X)):
        total += tl.load(Y + i + j)
    tl.store(Y + i, total)


def recorded(function, config, grid, **arguments):
    kernel = Kernel(function, lambda key: [config])
    with recording() as launches:
        kernel(grid, "test", 1, **arguments)
    (launch,) = launches
    return asdict(cost_of(launch, config, "sm_90", tokens=1))


def main():
    x, y = torch.empty(64, SIDE, SIDE, dtype=torch.bfloat16), torch.empty(64, SIDE, SIDE)
    number = torch.empty(1, dtype=torch.int32)
    tiles = (("T", SIDE),)
    found = {}
    for name, warps, stages, even in (
        ("two warps", 2, 1, False),
        ("pipelined", 2, 3, False),
        ("four warps", 4, 1, False),
        ("even", 2, 1, True),
    ):
        found[name] = recorded(
            products, Config(warps, stages, tiles), (6,), X=x, Y=y, runs=RUNS, ROUNDS=ROUNDS,
            EVEN=even,
        )  # fmt: skip
    found["twice as long"] = recorded(
        products, Config(2, 1, tiles), (6,), X=x, Y=y, runs=2 * RUNS, ROUNDS=ROUNDS, EVEN=False
    )
    found["strided"] = recorded(
        strided, Config(1, 1, (("T", 32),)), lambda tiles: (1000,), X=x, Y=y, runs=7
    )
    found["data"] = recorded(data_dependent, Config(1, 1, tiles), (1,), X=number, Y=y)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
