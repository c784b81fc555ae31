"""Configuration of a language model's training: the model, the optimisation, the text, the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slay import fields
from slay.epsilon import MEASURED_EPSILON
from slay.errors import SlayError, unknown
from slay.fields import Count, Positive, Seed, Whole
from slay.pipeline.config import error_line


class Part(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Part):
    """The model."""

    attention: fields.Mechanism = "performer"
    options: fields.Options = Field(
        {}, description="An option of the mechanism, such as its features."
    )
    epsilon: fields.Epsilon = MEASURED_EPSILON
    context_len: fields.ContextLen = 1024
    embed_dim: fields.ModelWidth = 768
    n_layers: fields.Layers = 12
    n_heads: fields.HeadsPerLayer = 12
    short_conv: fields.ShortConv = 0
    positions: fields.Positions = Field("learned", description="Kind of positions.")
    mlp: fields.Mlp = Field("gelu", description="Kind of MLP.")
    tie_head: bool = Field(True, description="Tie the output head to the embedding.")
    dropout: fields.Dropout = 0.1
    gradient_checkpointing: fields.Checkpointing = False

    _heads_divide = model_validator(mode="after")(fields.heads_divide)


class OptimConfig(Part):
    """The optimisation. A step is the optimiser's, on one batch of all processes together."""

    lr: fields.LearningRate = 3e-4
    warmup: fields.Warmup = 2000
    steps: fields.Steps = 20000
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Weight decay of matrices."
    )
    clip: Positive = Field(1.0, description="Maximum gradient norm.")
    batch_size: fields.BatchSize = 64
    batch_start: Count = Field(0, description="Sequences per step at the start; 0: batch-size.")
    batch_ramp_steps: Count = Field(0, description="Steps over which the batch grows.")
    gradient_accumulation_steps: fields.MicroBatches = 1
    precision: fields.Precision = "fp32"
    zero_stage: Annotated[int, Field(strict=True, ge=0, le=3)] | None = Field(
        None, description="DeepSpeed's ZeRO stage, over that of its configuration file."
    )
    deepspeed_config: str = Field("", description="A DeepSpeed configuration file to start from.")
    seed: Seed = Field(0, description="Seed of weights, data order and dropout.")

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size = {self.batch_size} does not divide into "
                f"gradient_accumulation_steps = {self.gradient_accumulation_steps} pieces"
            )
        if self.batch_start > self.batch_size:
            raise ValueError(
                f"batch_start = {self.batch_start} is above batch_size = {self.batch_size}"
            )
        return self


class TextConfig(Part):
    """The text."""

    data: fields.Data = "stdlib"
    eval_data: fields.EvalData = ""
    tokenizer: fields.Tokenizer = ""


class RunConfig(Part):
    """Where the run computes, and where and how often it reports: may change on resume."""

    run_name: str = Field("", description="Name of the run. Default: the mechanism's.")
    checkpoint_dir: str = Field("checkpoints", description="Folder of runs' checkpoints.")
    log_dir: str = Field("logs", description="Folder of runs' metrics.")
    resume_from: str = Field("", description="A checkpoint to start from, of this run or another.")
    save_every: Count = Field(1000, description="Steps between checkpoints; 0: at the end only.")
    keep: Whole = Field(3, description="Checkpoints to keep.")
    log_every: Whole = Field(10, description="Steps between log lines.")
    eval_every: Count = Field(500, description="Steps between evaluations; 0: at the end only.")
    eval_sequences: Count = Field(0, description="Sequences of an evaluation; 0: all there are.")
    num_workers: Count = Field(0, description="Data worker processes.")
    device: fields.Device = "auto"
    use_triton: bool = Field(
        False, description="Insist on Triton kernels, which a GPU uses where they can."
    )
    compile: bool = Field(False, description="Compile the model (single process only).")
    wandb: bool = Field(False, description="Log to Weights & Biases too; offline unless set up.")

    @field_validator("run_name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if name.startswith(".") or "/" in name:
            raise ValueError("names a folder: without / and without a dot at its start")
        return name


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training. Iterating gives the fields of all parts as (name, value)."""

    model: ModelConfig
    optim: OptimConfig
    text: TextConfig
    run: RunConfig

    PARTS: ClassVar[dict[str, type[Part]]] = {
        "model": ModelConfig,
        "optim": OptimConfig,
        "text": TextConfig,
        "run": RunConfig,
    }
    model_fields: ClassVar[dict[str, Any]] = {
        name: field for part in PARTS.values() for name, field in part.model_fields.items()
    }

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Build from the fields of all parts, also by former names; the others keep their default.

        Raises `SlayError`: one line for the first that is unknown or invalid.
        """
        values = fields.renamed(values)
        for name in values:
            if name not in cls.model_fields:
                raise unknown("setting", name, cls.model_fields)
        parts: dict[str, Any] = {}
        for part, kind in cls.PARTS.items():
            try:
                parts[part] = kind(**{n: values[n] for n in kind.model_fields if n in values})
            except ValidationError as error:
                raise SlayError(error_line(error, kind)) from error
        return cls(**parts)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for part in self.PARTS:
            yield from getattr(self, part)

    @property
    def name(self) -> str:
        """The run's folder under `checkpoint_dir` and `log_dir`."""
        return self.run.run_name or self.model.attention

    def identity(self) -> dict[str, Any]:
        """Fields that must not change on resume: all but those of the run."""
        return {name: value for name, value in self if name not in RunConfig.model_fields}
