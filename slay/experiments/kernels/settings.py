"""What a benchmark of kernels measures: one record a contestant, mode and length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field

from slay.params import HeadDim, Params, Rounds, Whole
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

    def needs_kernels(self, device: str) -> bool:
        return True  # they are what is measured

    def modules(self) -> list[str]:
        return ["slay.experiments.kernels.bench", ATTENTION.path(self.attention)]


class Group(NamedTuple):
    """What is timed in the same rounds."""

    mode: Mode
    lengths: tuple[int, ...]
    fla: bool = False  # flash-linear-attention, beside our kernels for the same features


@dataclass(frozen=True)
class Bench:
    """Everything that one run of the benchmark measures."""

    base: KernelParams  # shapes, precision, options, device
    mechanisms: tuple[str, ...] = MECHANISMS
    lengths: tuple[int, ...] = LENGTHS
    backward_lengths: tuple[int, ...] = BACKWARD_LENGTHS
    contexts: tuple[int, ...] = CONTEXTS
    seconds: float = 450.0  # what has not begun by then is left out
    command: str = ""

    @property
    def groups(self) -> list[Group]:
        """What is timed in the same rounds; what matters most first, what compiles longest last."""
        forward = [Group("forward", (n,)) for n in sorted(self.lengths, reverse=True)]
        backward = [
            Group("forward_backward", (n,)) for n in sorted(self.backward_lengths, reverse=True)
        ]
        decode = [Group("decode", self.contexts)] if self.contexts else []
        fla = [group._replace(fla=True) for group in (*forward[:1], *backward[:1])]
        return [*forward[:1], *backward[:1], *decode, *forward[1:], *backward[1:], *fla]

    def contestants(self, group: Group) -> list[tuple[str, Backend]]:
        """Mechanisms and what computes them, in the order of every table."""
        if group.fla:
            some = [name for name in (MAIN, "linear") if name in self.mechanisms]
            return [(name, backend) for name in some for backend in ("triton", "fla")]
        ours: list[tuple[str, Backend]] = [(name, "triton") for name in self.mechanisms]
        ours += [(name, "torch") for name in self.mechanisms[:2]]  # it takes long
        if group.mode != "decode":  # an exact kernel would copy its keys and values
            ours.append((EXACT, "triton"))
        return [*ours, (OPPONENT, "flash"), (OPPONENT, "cudnn")]

    def params(self, mode: Mode, length: int, attention: str, backend: Backend) -> KernelParams:
        asked = {"mode": mode, "seq_len": length, "attention": attention, "backend": backend}
        return KernelParams(**{**self.base.model_dump(), **asked})
