"""Ahead-of-time compilation, for any GPU on any machine: registers, spills, machine code.

Launches are recorded with tensors without memory (`slay.ops.triton.configs.recording`), compiled
for a target, and inspected with the tools that Triton ships.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.cache import get_cache_manager

from slay.errors import SlayError
from slay.ops.triton import assembler
from slay.ops.triton.configs import INTERPRETED, Config, Launch

TYPES = {
    torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.int32: "*i32",
    torch.bool: "*i1", torch.uint8: "*u8", torch.int64: "*i64",
}  # fmt: skip
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
PAGE = 1 << 21


@dataclass(frozen=True)
class Compiled:
    """A kernel compiled for one configuration."""

    kernel: str
    config: str
    warps: int
    registers: int  # per thread
    spilled: int  # bytes per thread
    shared: int  # bytes per program
    warpgroup: int  # HGMMA: matrix instructions of a warp group
    matrix: int  # HMMA: matrix instructions of a warp
    instructions: int
    multiplies: bool  # contains matrix products (`tl.dot`)
    ptx: str
    sass: str
    grid: tuple[int, int, int]
    constants: dict[int, int]  # words of the launch's arguments, by offset in constant bank 0

    @property
    def facts(self) -> dict[str, Any]:
        """All fields except code and constants."""
        return {k: v for k, v in vars(self).items() if k not in ("ptx", "sass", "constants")}


def compile_launch(launch: Launch, config: Config, capability: int) -> Compiled:
    """Compile a recorded launch in a configuration for a compute capability (90: Hopper)."""
    if INTERPRETED:
        raise SlayError("TRITON_INTERPRET is set: kernels are interpreted, not compiled; unset it")
    kernel = launch.kernel.function
    values = {**launch.arguments, **dict(config.tiles)}
    signature = Signature()
    for index, parameter in enumerate(kernel.params):
        signature.add(parameter, index, values[parameter.name])
    source = ASTSource(kernel, signature.types, signature.constants, signature.attributes)
    options = {"num_warps": config.warps, "num_stages": config.stages}
    with assembler.used():
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    sass, usage = _disassembled(made)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?(\S+)", sass, flags=re.M)
    return Compiled(
        launch.kernel.name,
        str(config),
        config.warps,
        int(found[1]),
        int(found[2]),
        made.metadata.shared,
        sum(name.startswith("HGMMA") for name in names),
        sum(name.startswith("HMMA") for name in names),
        len(names),
        "tt.dot" in made.asm["ttir"],
        made.asm["ptx"],
        sass,
        _grid(launch, config),
        _bank(made, signature.values),
    )


class Signature:
    """Argument types as Triton specialises them at launch: 1 and None are constants."""

    def __init__(self) -> None:
        self.types: dict[str, Any] = {}
        self.constants: dict[tuple[int, ...], Any] = {}  # by the path to an argument
        self.attributes: dict[tuple[int, ...], Any] = {}
        self.values: list[Any] = []  # of the arguments that are not constants, in order

    def add(self, parameter: Any, index: int, value: Any) -> None:
        plain = parameter.do_not_specialize
        self.types[parameter.name] = self._type(value, (index,), parameter.is_constexpr, plain)

    def _type(self, value: Any, path: tuple[int, ...], constant: bool, plain: bool) -> Any:
        if isinstance(value, tuple) and not constant:
            parts = [self._type(v, (*path, i), False, plain) for i, v in enumerate(value)]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if constant or value is None or (whole and value == 1 and not plain):
            self.constants[path] = value
            return "constexpr"
        self.values.append(value)
        aligned = _address(value) if isinstance(value, Tensor) else value
        if (whole or isinstance(value, Tensor)) and aligned % 16 == 0 and not plain:
            self.attributes[path] = [["tt.divisibility", 16]]
        if isinstance(value, Tensor):
            return TYPES[value.dtype]
        if isinstance(value, float):
            return "fp32"
        if isinstance(value, bool):
            return "u1"
        return "i32" if -(2**31) <= value < 2**31 else "i64"


def _address(tensor: Tensor) -> int:
    """Byte offset of a tensor in its storage."""
    return int(tensor.storage_offset()) * tensor.element_size()


def _grid(launch: Launch, config: Config) -> tuple[int, int, int]:
    size = launch.grid(dict(config.tiles)) if callable(launch.grid) else launch.grid
    x, y, z = (*size, 1, 1)[:3]
    return x, y, z


def _disassembled(made: Any) -> tuple[str, str]:
    """Machine code and resource usage as printed by `cuobjdump`, cached in Triton's cache."""
    cache, names = get_cache_manager(made.hash), ("slay.sass", "slay.usage")
    files = [cache.get_file(name) for name in names]
    if None not in files:
        sass, usage = (Path(str(file)).read_text() for file in files)
        return sass, usage
    sass, usage = _dump(made, "-sass"), _dump(made, "--dump-resource-usage")
    for name, text in zip(names, (sass, usage), strict=True):
        cache.put(text, name, binary=False)
    return sass, usage


def _dump(made: Any, flag: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), flag, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _bank(made: Any, values: list[Any]) -> dict[int, int]:
    """Words of constant bank 0 that hold these arguments; tensors get distant addresses."""
    storages: dict[int, int] = {}
    memory = 0x7F00_0000_0000
    words = {}
    for value, (offset, size) in zip(values, _parameters(made.asm["cubin"]), strict=False):
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage._cdata not in storages:
                storages[storage._cdata] = memory
                memory += -(-storage.nbytes() // PAGE) * PAGE + PAGE
            value = storages[storage._cdata] + _address(value)
        elif isinstance(value, float):
            value = struct.unpack("<I", struct.pack("<f", value))[0]
        for word in range(0, size, 4):
            words[offset + word] = int(value) >> 8 * word & 0xFFFFFFFF
    return words


def _parameters(cubin: bytes) -> list[tuple[int, int]]:
    """Offset in constant bank 0 and size of each parameter, in order, from a cubin's `.nv.info`.

    The section is a list of attributes: one byte of format, one of identifier, two of size.
    """
    base, places = 0, {}
    section = _section(cubin, b".nv.info.")
    while len(section) >= 4:
        form, attribute, size = struct.unpack_from("<BBH", section)
        if form != 4:  # the size field holds the value
            section = section[4:]
            continue
        if attribute == 0x0A:  # base offset of the parameters
            (base,) = struct.unpack_from("<H", section, 8)
        elif attribute == 0x17:  # one parameter
            ordinal, offset, rest = struct.unpack_from("<HHI", section, 8)
            places[ordinal] = offset, rest >> 18
        section = section[4 + size :]
    return [(base + offset, size) for _, (offset, size) in sorted(places.items())]


def _section(elf: bytes, name: bytes) -> bytes:
    """First section of an ELF file whose name starts with `name`."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    width, number, of_names = struct.unpack_from("<HHH", elf, 58)

    def header(index: int) -> tuple[int, int, int]:
        (place,) = struct.unpack_from("<I", elf, table + index * width)
        return place, *struct.unpack_from("<QQ", elf, table + index * width + 24)

    names = header(of_names)[1]
    for index in range(number):
        place, start, size = header(index)
        if elf.startswith(name, names + place):
            return elf[start : start + size]
    return b""
