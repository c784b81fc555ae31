"""Cases of `slay kernels verify`: mechanisms that cover every class of kernel calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# One token, less than a tile, several tiles, more than a chunk, and a length that divides evenly:
# Triton specialises code for multiples of 16.
LENGTHS = (1, 77, 1531, 2200, 2048)
DIMENSIONS = (32, 64, 128)
HALF, FULL = ("bfloat16", "float16"), ("float32",)


@dataclass(frozen=True)
class Case:
    """A mechanism over heads that kernels compute; its calls determine its classes of calls."""

    mechanism: str
    head_dim: int
    value_dim: int
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = LENGTHS

    def __str__(self) -> str:
        return f"{self.mechanism} d={self.head_dim} e={self.value_dim} {self.dtype}"


# The most used mechanisms come first, because the rest is not verified if time runs out.
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
CUBIC = (16, 32)  # head dimensions at which there are not too many cubic features


def default_cases() -> Iterator[Case]:
    """Cases of all mechanisms that have kernels, half precision first."""
    for dtypes in (HALF, FULL):
        for name, head_dim in (
            *((name, d) for d in DIMENSIONS for name in FIRST),
            *((name, d) for d in DIMENSIONS for name in OTHERS),
            *(("yat-cubic", d) for d in CUBIC),
        ):
            yield from (Case(name, head_dim, head_dim, dtype) for dtype in dtypes)
