"""Fields of typed settings: the type, the bounds and the description of each.

The parameters of experiments (`slay.pipeline.params`) and the configuration of a training
(`slay.training.language.config`) consist of them, each with defaults of its own. Command lines,
configuration files and records are derived from those classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from functools import wraps
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, PlainValidator, Strict

from slay.registry import ATTENTION

Class = TypeVar("Class")

# Former names, which are still read: on command lines, as keywords, in checkpoints.
FORMER = {
    "total_steps": "steps",
    "warmup_steps": "warmup",
    "block_size": "context_len",
    "checkpoint": "gradient_checkpointing",
    "untied": "no_tie_head",  # the negation of tie_head
}


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by today's names; one that is given by a former name replaces another."""
    found = {name: value for name, value in values.items() if name not in FORMER}
    for name in FORMER.keys() & values:
        new = FORMER[name]
        no = new.startswith("no_")
        found[new.removeprefix("no_")] = not values[name] if no else values[name]
    return found


def renamed_flag(name: str) -> str:
    """Return today's name of a flag, without its dashes."""
    return FORMER.get(name.replace("-", "_"), name).replace("_", "-")


def with_former_names(cls: type[Class]) -> type[Class]:
    """Class decorator: a dataclass whose fields can be given and read by former names too."""
    init: Any = cls.__init__

    @wraps(init)
    def renaming(self: Any, *args: Any, **values: Any) -> None:
        init(self, *args, **renamed(values))

    cls.__init__ = renaming  # type: ignore[method-assign]
    own = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    for former, name in FORMER.items():
        if name in own:
            setattr(cls, former, property(attrgetter(name)))
    return cls


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def read_option(value: Any) -> bool | int | float | str:
    """Validate the value of a mechanism's option; text is parsed as on the command line."""
    if value in ("True", "False"):
        return value == "True"
    for number in (int, float) if isinstance(value, str) else ():
        with suppress(ValueError):
            value = number(value)
            break
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,63}", value):
        return value
    if isinstance(value, int) and abs(value) < 10**60:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("should be a number, true, false or a word of letters, digits and . _ -")


def line(text: str) -> str:
    """Validate text as one printable line, for commands and logs."""
    if not text.isprintable() or len(text) > 1000:
        raise ValueError("should be one line of at most 1000 printable characters")
    return text


def heads_divide(params: Any) -> Any:
    """Return `params`; raise `ValueError` if n_heads does not divide embed_dim."""
    if params.embed_dim % params.n_heads:
        raise ValueError(
            f"embed_dim = {params.embed_dim} does not divide into n_heads = {params.n_heads} heads"
        )
    return params


# Types
Count = Annotated[int, Strict(), Field(ge=0)]
Whole = Annotated[int, Strict(), Field(ge=1, lt=2**31)]
HeadDim = Annotated[int, Strict(), Field(ge=2, lt=2**31)]
Rounds = Annotated[int, Strict(), Field(ge=10, lt=2**31)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Positive = Annotated[FiniteFloat, BeforeValidator(_no_bool), Field(gt=0)]
Line = Annotated[str, AfterValidator(line)]
Option = Annotated[bool | int | float | str, PlainValidator(read_option)]
Options = dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Option]
Positions = Literal["learned", "rotary"]
Mlp = Literal["gelu", "yat"]

# Fields that several classes have
Mechanism = Annotated[
    str,
    AfterValidator(lambda name: ATTENTION.canonical(name)),
    Field(description="Mechanism (see `slay mechanisms`)."),
]
Epsilon = Annotated[Positive, Field(description="epsilon of the spherical Yat kernel.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="Device to compute on.")]
ContextLen = Annotated[Whole, Field(description="Sequence length in tokens.")]
ModelWidth = Annotated[Whole, Field(description="Model width.")]
Layers = Annotated[Whole, Field(description="Number of layers.")]
HeadsPerLayer = Annotated[Whole, Field(description="Heads per layer.")]
ShortConv = Annotated[
    Count, Field(lt=2**31, description="Width of a convolution before q, k and v; 0: none.")
]
Dropout = Annotated[
    FiniteFloat, Field(ge=0, lt=1, description="Dropout in attention, MLP and embeddings.")
]
Checkpointing = Annotated[bool, Field(description="Recompute activations in the backward pass.")]
LearningRate = Annotated[Positive, Field(description="Peak learning rate.")]
Warmup = Annotated[Count, Field(description="Steps of linear warm-up.")]
Steps = Annotated[Whole, Field(description="Optimiser steps; the cosine schedule ends at zero.")]
BatchSize = Annotated[Whole, Field(description="Sequences per step, over all processes.")]
MicroBatches = Annotated[Whole, Field(description="Micro-batches per step.")]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"], Field(description="Precision of the arithmetic.")
]
Data = Annotated[
    str,
    Field(
        description="Text to train on: stdlib, a folder of `slay data prepare`, fineweb, or files "
        "(.txt, .jsonl, .parquet) to stream."
    ),
]
EvalData = Annotated[
    str,
    Field(description="Text to evaluate on: as data, or wikitext-2. Default: its held-out part."),
]
Tokenizer = Annotated[str, Field(description="Of streamed text: gpt2 or a tokenizer.json.")]
