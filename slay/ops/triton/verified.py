"""What was verified on a device: which configurations of the kernels are right, which is fastest.

`slay kernels verify` writes one file a device. It counts on the very device and versions that it
was made with. Those of devices that were measured ship with the package, in `devices/`; the user's
own come before them.
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
from slay.provenance import code_digest, machine

if TYPE_CHECKING:
    from slay.ops.triton.configs import Config

VARIABLE = "SLAY_CACHE"
COMMAND = "slay kernels verify"
OLDEST = (8, 0)  # capability: Ampere
SHIPPED = Path(__file__).parent / "devices"
# Files that compute nothing.
NO_KERNELS = {"__init__.py", "assembler.py", "compile.py", "verified.py"}


class Facts(NamedTuple):
    """What a result counts for."""

    device: str
    capability: tuple[int, int]
    driver: str
    triton: str
    assembler: str
    fingerprint: str  # of the kernels' code


class Tried(BaseModel):
    """A kernel's configurations for one class of calls."""

    right: dict[str, dict[int, float]] = {}  # and milliseconds at some lengths
    wrong: dict[str, str] = {}  # and what was wrong


class Verification(BaseModel):
    """The file of a device."""

    device: str
    capability: tuple[int, int]
    driver: str
    triton: str
    assembler: str
    fingerprint: str
    complete: bool  # everything was tried
    classes: dict[str, dict[str, Tried]]  # by the key of a class of calls, and by kernel

    @property
    def facts(self) -> Facts:
        return Facts(*(getattr(self, name) for name in Facts._fields))

    @cached_property
    def fastest(self) -> dict[tuple[str, str], list[tuple[float, Config]]]:
        """By key and kernel, the fastest right configurations and the lengths they are for.

        That is up to a length; lengths between two that were timed go to the nearer by ratio.
        """
        return {
            (key, name): _by_length(tried)
            for key, kernels in self.classes.items()
            for name, tried in kernels.items()
            if tried.right
        }

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        files.write(path, self.model_dump_json(indent=1) + "\n")


def reason(device: torch.device, key: str) -> str | None:
    """Why kernels are not to be used unasked for a class of calls, in a line; None if they may."""
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
    """The fastest configuration that is right there, for calls of about that length, if any is."""
    found, _ = _found(device, key)
    options = found.fastest.get((key, kernel)) if found is not None else None
    if options is None:
        return None
    return next(config for most, config in options if length <= most)


# torch.compile takes their results as constants of the call that it traces.
reason._dynamo_marked_constant = True  # type: ignore[attr-defined]
choice._dynamo_marked_constant = True  # type: ignore[attr-defined]


def warn_once(text: str) -> None:
    """Warn that PyTorch computes, once a process and reason."""
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(f"PyTorch computes instead of kernels: {text}", SlayWarning, stacklevel=2)


warn_once._dynamo_marked_constant = True  # type: ignore[attr-defined]
_WARNED: set[str] = set()


def facts(device: torch.device) -> Facts:
    """Facts of a CUDA device and of what compiles for it; raises `SlayError` where none can."""
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
    """Fingerprint of the kernels' code and of what launches it, comments aside."""
    files = sorted(p for p in Path(__file__).parent.glob("*.py") if p.name not in NO_KERNELS)
    return code_digest(files)


def user_folder() -> Path:
    """Where a user's own files of devices are."""
    return _folder(os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME"))


@lru_cache(maxsize=16)
def _folder(named: str | None, cache: str | None) -> Path:
    folder = Path(named) if named else Path(cache or "~/.cache") / "slay"
    try:
        return folder.expanduser() / "devices"
    except RuntimeError:  # a user without a home folder
        return Path(tempfile.gettempdir(), f"slay-{os.getuid()}", "devices")


def file_name(device: str) -> str:
    """The name of a device's file: NVIDIA_H100_80GB_HBM3.json."""
    return re.sub(r"[^A-Za-z0-9]+", "_", device).strip("_") + ".json"


def read(path: Path, here: Facts) -> tuple[Verification | None, str]:
    """A file's content if it counts here, else None and why not, in a line."""
    return _read(str(path), _mark(str(path)), here)


def _found(device: torch.device, key: str) -> tuple[Verification | None, str]:
    """The first file that counts here and knows a class of calls, else None and why none does.

    A process keeps to what it has found, so that its choices stay the same.
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
    """Look at the files anew, as a new process would."""
    _KNOWN.clear()


_KNOWN: dict[tuple[torch.device, str], Verification] = {}


@lru_cache(maxsize=64)
def _places(device: str, *folders: Path) -> list[str]:
    return [str(folder / file_name(device)) for folder in folders]


def _not_verified(device: str, key: str) -> str:
    return f"kernels for {key!r} were not verified on this {device}; run: {COMMAND} --only '{key}'"


def _mark(path: str) -> tuple[int, ...]:
    """What changes when a file is written; () where there is none."""
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
        if name == "driver":  # fixes within a branch do not compile anything
            then, now = (str(version).partition(".")[0] for version in (then, now))
        if then != now:
            what = "the kernels' code" if name == "fingerprint" else name
            return None, f"{path}: was verified with {what} {then}, here is {now}; run: {COMMAND}"
    return found, ""


def _by_length(tried: Tried) -> list[tuple[float, Config]]:
    lengths = sorted({length for times in tried.right.values() for length in times})
    if not lengths:  # right, and not timed
        return [(math.inf, config(next(iter(tried.right))))]
    best = [
        min((times[n], text) for text, times in tried.right.items() if n in times)[1]
        for n in lengths
    ]
    bounds = [math.sqrt(a * b) for a, b in pairwise(lengths)]
    return list(zip([*bounds, math.inf], map(config, best), strict=True))


def config(text: str) -> Config:
    """The configuration that is written so, as in "T=64 warps=4 stages=2"."""
    from slay.ops.triton.configs import Config

    parts = (part.partition("=") for part in text.split())
    numbers = {name: int(size) for name, _, size in parts}
    return Config(numbers.pop("warps"), numbers.pop("stages"), tuple(numbers.items()))
