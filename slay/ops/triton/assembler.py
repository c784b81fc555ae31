"""The assembler (`ptxas`) that our kernels are made with, and what an old one must not be given.

Before CUDA 13.3, `ptxas` may give the registers of a WGMMA's left operand to somebody else while
the asynchronous product still reads them: on Hopper such kernels are wrong now and then. Triton
brings an older one. The package `nvidia-cuda-nvcc` brings a newer one, which is used for our
kernels alone; what a user has set for all of Triton (`TRITON_PTXAS_PATH`) comes before both.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slay.errors import SlayError

if TYPE_CHECKING:
    from slay.ops.triton.configs import Config

VARIABLE = "TRITON_PTXAS_PATH"
PACKAGE = "nvidia-cuda-nvcc"
INSTALL = "pip install 'slay-attention[kernels]'"
RIGHT_FOR_HOPPER = (13, 3)
HOPPER, BLACKWELL = (9, 0), (10, 0)
Capability = tuple[int, int]


class Assembler(NamedTuple):
    """An assembler that runs."""

    version: tuple[int, ...]  # (13, 5, 37)
    path: str
    origin: str  # who brings it

    def __str__(self) -> str:
        return f"ptxas {'.'.join(map(str, self.version))} ({self.origin})"


def find(capability: Capability = HOPPER) -> Assembler:
    """The assembler of our kernels for GPUs of that capability; raises `SlayError` for none.

    From Blackwell on it is the one that Triton has for those.
    """
    return _find(capability >= BLACKWELL, os.environ.get(VARIABLE), _set_in_python())


def safe(config: Config, capability: Capability, version: tuple[int, ...]) -> bool:
    """Whether an assembler of that version makes right kernels of a configuration.

    WGMMA takes four warps and products of 64 rows; others multiply by `mma.sync`, which is
    synchronous. Rows are tokens, but in sums over tokens, of groups R, they are features.
    """
    tiles = dict(config.tiles)
    small = config.warps < 4 or ("R" not in tiles and max(tiles.values(), default=64) < 64)
    return capability != HOPPER or version >= RIGHT_FOR_HOPPER or small


def remark(capability: Capability, version: tuple[int, ...]) -> str | None:
    """What an assembler of that version leaves out on such GPUs, in a line."""
    if capability != HOPPER or version >= RIGHT_FOR_HOPPER:
        return None
    return (
        f"this ptxas is wrong for some of Hopper's matrix products: only configurations of fewer "
        f"than 4 warps, or of small tiles, are safe; {INSTALL} brings a newer one, for drivers "
        "from 580 on"
    )


def objection(ptx: str, version: tuple[int, ...]) -> str | None:
    """What is wrong with assembling this code by an assembler of that version, in a line."""
    if version >= RIGHT_FOR_HOPPER or not has_register_operand(ptx):
        return None
    return (
        f"WGMMA with an operand in registers, which ptxas {'.'.join(map(str, version))} may get "
        f"wrong; take 13.3 or newer ({INSTALL}), or fewer than 4 warps"
    )


def has_register_operand(ptx: str) -> bool:
    """Whether PTX has a WGMMA whose left operand A is in registers, not in shared memory.

    `wgmma.mma_async... {D}, {A}, B, ...;` has one; `wgmma.mma_async... {D}, A, B, ...;` names A by
    a descriptor of shared memory.
    """
    return _REGISTER_OPERAND.search(ptx) is not None


_REGISTER_OPERAND = re.compile(r"\bwgmma\.mma_async[.\w]*\s*\{[^{};]*\}\s*,\s*\{")


@contextmanager
def used() -> Iterator[None]:
    """Assemble what Triton compiles in here by our assembler.

    Triton notes an assembler's version for its cache once a process. Those notes are dropped on
    the way in and out, or code of one assembler would be kept, and found, as the other's.
    """
    from triton import knobs
    from triton.backends.nvidia import compiler

    with _ONE_AT_A_TIME:
        assembler = find()
        if assembler.origin != PACKAGE:
            yield
            return
        with knobs.nvidia.scope():
            knobs.nvidia.ptxas = assembler.path
            _forget(compiler)
            try:
                yield
            finally:
                _forget(compiler)


@cache
def _keep_somewhere() -> None:
    """Have Triton's cache among temporary files where it cannot be in the user's home folder."""
    from triton import knobs

    with suppress(OSError):
        os.makedirs(knobs.cache.dir, exist_ok=True)
    if not os.access(knobs.cache.dir, os.W_OK):
        knobs.cache.dir = os.path.join(tempfile.gettempdir(), f"slay-{os.getuid()}", "triton")


_ONE_AT_A_TIME = threading.RLock()  # Triton's settings are those of the whole process


def adopt(function: Any) -> Any:
    """Let a `triton.jit` function compile by our assembler, however it is launched; returns it.

    Launches of what is compiled already cost nothing more.
    """
    compile_and_keep = getattr(function, "_do_compile", None)
    if compile_and_keep is None:  # interpreted
        return function
    _keep_somewhere()

    def compile_(*args: Any, **kwargs: Any) -> Any:
        from triton import compile

        with used():
            return compile(*args, **kwargs)

    def do_compile(*args: Any, **kwargs: Any) -> Any:
        function.compile = compile_  # Triton sets its own with every device
        return compile_and_keep(*args, **kwargs)

    function._do_compile = do_compile
    return function


def _forget(module: Any) -> None:
    """Empty the caches of a module's functions."""
    for value in list(vars(module).values()):
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def _set_in_python() -> str | None:
    """What a user's code has set as `triton.knobs.nvidia.ptxas`."""
    if importlib.util.find_spec("triton") is None:
        return None
    from triton import knobs

    return vars(knobs.nvidia).get("ptxas")


