"""What `slay kernels verify` tries: mechanisms that make every class of calls that kernels know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# A token, less than a tile, more than some tiles, more than a chunk, and one that divides evenly:
# Triton compiles other code for multiples of 16.
LENGTHS = (1, 77, 1531, 2200, 2048)
DIMENSIONS = (32, 64, 128)
HALF, FULL = ("bfloat16", "float16"), ("float32",)


@dataclass(frozen=True)
class Case:
    """A mechanism over heads that kernels compute. Its calls say which classes it makes."""

    mechanism: str
    head_dim: int
    value_dim: int
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = LENGTHS

    def __str__(self) -> str:
        return f"{self.mechanism} d={self.head_dim} e={self.value_dim} {self.dtype}"


# What people train first; where time ends, the rest was not verified.
FIRST = ("yat-performer-anchor", "yat-quadratic", "yat-spherical", "linear", "yat-performer")
OTHERS = (
    "performer",
    "cosformer",
    "rff",
    "yat-performer-laplace",
    "yat-performer-nystrom",
    "yat-performer-rm",
    "yat-performer-tensor",
    "uniform",
)
CUBIC = (16, 32)  # heads whose features of the third degree are not too many


def default_cases() -> Iterator[Case]:
    """The cases of all mechanisms that have kernels, those of half precision first."""
    for dtypes in (HALF, FULL):
        for name, head_dim in (
            *((name, d) for d in DIMENSIONS for name in FIRST),
            *((name, d) for d in DIMENSIONS for name in OTHERS),
            *(("yat-cubic", d) for d in CUBIC),
        ):
            yield from (Case(name, head_dim, head_dim, dtype) for dtype in dtypes)
