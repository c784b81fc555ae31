"""Two small kernels, compiled for Hopper as if one were there; prints what came of it as JSON.

Run with arguments out of "ours", "theirs" and "launched": who compiles, one after another.
"""

from __future__ import annotations

import json
import sys

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from slay.ops.triton import assembler

TARGET = GPUTarget("cuda", 90, 32)


@triton.jit
def chained(Q, K, V, Y, T: tl.constexpr):
    """exp(q k^T) v: the left operand of the second product is a result, in registers."""
    i, j = tl.arange(0, T)[:, None] * T, tl.arange(0, T)[None, :]
    scores = tl.exp(tl.dot(tl.load(Q + i + j), tl.load(K + i + j).T))
    tl.store(Y + i + j, tl.dot(scores.to(tl.bfloat16), tl.load(V + i + j)))


@triton.jit
def single(Q, K, V, Y, T: tl.constexpr):
    """q k^T + v: both operands are loaded, into shared memory."""
    i, j = tl.arange(0, T)[:, None] * T, tl.arange(0, T)[None, :]
    tl.store(Y + i + j, tl.dot(tl.load(Q + i + j), tl.load(K + i + j).T) + tl.load(V + i + j))


class Pretended:
    """As much of a device as Triton asks for before it launches."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return TARGET


def compiled(kernel, warps):
    types = {"Q": "*bf16", "K": "*bf16", "V": "*bf16", "Y": "*fp32", "T": "constexpr"}
    attributes = {(i,): [["tt.divisibility", 16]] for i in range(4)}
    source = ASTSource(kernel, types, {(4,): 64}, attributes)
    return triton.compile(source, target=TARGET, options={"num_warps": warps})


def launched(kernel, warps):
    from triton.runtime.driver import driver

    driver.set_active(Pretended())
    types = [torch.bfloat16] * 3 + [torch.float32]
    return assembler.adopt(kernel).warmup(*types, 64, grid=(1,), num_warps=warps)


def facts(made):
    ptx = made.asm["ptx"]
    return {
        "hash": made.hash,
        "ptx": next(line for line in ptx.splitlines() if line.startswith(".version")),
        "wgmma": "wgmma.mma_async" in ptx,
        "registers": assembler.has_register_operand(ptx),
        "objection": assembler.objection(ptx, (12, 8, 93)),
    }


def main():
    for who in sys.argv[1:]:
        if who == "ours":
            with assembler.used():
                made = compiled(chained, 4)
        else:
            made = {"theirs": compiled, "launched": launched}[who](chained, 4)
        print(json.dumps(facts(made)))
    if not sys.argv[1:]:
        for kernel, warps in ((chained, 4), (chained, 2), (single, 4)):
            print(json.dumps(facts(compiled(kernel, warps))))


if __name__ == "__main__":
    main()