@lru_cache(maxsize=16)
def _find(blackwell: bool, in_environment: str | None, in_python: str | None) -> Assembler:
    if importlib.util.find_spec("triton") is None:
        raise SlayError(f"Triton is not installed; {INSTALL}")
    from triton import knobs

    asked = in_python or in_environment
    tool = "ptxas-blackwell" if blackwell else "ptxas"
    own = Path(knobs.__file__).parent / "backends/nvidia/bin" / tool
    if blackwell:
        return _known(os.environ.get("TRITON_PTXAS_BLACKWELL_PATH") or own, "Triton's")
    if asked:
        return _known(asked, VARIABLE)
    package = packaged()
    try:
        brought = _known(own, "Triton's")
    except SlayError:
        if package is None:
            raise
        return package
    return package if package is not None and package.version > brought.version else brought


def packaged() -> Assembler | None:
    """The assembler of the package `nvidia-cuda-nvcc`; None where there is none that can be used.

    A driver loads code of its own CUDA generation and older ones only.
    """
    path = _in_packages()
    if path is None:
        return None
    try:
        found = _known(_runnable(path), PACKAGE)
    except (OSError, SlayError):  # no place for a copy that may run, or of another system
        return None
    cuda = driver_cuda()
    return found if cuda is None or found.version[0] <= cuda[0] else None


def _in_packages() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for place in places for path in Path(place).glob("cu[0-9]*/bin/ptxas")]
    return max(found, key=lambda path: int(path.parts[-3][2:]), default=None)


def _runnable(path: Path) -> Path:
    """The file itself if it may be run, else a copy in Triton's cache that may."""
    if os.access(path, os.X_OK):
        return path
    from triton import knobs

    facts = path.stat()
    copy = Path(knobs.cache.dir, f"slay-ptxas-{facts.st_size}-{facts.st_mtime_ns}")
    if not os.access(copy, os.X_OK):
        copy.parent.mkdir(parents=True, exist_ok=True)
        own = copy.with_name(f"{copy.name}.{os.getpid()}")
        try:
            shutil.copyfile(path, own)
            own.chmod(0o755)
            own.replace(copy)
        finally:
            own.unlink(missing_ok=True)
    return copy


def _known(path: str | Path, origin: str) -> Assembler:
    """An assembler with the version that it says it has."""
    says = f"{path}" if origin in (PACKAGE, "Triton's") else f"{origin}={path}"
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or "no answer"
        raise SlayError(f"{says}: cannot be run as an assembler ({why}); {INSTALL}") from error
    found = re.search(r"\bV(\d+(?:\.\d+)+)", done.stdout)
    if done.returncode or found is None:
        raise SlayError(f"{says}: does not tell its version as ptxas does; {INSTALL}")
    return Assembler(tuple(map(int, found[1].split("."))), str(path), origin)


@cache
def driver_cuda() -> tuple[int, int] | None:
    """The CUDA version that this machine's driver knows; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return number.value // 1000, number.value % 1000 // 10
