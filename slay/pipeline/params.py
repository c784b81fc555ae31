"""Parameters of jobs: one typed class per experiment.

Command lines, configuration files and records are all derived from these classes.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from slay import fields
from slay.epsilon import MEASURED_EPSILON
from slay.fields import HeadDim, Options, Positive, Rounds, Seed, Whole, heads_divide
from slay.pipeline import texts
from slay.registry import ATTENTION, EXPERIMENTS, INPUTS, TASKS


def word(text: str) -> str:
    """Make text usable in a file name; if characters are replaced, a digest keeps it unique."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:100]
    if plain == text:
        return text
    return f"{plain.strip('-.')}-{sha256(text.encode()).hexdigest()[:6]}"


class Params(BaseModel):
    """Parameters that all experiments share."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    experiment: ClassVar[str]

    attention: fields.Mechanism
    options: Options = Field({}, description="An option of the mechanism.")
    epsilon: fields.Epsilon = MEASURED_EPSILON
    device: fields.Device = "auto"

    @field_validator("options")
    @classmethod
    def _not_the_experiments_own(cls, options: Options) -> Options:
        for name in ("causal", "embed_dim", "n_heads", "project", "seed"):
            if name in options:
                raise ValueError(f"gives {name!r}, which the experiment itself sets")
        return options

    def place(self) -> str:
        """Path of the record relative to its experiment's folder, without the variant."""
        raise NotImplementedError

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that the job may run on; with "auto", the machine that runs it decides."""
        return ("cpu", "cuda") if self.device == "auto" else (self.device,)

    def needs_kernels(self, device: str) -> bool:
        """Return True if Triton kernels may run: on a GPU, or if the job requests them.

        The result then depends on their code too.
        """
        return device == "cuda" or self.options.get("backend") == "triton"

    def modules(self) -> list[str]:
        """Modules or registry entries whose import closure the job depends on."""
        return [EXPERIMENTS.path(self.experiment), ATTENTION.path(self.attention)]

    def files(self) -> list[str]:
        """Files that the job reads, existing or not; their contents are part of its fingerprint."""
        return []


class QualityParams(Params):
    """Error of a mechanism against exact spherical Yat attention."""

    experiment = "quality"

    inputs: Literal["isotropic", "planted", "trained"] = Field(
        "isotropic",
        description="Queries independent of keys, each at cosine 0.8 with one, or of a model.",
    )
    head_dim: HeadDim = Field(32, description="Dimension d of a head.")
    seq_len: Whole = Field(1024, description="Sequence length L.")
    n_heads: Whole = Field(4, description="Number of heads, each with its own draw.")
    seed: Seed = Field(0, description="Seed of the inputs and of the random features.")

    def place(self) -> str:
        setting = f"{self.inputs}-d{self.head_dim}-L{self.seq_len}"
        return f"{self.attention}/{setting}/seed{self.seed}"

    def modules(self) -> list[str]:
        modules = [*super().modules(), ATTENTION.path("yat-spherical")]
        if self.inputs == "trained":
            modules += [INPUTS.path("trained"), TASKS.path("induction")]
        return modules


class AblationParams(QualityParams):
    """Error and latency of a mechanism by its number of features."""

    experiment = "ablation"

    repeats: Rounds = Field(10, description="Timed rounds, after two or more to warm up.")

    def modules(self) -> list[str]:
        return [*super().modules(), ATTENTION.path("standard")]


class ScalingParams(Params):
    """Latency and memory, timed in turns with `standard`."""

    experiment = "scaling"

    seq_len: Whole = Field(4096, description="Sequence length L.")
    mode: Literal["forward", "forward_backward", "decode"] = Field(
        "forward",
        description="What is timed: the output, its gradients too, or one token after L others.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision.")
    batch_size: Whole = Field(1, description="Batch size.")
    embed_dim: Whole = Field(256, description="Width of all heads together.")
    n_heads: Whole = Field(8, description="Number of heads.")
    repeats: Rounds = Field(10, description="Timed rounds, after two or more to warm up.")
    max_seconds: Positive = Field(120.0, description="Give up if the rounds would take longer.")

    _heads_divide = model_validator(mode="after")(heads_divide)

    def place(self) -> str:
        return f"{self.attention}/{self.mode}-{self.dtype}/L{self.seq_len}"

    def modules(self) -> list[str]:
        return [*super().modules(), ATTENTION.path("standard")]


class MaxContextParams(Params):
    """The longest context that fits into a memory budget."""

    experiment = "max_context"

    memory_mb: Whole = Field(64, description="Budget in MiB: inputs, temporaries and result.")
    mode: Literal["forward", "forward_backward"] = Field(
        "forward", description="What has to fit: the output alone, or its gradients too."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision.")
    batch_size: Whole = Field(1, description="Batch size.")
    embed_dim: Whole = Field(256, description="Width of all heads together.")
    n_heads: Whole = Field(8, description="Number of heads.")
    max_len: Annotated[Whole, Field(ge=64, multiple_of=64)] = Field(
        131072, description="Longest length to try, a multiple of 64."
    )
    max_seconds: Positive = Field(5.0, description="Skip lengths whose probe would take longer.")

    _heads_divide = model_validator(mode="after")(heads_divide)

    def place(self) -> str:
        return f"{self.attention}/{self.mode}-{self.dtype}/{self.memory_mb}MiB"


class TaskParams(Params):
    """Train a small model on a synthetic task, and score it."""

    experiment = "tasks"

    task: str = Field(description="Task to train on (see `slay tasks`).")
    seq_len: Whole = Field(32, description="Sequence length L.")
    seed: Seed = Field(0, description="Seed of the data and of the model.")
    steps: Whole = Field(400, description="Maximum number of optimiser steps.")
    batch_size: Whole = Field(64, description="Sequences per step.")
    lr: fields.LearningRate = 3e-3
    sweep: Whole = Field(
        1, description="Rates to try around lr, each 3 times the last; validation chooses."
    )
    warmup: Annotated[fields.Warmup, Field(ge=1, lt=2**31)] = 50
    n_layers: fields.Layers = 2
    embed_dim: fields.ModelWidth = 64
    n_heads: fields.HeadsPerLayer = 4

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        return TASKS.canonical(name)

    def place(self) -> str:
        return f"{self.attention}/{self.task}-L{self.seq_len}/seed{self.seed}"

    def modules(self) -> list[str]:
        return [*super().modules(), TASKS.path(self.task)]


class LanguageParams(Params):
    """Train a language model, and score it on held-out text."""

    experiment = "language"

    data: Annotated[fields.Data, AfterValidator(fields.line), Field(min_length=1)] = "stdlib"
    eval_data: Annotated[fields.EvalData, AfterValidator(fields.line)] = ""
    tokenizer: Annotated[fields.Tokenizer, AfterValidator(fields.line)] = ""
    seed: Seed = Field(0, description="Seed of the weights and of the data's order.")
    short_conv: fields.ShortConv = 0
    context_len: fields.ContextLen = 128
    embed_dim: fields.ModelWidth = 128
    n_layers: fields.Layers = 4
    n_heads: fields.HeadsPerLayer = 4
    dropout: fields.Dropout = 0.0
    steps: fields.Steps = 600
    warmup: Annotated[fields.Warmup, Field(ge=1, lt=2**31)] = 50
    batch_size: fields.BatchSize = 16
    gradient_accumulation_steps: fields.MicroBatches = 1
    lr: fields.LearningRate = 4e-3
    precision: fields.Precision = "fp32"
    gradient_checkpointing: fields.Checkpointing = False
    eval_every: Whole = Field(100, description="Steps between points of the curve.")
    eval_sequences: Whole = Field(256, description="Sequences per point of the curve.")
    processes: Whole = Field(1, description="Processes; more than one run through DeepSpeed.")

    _heads_divide = model_validator(mode="after")(heads_divide)

    def place(self) -> str:
        conv = f"-conv{self.short_conv}" if self.short_conv else ""
        return f"{self.attention}/{word(self.data)}-L{self.context_len}{conv}/seed{self.seed}"

    def modules(self) -> list[str]:
        return [*super().modules(), "slay.training.language.__main__"]

    def files(self) -> list[str]:
        return texts.files_of(self.data, self.eval_data, self.tokenizer)


class AnalysisParams(Params):
    """Compute the data for a figure of a mechanism."""

    experiment = "analysis"

    kind: Literal[
        "profile", "quadrature", "reconstruction", "entropy", "maps", "sphere", "decision"
    ] = Field("profile", description="What to compute.")
    head_dim: HeadDim = Field(32, description="Dimension d of a head, where it is free.")
    seq_len: Whole = Field(48, description="Tokens of a map, keys of a row.")
    n_heads: Whole = Field(8, description="Number of heads, each with its own draw.")
    seed: Seed = Field(0, description="Seed of the inputs and of the random features.")

    def place(self) -> str:
        return f"{self.attention}/{self.kind}-d{self.head_dim}-L{self.seq_len}/seed{self.seed}"

    def modules(self) -> list[str]:
        return [*super().modules(), ATTENTION.path("yat-spherical")]


PARAMS: dict[str, type[Params]] = {
    cls.experiment: cls
    for cls in (
        QualityParams,
        ScalingParams,
        AblationParams,
        MaxContextParams,
        TaskParams,
        AnalysisParams,
        LanguageParams,
    )
}
