"""Compile-time sizes of the linear attention kernels, and the layout of states.

A state is S = sum_j phi(k_j) v_jᵀ, (rows, EP), and its sums s = sum_j phi(k_j). Rows come in groups
of W, each computed by one small matrix product:

- "dense": group J is columns J W, ..., of F;
- "product": group a is P_a F;
- "polynomial", of u = F: the groups (a, J) are u_a u_j of a block J of W columns, for the a in
  block J and before it; the others follow by symmetry, so that those before it have weight 2 when
  read. Cubics add u_i u_j u with j <= i; u and 1 come last. Coefficients are applied when a state
  is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

# Kernels depend on this file's properties, which Triton's cache key does not cover.
CODE = sha256(Path(__file__).read_bytes()).hexdigest()[:16]
PRECISIONS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
LONGEST_TILE = 128  # tokens, of any configuration; chunks are multiples of it


@dataclass(frozen=True)
class Tiling:
    """Compile-time sizes; those that end in P are padded to powers of two."""

    score: str  # "dense", "product" or "polynomial"
    degree: int
    A: int  # columns of P
    AP: int
    B: int  # columns of F
    BP: int
    W: int  # columns of F in one group of state rows
    E: int  # value dimension
    EP: int
    coefficients: tuple[float, ...]  # c0, ..., c3
    tokens: str  # the precision of values and outputs: "bf16", "fp16" or "fp32"
    dtype: Any  # of the large matrix products: tl.bfloat16 or tl.float32
    precision: str  # of float32 products
    fine: bool  # keep F in float32, where half precision is not enough
    code: str = CODE

    @property
    def key(self) -> str:
        """Key of the call class for which configurations are verified and chosen."""
        factors = f"{self.AP}x{self.BP}" if self.score == "product" else f"{self.BP}"
        degree = self.degree or ""
        return f"{self.score}{degree} {factors} values {self.EP} {self.tokens}"

    @property
    def blocks(self) -> int:
        """Blocks of W columns of F."""
        return self.BP // self.W

    @property
    def score_width(self) -> int:
        """Columns of F in one matrix product of the scores."""
        if self.dtype == tl.bfloat16:
            return min(self.BP, 128)
        return self.BP if self.BP <= 64 else 32

    @property
    def gradient_width(self) -> int:
        """Columns of F whose gradients are computed at once, limited by registers."""
        return 32 if self.BP >= 128 else min(self.BP, 64)

    @property
    def square_groups(self) -> int:
        """Groups (a, J) of a polynomial."""
        return self.W * self.blocks * (self.blocks + 1) // 2

    @property
    def pairs(self) -> int:
        """Number of pairs j <= i, one for each group u_i u_j u of a cubic."""
        return self.B * (self.B + 1) // 2 if self.degree == 3 else 0

    @property
    def groups(self) -> int:
        """Groups distributed over the programs of `chunk_state`."""
        if self.score == "polynomial":
            return self.square_groups + self.pairs
        return self.blocks if self.score == "dense" else self.A

    @property
    def linear_row(self) -> int:
        """First row of the linear terms u; the row of the constant 1 follows them."""
        return self.groups * self.W

    @property
    def rows(self) -> int:
        """Rows of S."""
        extra = self.BP + 1 if self.score == "polynomial" else 0
        return self.groups * self.W + extra

    @property
    def sums(self) -> int:
        """Elements of s: as `rows`, but with the full square u uᵀ, and P padded."""
        if self.score == "polynomial":
            return self.BP * self.BP + self.BP + 1 + self.pairs * self.W
        return self.BP if self.score == "dense" else self.AP * self.W

    @property
    def c0(self) -> float:
        return self.coefficients[0]

    @property
    def c1(self) -> float:
        return self.coefficients[1]

    @property
    def c2(self) -> float:
        return self.coefficients[2]

    @property
    def c3(self) -> float:
        return self.coefficients[3]

    @property
    def root_beta(self) -> float:
        """sqrt(beta) of (x + beta)^2, and of (x + beta)^2 (1 + x)."""
        beta = self.c1 / 2 if self.degree == 2 else (self.c2 - 1) / 2
        return math.sqrt(max(0.0, beta))

    @property
    def letters(self) -> int:
        """Number of coordinates whose pairs are features: those of u, and sqrt beta if not 0."""
        return self.B + 1 if self.root_beta > 0.0 else self.B

    @property
    def features(self) -> int:
        """m, without padding and symmetric duplicates."""
        if self.score == "polynomial":
            n = self.letters
            return n * (n + 1) // 2 * (self.B + 1 if self.degree == 3 else 1)
        return self.A * self.B

    @property
    def score_columns(self) -> int:
        """Columns of the factors of a score."""
        return self.B + (self.A if self.score == "product" else 0)


@lru_cache(maxsize=256)
def tiling_of(
    score: str,
    degree: int,
    coefficients: tuple[float, ...],
    widths: tuple[int, int],
    value_dim: int,
    dtype: torch.dtype,
) -> Tiling:
    """The tiling for factors of those widths and tokens of that dtype."""
    a, b = widths
    half = dtype in (torch.bfloat16, torch.float16)
    bp = max(16, triton.next_power_of_2(b))
    return Tiling(
        score=score,
        degree=degree,
        A=a,
        AP=max(16, triton.next_power_of_2(a)),
        B=b,
        BP=bp,
        W=min(bp, 32 if score == "polynomial" else 64),
        E=value_dim,
        EP=max(16, triton.next_power_of_2(value_dim)),
        coefficients=coefficients,
        tokens=PRECISIONS[dtype],
        dtype=tl.bfloat16 if half else tl.float32,  # fp16 overflows where sums are long
        precision="tf32" if half else "tf32x3",
        fine=not half or (score == "polynomial" and (degree == 3 or bp == 16)),
    )


def value_columns(value_dim: int, dtype: torch.dtype) -> list[int]:
    """Value columns of each call, limited by registers for their accumulators."""
    calls = math.ceil(value_dim / (64 if dtype == torch.float32 else 128))
    return [value_dim // calls + (i < value_dim % calls) for i in range(calls)]


def direct_length(M: Tiling) -> int:
    """Sequence length up to which direct scores cost less than a state.

    That is C (w + e) / 2 <= 2 m e products per token.
    """
    return 4 * M.features * M.E // (M.score_columns + M.E)


def chunk_length(M: Tiling, itemsize: int) -> int:
    """Tokens per chunk, so that states take at most 1.1 times the memory of q, k, v and y.

    Passing on more states would cost more than shorter chunks save.
    """
    state = M.rows * M.EP * (2 if M.dtype == tl.bfloat16 else 4) + 4 * M.sums
    token = 2 * itemsize * (M.B + M.E)
    return max(LONGEST_TILE, triton.next_power_of_2(math.ceil(state / (1.1 * token))))
