"""Verification files: which kernel configurations are correct on a device, and the fastest.

`slay kernels verify` writes one file per device, valid only for the device and versions that it was
made with. Files of measured devices ship with the package, in `devices/`; the user's own files take
precedence.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import warnings
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import BaseModel, ValidationError

from slay import files
from slay.errors import SlayError, SlayWarning
from slay.ops.triton import assembler
from slay.pipeline.fingerprint import code_digest
from slay.pipeline.provenance import machine

if TYPE_CHECKING:
    from slay.ops.triton.configs import Config

VARIABLE = "SLAY_CACHE"
COMMAND = "slay kernels verify"
OLDEST = (8, 0)  # capability: Ampere
SHIPPED = Path(__file__).parent / "devices"
# Files without kernel code.
NO_KERNELS = {"__init__.py", "assembler.py", "compile.py", "verified.py"}


class Facts(NamedTuple):
    """Device and versions for which a verification is valid."""

    device: str
    capability: tuple[int, int]
    driver: str
    triton: str
    assembler: str
    fingerprint: str  # of the kernels' code


class Tried(BaseModel):
    """A kernel's configurations for one call class."""

    right: dict[str, dict[int, float]] = {}  # correct ones: milliseconds by length
    wrong: dict[str, str] = {}  # incorrect ones: what was wrong


class Verification(BaseModel):
    """Verification file of a device."""

    device: str
    capability: tuple[int, int]
    driver: str
    triton: str
    assembler: str
    fingerprint: str
    complete: bool  # everything was tried
    classes: dict[str, dict[str, Tried]]  # by call class and kernel

    @property
    def facts(self) -> Facts:
        return Facts(*(getattr(self, name) for name in Facts._fields))

    @cached_property
    def fastest(self) -> dict[tuple[str, str], list[tuple[float, Config]]]:
        """Fastest correct configurations by key and kernel, each up to a length.

        Lengths between two timed ones use the nearer by ratio.
        """
        return {
            (key, name): _by_length(tried)
            for key, kernels in self.classes.items()
            for name, tried in kernels.items()
            if tried.right
        }

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        files.write(path, self.model_dump_json(indent=1) + "\n")


def reason(device: torch.device, key: str) -> str | None:
    """Return in one line why kernels are not used by default for a call class, or None."""
    found, why = _found(device, key)
    if found is None:
        return why
    bad = {name: tried.wrong for name, tried in found.classes[key].items() if not tried.right}
    whys = [why for wrong in bad.values() for why in wrong.values()]
    if whys:
        return (
            f"kernels for {key!r} ({', '.join(bad)}) are right in no configuration on this "
            f"{found.device}: {whys[0]}; after an update run: {COMMAND} --only '{key}'"
        )
    return _not_verified(found.device, key) if bad else None


def choice(device: torch.device, kernel: str, key: str, length: int) -> Config | None:
    """Return the fastest correct configuration for calls of about that length, or None."""
    found, _ = _found(device, key)
    options = found.fastest.get((key, kernel)) if found is not None else None
    if options is None:
        return None
    return next(config for most, config in options if length <= most)


# torch.compile takes their results as constants of the call that it traces.
reason._dynamo_marked_constant = True  # type: ignore[attr-defined]
choice._dynamo_marked_constant = True  # type: ignore[attr-defined]


def warn_once(text: str) -> None:
    """Warn that PyTorch computes instead of kernels, once per process and reason."""
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(f"PyTorch computes instead of kernels: {text}", SlayWarning, stacklevel=2)


warn_once._dynamo_marked_constant = True  # type: ignore[attr-defined]
_WARNED: set[str] = set()


def facts(device: torch.device) -> Facts:
    """Return the facts of a CUDA device and its compiler; raises `SlayError` if unsupported."""
    if device.type != "cuda" or not _has_gpu():
        raise SlayError(f"kernels run on NVIDIA GPUs, and PyTorch sees none at {str(device)!r}")
    index = torch.cuda.current_device() if device.index is None else device.index
    return _facts(index, os.environ.get(assembler.VARIABLE))


@lru_cache(maxsize=1)
def _has_gpu() -> bool:
    return torch.version.cuda is not None and torch.cuda.is_available()


