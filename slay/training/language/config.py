"""Settings of a language model's training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slay.pipeline.params import Options, Positive, Seed, Whole, heads_divide
from slay.registry import ATTENTION

Count = Annotated[int, Field(strict=True, ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Train a GPT with any attention mechanism.

    A training that was interrupted resumes when it is started again with the same run name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The model
    attention: str = Field("performer", description="Mechanism (see `slay mechanisms`).")
    options: Options = Field({}, description="An option of the mechanism, such as its features.")
    epsilon: Positive = Field(1e-3, description="epsilon of the spherical Yat kernel.")
    context_len: Whole = Field(1024, description="Sequence length in tokens.")
    embed_dim: Whole = Field(768, description="Model width.")
    n_layers: Whole = Field(12, description="Number of layers.")
    n_heads: Whole = Field(12, description="Heads per layer.")
    short_conv: Count = Field(0, description="Width of a convolution before q, k and v; 0: none.")
    positions: Literal["learned", "rotary"] = Field("learned", description="Kind of positions.")
    mlp: Literal["gelu", "yat"] = Field("gelu", description="Kind of MLP.")
    untied: bool = Field(False, description="Do not tie the output head to the embedding.")
    dropout: Share = Field(0.1, description="Dropout in attention, MLP and embeddings.")
    # The optimisation. A step is a step of the optimiser, on one batch of all processes together.
    lr: Positive = Field(3e-4, description="Peak learning rate.")
    warmup_steps: Count = Field(2000, description="Steps of linear warm-up.")
    total_steps: Whole = Field(
        20000, description="Number of steps; the cosine schedule ends there at zero."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Weight decay of matrices."
    )
    clip: Positive = Field(1.0, description="Maximum gradient norm.")
    batch_size: Whole = Field(64, description="Sequences per step, over all processes.")
    batch_start: Count = Field(0, description="Sequences per step at the start; 0: batch-size.")
    batch_ramp_steps: Count = Field(0, description="Steps over which the batch grows.")
    gradient_accumulation_steps: Whole = Field(1, description="Micro-batches per step.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of the arithmetic."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass."
    )
    use_triton: bool = Field(
        False, description="Insist on Triton kernels, which a GPU uses where they can."
    )
    compile: bool = Field(False, description="Compile the model (single process only).")
    zero_stage: Annotated[int, Field(strict=True, ge=0, le=3)] | None = Field(
        None, description="DeepSpeed's ZeRO stage, over that of its configuration file."
    )
    deepspeed_config: str = Field("", description="A DeepSpeed configuration file to start from.")
    # The data
    data: str = Field(
        "stdlib",
        description="Text to train on: stdlib, a folder of `slay data prepare`, fineweb, or files "
        "(.txt, .jsonl, .parquet) to stream.",
    )
    eval_data: str = Field(
        "",
        description="Text to evaluate on: as for data, or wikitext-2. Default: its held-out part.",
    )
    tokenizer: str = Field("", description="For text that is streamed: gpt2 or a tokenizer.json.")
    num_workers: Count = Field(0, description="Data worker processes.")
    seed: Seed = Field(0, description="Seed of weights, data order and dropout.")
    # The run
    run_name: str = Field("", description="Name of the run. Default: the mechanism's.")
    checkpoint_dir: str = Field("checkpoints", description="Folder of runs' checkpoints.")
    log_dir: str = Field("logs", description="Folder of runs' metrics.")
    resume_from: str = Field("", description="A checkpoint to start from, of this run or another.")
    save_every: Count = Field(1000, description="Steps between checkpoints; 0: at the end only.")
    keep: Whole = Field(3, description="Checkpoints to keep.")
    log_every: Whole = Field(10, description="Steps between log lines.")
    eval_every: Count = Field(500, description="Steps between evaluations; 0: at the end only.")
    eval_sequences: Count = Field(0, description="Sequences of an evaluation; 0: all there are.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device to compute on.")
    wandb: bool = Field(False, description="Log to Weights & Biases too; offline unless set up.")

    @field_validator("attention")
    @classmethod
    def _known_attention(cls, name: str) -> str:
        return ATTENTION.canonical(name)

    @field_validator("run_name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if name.startswith(".") or "/" in name:
            raise ValueError("names a folder: without / and without a dot at its start")
        return name

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size = {self.batch_size} does not divide into "
                f"gradient_accumulation_steps = {self.gradient_accumulation_steps} pieces"
            )
        if self.batch_start > self.batch_size:
            raise ValueError(
                f"batch_start = {self.batch_start} is above batch_size = {self.batch_size}"
            )
        return heads_divide(self)

    @property
    def name(self) -> str:
        """The run's folder under `checkpoint_dir` and `log_dir`."""
        return self.run_name or self.attention

    def identity(self) -> dict[str, object]:
        """Settings that must not change on resume: all but where and how often the run reports."""
        return self.model_dump(exclude=set(MAY_CHANGE))


MAY_CHANGE = (
    "run_name",
    "checkpoint_dir",
    "log_dir",
    "resume_from",
    "save_every",
    "keep",
    "log_every",
    "eval_every",
    "eval_sequences",
    "num_workers",
    "device",
    "compile",
    "use_triton",
    "wandb",
)
