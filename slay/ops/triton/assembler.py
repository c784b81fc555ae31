"""The assembler (`ptxas`) for our kernels, and the code that old versions miscompile.

Before CUDA 13.3, `ptxas` may reallocate the registers of a WGMMA's left operand while the
asynchronous product still reads them: on Hopper such kernels are sometimes wrong. Triton ships an
older version. The package `nvidia-cuda-nvcc` ships a newer one, which is used for our kernels only;
a user's setting for all of Triton (`TRITON_PTXAS_PATH`) takes precedence over both.
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
    """A working assembler."""

    version: tuple[int, ...]  # (13, 5, 37)
    path: str
    origin: str  # where it comes from

    def __str__(self) -> str:
        return f"ptxas {'.'.join(map(str, self.version))} ({self.origin})"


def find(capability: Capability = HOPPER) -> Assembler:
    """Return the assembler for GPUs of a compute capability; raises `SlayError` if there is none.

    From Blackwell on it is the one that Triton uses for those.
    """
    return _find(capability >= BLACKWELL, os.environ.get(VARIABLE), _set_in_python())


def safe(config: Config, capability: Capability, version: tuple[int, ...]) -> bool:
    """Return True if an assembler of that version compiles a configuration correctly.

    WGMMA needs four warps and products of 64 rows; smaller ones use `mma.sync`, which is
    synchronous. Rows are tokens, except in sums over tokens (with a tile R of groups), where they
    are features.
    """
    tiles = dict(config.tiles)
    small = config.warps < 4 or ("R" not in tiles and max(tiles.values(), default=64) < 64)
    return capability != HOPPER or version >= RIGHT_FOR_HOPPER or small


def remark(capability: Capability, version: tuple[int, ...]) -> str | None:
    """Return in one line what that assembler version cannot compile for such GPUs, or None."""
    if capability != HOPPER or version >= RIGHT_FOR_HOPPER:
        return None
    return (
        f"this ptxas is wrong for some of Hopper's matrix products: only configurations of fewer "
        f"than 4 warps, or of small tiles, are safe; {INSTALL} brings a newer one, for drivers "
        "from 580 on"
    )


def objection(ptx: str, version: tuple[int, ...]) -> str | None:
    """Return in one line why that assembler version may miscompile this PTX, or None."""
    if version >= RIGHT_FOR_HOPPER or not has_register_operand(ptx):
        return None
    return (
        f"WGMMA with an operand in registers, which ptxas {'.'.join(map(str, version))} may get "
        f"wrong; take 13.3 or newer ({INSTALL}), or fewer than 4 warps"
    )


def has_register_operand(ptx: str) -> bool:
    """Return True if PTX has a WGMMA whose left operand A is in registers, not shared memory.

    `wgmma.mma_async... {D}, {A}, B, ...;` has one; `wgmma.mma_async... {D}, A, B, ...;` names A by
    a descriptor of shared memory.
    """
    return _REGISTER_OPERAND.search(ptx) is not None


_REGISTER_OPERAND = re.compile(r"\bwgmma\.mma_async[.\w]*\s*\{[^{};]*\}\s*,\s*\{")


@contextmanager
def used() -> Iterator[None]:
    """Context manager in which Triton compiles with our assembler.

    Triton caches the assembler's version, which is part of its compilation cache key, once per
    process. It is cleared on entry and exit; otherwise code of one assembler would be stored, and
    found, as the other's.
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
    """Move Triton's cache to the temporary directory if its usual folder is not writable."""
    from triton import knobs

    with suppress(OSError):
        os.makedirs(knobs.cache.dir, exist_ok=True)
    if not os.access(knobs.cache.dir, os.W_OK):
        knobs.cache.dir = os.path.join(tempfile.gettempdir(), f"slay-{os.getuid()}", "triton")


_ONE_AT_A_TIME = threading.RLock()  # Triton's settings are process-wide


def adopt(function: Any) -> Any:
    """Make a `triton.jit` function compile with our assembler, however launched; returns it.

    Launches of compiled kernels have no overhead.
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
        function.compile = compile_  # Triton resets it for every device
        return compile_and_keep(*args, **kwargs)

    function._do_compile = do_compile
    return function


def _forget(module: Any) -> None:
    """Empty the caches of a module's functions."""
    for value in list(vars(module).values()):
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def _set_in_python() -> str | None:
    """Return the user's setting of `triton.knobs.nvidia.ptxas`, or None."""
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
    """Return the assembler of the package `nvidia-cuda-nvcc`, or None if there is no usable one.

    A driver loads only code of its own CUDA generation or older.
    """
    path = _in_packages()
    if path is None:
        return None
    try:
        found = _known(_runnable(path), PACKAGE)
    except (OSError, SlayError):  # no writable place for a copy, or built for another system
        return None
    cuda = driver_cuda()
    return found if cuda is None or found.version[0] <= cuda[0] else None


def _in_packages() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for place in places for path in Path(place).glob("cu[0-9]*/bin/ptxas")]
    return max(found, key=lambda path: int(path.parts[-3][2:]), default=None)


def _runnable(path: Path) -> Path:
    """Return the file if it is executable, else an executable copy in Triton's cache."""
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
    """Return the assembler at a path, with the version that it reports."""
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
    """CUDA version supported by this machine's driver; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return number.value // 1000, number.value % 1000 // 10