@lru_cache(maxsize=64)
def _facts(index: int, ptxas: str | None) -> Facts:
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        has, least = (".".join(map(str, numbers)) for numbers in (capability, OLDEST))
        raise SlayError(f"kernels need a GPU of capability {least} or newer; {name} has {has}")
    version = ".".join(map(str, assembler.find(capability).version))
    import triton

    driver = machine()["driver"] or ""
    return Facts(name, capability, driver, triton.__version__, version, fingerprint())


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Digest of the code of the kernels and their launches, without comments."""
    files = sorted(p for p in Path(__file__).parent.glob("*.py") if p.name not in NO_KERNELS)
    return code_digest(files)


def user_folder() -> Path:
    """Folder of the user's own verification files."""
    return _folder(os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME"))


@lru_cache(maxsize=16)
def _folder(named: str | None, cache: str | None) -> Path:
    folder = Path(named) if named else Path(cache or "~/.cache") / "slay"
    try:
        return folder.expanduser() / "devices"
    except RuntimeError:  # a user without a home folder
        return Path(tempfile.gettempdir(), f"slay-{os.getuid()}", "devices")


def file_name(device: str) -> str:
    """File name of a device, such as NVIDIA_H100_80GB_HBM3.json."""
    return re.sub(r"[^A-Za-z0-9]+", "_", device).strip("_") + ".json"


def read(path: Path, here: Facts) -> tuple[Verification | None, str]:
    """Return a file's content if it is valid here, else None and the reason in one line."""
    return _read(str(path), _mark(str(path)), here)


def _found(device: torch.device, key: str) -> tuple[Verification | None, str]:
    """Return the first valid file with a call class, else None and the reason.

    Found files are cached for the process, so that its choices stay the same.
    """
    known = _KNOWN.get((device, key))
    if known is not None:
        return known, ""
    try:
        here = facts(device)
    except SlayError as error:
        return None, str(error)
    why = ""
    for path in _places(here.device, user_folder(), SHIPPED):
        found, complaint = _read(path, _mark(path), here)
        if found is not None and found.classes.get(key):
            _KNOWN[device, key] = found
            return found, ""
        why = why or (_not_verified(here.device, key) if found is not None else complaint)
    return None, why or f"kernels were not verified on this {here.device}; run: {COMMAND}"


def forget() -> None:
    """Clear the cache, so that files are read again as in a new process."""
    _KNOWN.clear()


_KNOWN: dict[tuple[torch.device, str], Verification] = {}


@lru_cache(maxsize=64)
def _places(device: str, *folders: Path) -> list[str]:
    return [str(folder / file_name(device)) for folder in folders]


def _not_verified(device: str, key: str) -> str:
    return f"kernels for {key!r} were not verified on this {device}; run: {COMMAND} --only '{key}'"


def _mark(path: str) -> tuple[int, ...]:
    """Return a value that changes when a file is written; () if there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return ()
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


@lru_cache(maxsize=64)
def _read(path: str, mark: tuple[int, ...], here: Facts) -> tuple[Verification | None, str]:
    if not mark:
        return None, ""
    try:
        found = Verification.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError):
        return None, f"{path}: is no whole file of a verification; run: {COMMAND}"
    for name, then, now in zip(Facts._fields, found.facts, here, strict=True):
        if name == "driver":  # updates within a driver branch do not affect compilation
            then, now = (str(version).partition(".")[0] for version in (then, now))
        if then != now:
            what = "the kernels' code" if name == "fingerprint" else name
            return None, f"{path}: was verified with {what} {then}, here is {now}; run: {COMMAND}"
    return found, ""


def _by_length(tried: Tried) -> list[tuple[float, Config]]:
    lengths = sorted({length for times in tried.right.values() for length in times})
    if not lengths:  # correct, but not timed
        return [(math.inf, config(next(iter(tried.right))))]
    best = [
        min((times[n], text) for text, times in tried.right.items() if n in times)[1]
        for n in lengths
    ]
    bounds = [math.sqrt(a * b) for a, b in pairwise(lengths)]
    return list(zip([*bounds, math.inf], map(config, best), strict=True))


def config(text: str) -> Config:
    """Parse a configuration such as "T=64 warps=4 stages=2"."""
    from slay.ops.triton.configs import Config

    parts = (part.partition("=") for part in text.split())
    numbers = {name: int(size) for name, _, size in parts}
    return Config(numbers.pop("warps"), numbers.pop("stages"), tuple(numbers.items()))
