"""Parameters of the kernel benchmark: one record per contestant, mode, shape and length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from slay.benchmarks.summary import BASELINE
from slay.pipeline.params import HeadDim, Params, Rounds, Whole
from slay.registry import ATTENTION

Implementation = Literal["triton", "torch", "flash", "cudnn", "fla"]
Mode = Literal["forward", "forward_backward", "decode", "training_step"]
Dtype = Literal["bfloat16", "float16", "float32"]
Contestant = tuple[str, Implementation]  # a mechanism, and what computes it

MAIN = "yat-performer-anchor"  # which most targets are about
SHORT = "yat-quadratic"  # the same, at training sizes
EXACT = "yat-spherical"
LONGEST = 131_072
MECHANISMS = (MAIN, SHORT, "yat-performer", "linear")
TRAINED = (SHORT, MAIN, "linear")  # in models, besides the baseline
LENGTHS = tuple(2**n for n in range(9, 18))  # 512, ..., 131072
BACKWARD_LENGTHS = (2048, 16_384, LONGEST)
CONTEXTS = (128, LONGEST)


class Shape(NamedTuple):
    """Shape of a batch without its length."""

    batch_size: int
    n_heads: int
    head_dim: int

    def at(self, length: int) -> tuple[int, int, int, int]:
        """Size of q with that many tokens: (B, H, L, d)."""
        return self.batch_size, self.n_heads, length, self.head_dim


class Batch(NamedTuple):
    """Batch of one training step: the number of sequences, and the tokens of each."""

    sequences: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.sequences}x{self.tokens}"


MODEL_HEADS, MODEL_HEAD_DIM = 12, 64  # of GPT-2 small
BATCHES = (Batch(16, 1024), Batch(1, 16_384), Batch(1, 65_536))


class KernelParams(Params):
    """One call: attention over heads by one backend."""

    experiment = "kernels"

    backend: Implementation = Field(
        "triton",
        description="Our kernels, our PyTorch code, PyTorch's fused kernels or fla's.",
    )
    seq_len: Whole = Field(LONGEST, description="Sequence length L; tokens before it in decoding.")
    mode: Mode = Field(
        "forward",
        description="The output, its gradients too, one token more, or a step of a model.",
    )
    dtype: Dtype = Field("bfloat16", description="Precision of q, k and v.")
    batch_size: Whole = Field(1, description="Sequences a batch.")
    n_heads: Whole = Field(8, description="Number of heads.")
    head_dim: HeadDim = Field(32, description="Dimension d of a head.")
    repeats: Rounds = Field(20, description="Rounds of a measurement, in turns.")

    @property
    def label(self) -> str:
        """Name of the contestant."""
        return f"{self.attention} by {self.backend}"

    @property
    def key(self) -> str:
        """Name of the contestant with mode, shape and length."""
        return f"{self.label}, {self.mode} of {self.batch_size} x {self.n_heads} heads of " + (
            f"{self.head_dim} at L = {self.seq_len:,}"
        )

    @property
    def shape(self) -> Shape:
        return Shape(self.batch_size, self.n_heads, self.head_dim)

    def needs_kernels(self, device: str) -> bool:
        return True  # they are what is measured

    def modules(self) -> list[str]:
        return ["slay.benchmarks.bench", ATTENTION.path(self.attention)]


class ModelParams(KernelParams):
    """One training step of a GPT: forward, backward and AdamW, under autocast."""

    n_layers: Whole = Field(12, description="Layers of the model.")
    vocab_size: Whole = Field(50_304, description="Tokens that the model knows.")


def params_of(data: dict[str, Any]) -> KernelParams:
    """Parse the parameters of a record."""
    return (ModelParams if data.get("mode") == "training_step" else KernelParams)(**data)


class TimingGroup(NamedTuple):
    """Mode, lengths and shape of the calls that are timed in the same rounds."""

    mode: Mode
    lengths: tuple[int, ...]
    shape: Shape
    fla: bool = False  # flash-linear-attention, against our kernels for the same features

    def __str__(self) -> str:
        shape = "{} x {} heads of {}".format(*self.shape)
        lengths = ", ".join(f"{length:,}" for length in self.lengths)
        fla = ", flash-linear-attention" if self.fla else ""
        return f"{self.mode} of {shape} at L = {lengths}{fla}"


@dataclass(frozen=True)
class BenchConfig:
    """Settings of one run of the benchmark."""

    base: KernelParams  # shapes, precision, options, device
    mechanisms: tuple[str, ...] = MECHANISMS
    lengths: tuple[int, ...] = LENGTHS
    backward_lengths: tuple[int, ...] = BACKWARD_LENGTHS
    contexts: tuple[int, ...] = CONTEXTS
    batches: tuple[Batch, ...] = BATCHES  # of a model's training step
    n_layers: int = 12
    vocab_size: int = 50_304
    seconds: float = 450.0  # groups that have not begun by then are left out
    command: str = ""

    @property
    def groups(self) -> list[TimingGroup]:
        """The groups, the most important first."""
        shape = self.base.shape
        forward = [TimingGroup("forward", (n,), shape) for n in _falling(self.lengths)]
        backward = [
            TimingGroup("forward_backward", (n,), shape) for n in _falling(self.backward_lengths)
        ]
        decode = [TimingGroup("decode", self.contexts, shape)] if self.contexts else []
        steps = [_of_model("training_step", batch) for batch in self.batches]
        inside = [_of_model("forward_backward", batch) for batch in self.batches]
        fla = [g._replace(fla=True) for g in (*forward[:1], *backward[:1], *inside[:2])]
        first = [*forward[:1], *backward[:1], *steps[:1], *inside[:1], *decode]
        return [*first, *forward[1:], *backward[1:], *steps[1:], *inside[1:], *fla]

    def contestants(self, group: TimingGroup) -> list[Contestant]:
        """Mechanisms and backends of a group, in the order of the tables."""
        fused: list[Contestant] = [(BASELINE, "flash"), (BASELINE, "cudnn")]
        if group.mode == "training_step":
            ours: Implementation = "triton" if self.base.device == "cuda" else "torch"
            return [*((name, ours) for name in self._known(TRAINED)), *fused[:1]]
        if group.fla:
            own_too: tuple[Implementation, ...] = ("triton", "fla")
            return [(name, by) for name in self._known((MAIN, "linear")) for by in own_too]
        if group.shape != self.base.shape:  # a model's
            return [*((name, "triton") for name in self._known(TRAINED)), *fused]
        contestants: list[Contestant] = [(name, "triton") for name in self.mechanisms]
        contestants += [(name, "torch") for name in self.mechanisms[:2]]  # it is slow
        if group.mode != "decode":  # an exact kernel would copy its keys and values
            contestants.append((EXACT, "triton"))
        return [*contestants, *fused]

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.mechanisms]

    def calls(self, group: TimingGroup) -> list[KernelParams]:
        """The calls that a group times."""
        contestants = self.contestants(group)
        return [self.params(group, n, who) for n in group.lengths for who in contestants]

    def params(self, group: TimingGroup, length: int, contestant: Contestant) -> KernelParams:
        """The parameters of a contestant's record."""
        attention, backend = contestant
        asked = {"mode": group.mode, "seq_len": length, "attention": attention, "backend": backend}
        data = {**self.base.model_dump(), **asked, **group.shape._asdict()}
        if group.mode == "training_step":
            return ModelParams(**data, n_layers=self.n_layers, vocab_size=self.vocab_size)
        return KernelParams(**data)


def _of_model(mode: Mode, batch: Batch) -> TimingGroup:
    return TimingGroup(mode, (batch.tokens,), Shape(batch.sequences, MODEL_HEADS, MODEL_HEAD_DIM))


def _falling(lengths: tuple[int, ...]) -> list[int]:
    return sorted(lengths, reverse=True)
