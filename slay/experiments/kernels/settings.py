"""What a benchmark of kernels measures: one record a contestant, mode and length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from slay.params import HeadDim, Option, Params, Rounds, Whole
from slay.registry import ATTENTION

Backend = Literal["triton", "torch", "flash", "cudnn", "fla"]
Mode = Literal["forward", "forward_backward", "decode"]
Dtype = Literal["bfloat16", "float16", "float32"]

MAIN = "yat-performer-anchor"  # whose speed the targets are about
EXACT = "yat-spherical"
OPPONENT = "standard"
LONGEST = 131_072
MECHANISMS = (MAIN, "yat-quadratic", "yat-performer", "linear")
LENGTHS = tuple(2**n for n in range(9, 18))  # 512, ..., 131072
BACKWARD_LENGTHS = (2048, 16_384, LONGEST)
CONTEXTS = (128, LONGEST)


class KernelParams(Params):
    """One call: attention over heads by one backend."""

    experiment = "kernels"

    backend: Backend = Field(
        "triton",
        description="Our kernels, our PyTorch code, PyTorch's fused kernels or fla's.",
    )
    seq_len: Whole = Field(LONGEST, description="Sequence length L; tokens before it in decoding.")
    mode: Mode = Field("forward", description="The output, its gradients too, or one token more.")
    dtype: Dtype = Field("bfloat16", description="Of q, k and v.")
    batch_size: Whole = Field(1, description="Sequences a batch.")
    n_heads: Whole = Field(8, description="Number of heads.")
    head_dim: HeadDim = Field(32, description="Dimension d of a head, and of its values.")
    repeats: Rounds = Field(20, description="Rounds of a measurement, in turns.")

    @property
    def label(self) -> str:
        """Who is timed."""
        return f"{self.attention} by {self.backend}"

    def modules(self) -> list[str]:
        return ["slay.experiments.kernels.bench", ATTENTION.module(self.attention)]


@dataclass(frozen=True)
class Bench:
    """Everything that one run of the benchmark measures."""

    base: KernelParams  # shapes, precision, device
    mechanisms: tuple[str, ...] = MECHANISMS
    lengths: tuple[int, ...] = LENGTHS
    backward_lengths: tuple[int, ...] = BACKWARD_LENGTHS
    contexts: tuple[int, ...] = CONTEXTS
    options: dict[str, Option] = field(default_factory=dict)
    seconds: float = 450.0  # what has not begun by then is left out
    command: str = ""

    @property
    def groups(self) -> list[tuple[Mode, tuple[int, ...]]]:
        """What is timed in the same rounds, what matters most first."""
        forward: list[tuple[Mode, tuple[int, ...]]] = [("forward", (n,)) for n in self.lengths]
        backward: list[tuple[Mode, tuple[int, ...]]] = [
            ("forward_backward", (n,)) for n in self.backward_lengths
        ]
        decode: list[tuple[Mode, tuple[int, ...]]] = [("decode", self.contexts)]
        first = [*_longest(forward), *_longest(backward), *(decode if self.contexts else [])]
        rest = [g for g in (*forward, *backward) if g not in first]
        return [*first, *sorted(rest, key=lambda g: (g[0], -g[1][0]))]

    @property
    def longest(self) -> int:
        return max((*self.lengths, *self.backward_lengths, *self.contexts))

    def contestants(self, mode: Mode) -> list[tuple[str, Backend]]:
        """Mechanisms and what computes them, in the order of every table."""
        ours: list[tuple[str, Backend]] = [(name, "triton") for name in self.mechanisms]
        ours += [(name, "torch") for name in self.mechanisms]
        others: list[tuple[str, Backend]] = [(OPPONENT, "flash"), (OPPONENT, "cudnn")]
        if mode == "decode":  # exact kernels carry keys and values, and fla's decode by others
            return [*ours, *others]
        fla: list[tuple[str, Backend]] = [(name, "fla") for name in self.mechanisms]
        return [*ours, (EXACT, "triton"), *others, *fla]

    def params(self, mode: Mode, length: int, attention: str, backend: Backend) -> KernelParams:
        asked = {"mode": mode, "seq_len": length, "attention": attention, "backend": backend}
        return KernelParams(**{**self.base.model_dump(), **asked})


def _longest(groups: list[tuple[Mode, tuple[int, ...]]]) -> list[tuple[Mode, tuple[int, ...]]]:
    return [max(groups, key=lambda g: g[1])] if groups else []
