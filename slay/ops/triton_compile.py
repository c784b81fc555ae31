"""Kernels compiled ahead of time, for any GPU on any machine: registers, spills, machine code.

Launches are recorded with tensors that have no memory, and what would be launched is compiled for a
target and read with the tools that Triton brings along.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from slay.ops.triton_configs import Tuned, recording

TYPES = {
    torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.int32: "*i32",
    torch.bool: "*i1", torch.uint8: "*u8", torch.int64: "*i64",
}  # fmt: skip


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel for one configuration."""

    kernel: str
    config: str
    registers: int  # a thread
    spilled: int  # bytes a thread
    shared: int  # bytes a program
    warpgroup: int  # matrix instructions of a warp group (HGMMA), and
    matrix: int  # of a warp (HMMA)
    instructions: int
    multiplies: bool  # whether it is a kernel of large matrix products


def launches(run: Callable[[], object]) -> list[tuple[Tuned, tuple[Any, ...]]]:
    """The launches that a call makes, with their arguments; its tensors may be on "meta"."""
    with recording() as recorded:
        run()
    return recorded


def compiled(
    launch: tuple[Tuned, tuple[Any, ...]], capability: int, name: str = ""
) -> Iterator[Compiled]:
    """A recorded launch in every configuration, for a GPU of that capability (90: Hopper)."""
    tuned, args = launch
    for config in tuned.configs or [triton.Config({})]:
        yield _compile(tuned.kernel, args, config, capability, name)


def _compile(
    kernel: Any, args: tuple[Any, ...], config: triton.Config, capability: int, name: str
) -> Compiled:
    values = dict(zip(kernel.arg_names, args, strict=False)) | config.kwargs
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, argument in enumerate(kernel.arg_names):
        constexpr = kernel.params[index].is_constexpr
        signature[argument] = _type(values[argument], (index,), constexpr, constants, attributes)
    source = ASTSource(kernel, signature, constants, attributes)
    made = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": config.num_warps, "num_stages": config.num_stages},
    )
    tiles = [f"{key}={value}" for key, value in config.kwargs.items()]
    label = " ".join([*tiles, f"{config.num_warps} warps", f"{config.num_stages} stages"])
    return _read(made, name or kernel.__name__, label)


def _type(
    value: Any, path: tuple[int, ...], constexpr: bool, constants: dict, attributes: dict
) -> Any:
    """The type of an argument in a signature; constants and alignments are noted by their path."""
    if constexpr or value is None:
        constants[path] = value
        return "constexpr"
    if isinstance(value, tuple):
        parts = [
            _type(part, (*path, i), False, constants, attributes) for i, part in enumerate(value)
        ]
        return type(value)(*parts)
    if isinstance(value, Tensor):
        attributes[path] = [["tt.divisibility", 16]]
        return TYPES[value.dtype]
    if value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return "i32"


def _read(made: Any, kernel: str, label: str) -> Compiled:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run(
                [tool, flag, file.name], check=True, capture_output=True, text=True
            ).stdout
            for flag in ("--dump-resource-usage", "-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?(\S+)", code, flags=re.M)
    return Compiled(
        kernel,
        label,
        int(found[1]),
        int(found[2]),
        made.metadata.shared,
        sum(name.startswith("HGMMA") for name in instructions),
        sum(name.startswith("HMMA") for name in instructions),
        len(instructions),
        "tt.dot" in made.asm["ttir"] and kernel != "decode",  # whose products are of one token
    )
