"""Where a number comes from: fingerprints of the code that made it, facts of the machine.

A job depends on the files under `slay/` that it can import, no more. Their fingerprint ignores
comments, docstrings, formatting and the version number. Modules that name, check or carry values
but compute none are left out: a new line in the registry's table must not invalidate what was
measured with the others. A job's own entries count, and are followed through their paths; its
parameters stand in its record. Triton kernels count where they may compute, which a job on a CPU
leaves to PyTorch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from slay.errors import SlayError

PACKAGE = Path(__file__).resolve().parent
CARRIES = (
    "config",
    "docstrings",
    "errors",
    "files",
    "flags",
    "jobs",
    "params",
    "plugins",
    "provenance",
    "record",
    "registry",
    "texts",
    "yaml_files",
)
LEFT_OUT = frozenset(f"slay.{name}" for name in CARRIES)
PROJECT = 'name = "slay-attention"'  # in pyproject.toml
KERNELS = "slay.ops.triton"  # how the names of the kernels' modules begin


def fingerprint(modules: Iterable[str], *, kernels: bool = True) -> str:
    """Fingerprint of the import closure of some modules, Triton kernels or not: 16 hex digits.

    Where one is given as `module:attribute`, a registry's entry, that belongs to it.
    """
    asked = sorted({*modules})
    names = tuple(dict.fromkeys(name.partition(":")[0] for name in asked))
    entries = " ".join(name for name in asked if ":" in name)
    return hashlib.sha256(f"{_sources(names, kernels)} {entries}".encode()).hexdigest()[:16]


@cache
def _sources(modules: tuple[str, ...], kernels: bool) -> str:
    """Digest of the sources of the import closure of some modules."""
    digest = hashlib.sha256()
    for name in closure(modules, kernels=kernels):
        digest.update(f"{name} {_read(name)[0]}\n".encode())
    return digest.hexdigest()


def closure(modules: Iterable[str], *, kernels: bool = True) -> list[str]:
    """Modules that some modules can import, themselves included, sorted.

    Only those of this package and of the packages that `modules` name themselves: what a mechanism
    from outside shares with its neighbours counts, third parties do not. Imports inside functions
    and relative ones count, and so do the packages on the way to a module. Without `kernels`, those
    of Triton and what only they import are left out.
    """
    seen: set[str] = set()
    waiting = [name.partition(":")[0] for name in modules]
    for name in waiting:
        _follow(name.partition(".")[0])
    while waiting:
        name = waiting.pop()
        parents = [name[:i] for i, c in enumerate(name) if c == "."]
        for module in (name, *parents):
            if module in seen or module in LEFT_OUT:
                continue
            if not kernels and module.startswith(KERNELS):
                continue
            seen.add(module)
            waiting.extend(_read(module)[1])
    return sorted(seen)


def changed_files(modules: Iterable[str], commit: str, *, kernels: bool = True) -> list[str]:
    """Files of the import closure of some modules that count as changed since a commit.

    Raises `subprocess.SubprocessError` where git or the commit is not there.
    """
    root = PACKAGE.parent
    _git("cat-file", "-e", f"{commit}^{{commit}}")
    listed = _git("ls-tree", "-r", "-z", "--name-only", commit, PACKAGE.name)
    there = set(listed.split("\0"))
    changed = []
    for name in closure(modules, kernels=kernels):
        path = _source(name)
        if path is None or not path.is_relative_to(root):
            continue
        file = path.relative_to(root).as_posix()
        before = _digest(_git("cat-file", "blob", f"{commit}:{file}")) if file in there else None
        if before != _read(name)[0]:
            changed.append(file)
    return changed


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, for templates and other text: 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def code_digest(paths: Iterable[Path]) -> str:
    """Digest of the code in some files, without comments and docstrings: 16 hex digits."""
    lines = [f"{path.name} {_digest(path.read_text(encoding='utf-8'))}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


_OUTSIDE: dict[str, Path] = {}  # top-level modules from outside this package, and their places


def _follow(top: str) -> None:
    """Let a top-level module from outside count like this package."""
    if top == PACKAGE.name or top in _OUTSIDE:
        return
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # it is there, and cannot be imported
        spec = None
    if spec is None or spec.origin is None:
        raise SlayError(f"there is no module {top!r} here; PYTHONPATH can say where it is")
    origin = Path(spec.origin)
    _OUTSIDE[top] = origin.parent if spec.submodule_search_locations else origin.with_suffix("")


def _source(module: str) -> Path | None:
    """The file of a module that counts, if there is one."""
    parts = module.split(".")
    root = PACKAGE if parts[0] == PACKAGE.name else _OUTSIDE.get(parts[0])
    if root is None:
        return None
    base = root.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def forget() -> None:
    """Read source files again that may have changed since this process read them."""
    _read.cache_clear()
    _sources.cache_clear()


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's normalised source, and the modules that it imports and that count."""
    path = _source(module)
    if path is None:
        raise SlayError(f"{module}: there is no such module")
    digest, names = _known(path, path.read_bytes(), module)
    return digest, tuple(name for name in names if _source(name))


def _known(path: Path, source: bytes, module: str) -> tuple[str, list[str]]:
    """The digest of a source and the names that it imports, as noted beside Python's own cache.

    What was noted counts for the very bytes that it was found from, and the rules of this file.
    """
    note = path.parent / "__pycache__" / f"{path.stem}.slay-{sys.implementation.cache_tag}.json"
    mark = hashlib.sha256(f"{_rules()} {module} ".encode() + source).hexdigest()
    try:
        seen, digest, names = json.loads(note.read_bytes())
    except (OSError, ValueError):
        seen = ""
    if seen == mark:
        return digest, names
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise SlayError(f"{path}:{error.lineno}: {error.msg}") from error
    except ValueError as error:  # not UTF-8, or with null bytes
        raise SlayError(f"{path}: {error}") from error
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = list(dict.fromkeys(_imports(tree, package)))
    digest = _digest(tree)
    own = note.with_name(f"{note.name}.{os.getpid()}")
    with suppress(OSError):  # a folder that cannot be written to costs time alone
        note.parent.mkdir(exist_ok=True)
        own.write_text(json.dumps([mark, digest, names]))
        own.replace(note)
    return digest, names


@cache
def _rules() -> str:
    return file_digest(Path(__file__))


def _digest(source: ast.Module | str) -> str:
    """Digest of a module's normalised source."""
    tree = ast.parse(source) if isinstance(source, str) else source
    return hashlib.sha256(_text(_normalised(tree)).encode()).hexdigest()


def _text(value: Any) -> str:
    """A syntax tree as text that is the same for every version of Python.

    Fields that a version added are empty where nothing uses them; some versions put an empty text
    into an f-string's format.
    """
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = dict(ast.iter_fields(value))
    if isinstance(value, ast.JoinedStr):
        fields["values"] = [v for v in value.values if getattr(v, "value", None) != ""]
    used = (f"{k}={_text(v)}" for k, v in fields.items() if v is not None and v != [])
    return f"{type(value).__name__}({','.join(used)})"


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Dotted names that a module may import; those of no file are dropped by the caller."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{above}.{base}" if base else above
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _normalised(tree: ast.Module) -> ast.Module:
    """The tree without docstrings and without the version number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            node.body = [s for s in node.body if not _sets_version(s)] or [ast.Pass()]
    return tree


def _sets_version(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__version__"


@lru_cache(maxsize=1)
def commit() -> tuple[str | None, bool | None]:
    """The checkout's commit, and whether tracked files differ from it; None outside a checkout.

    A repository that merely has this package in it, installed or copied, is another project's.
    """
    try:
        if PROJECT not in (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"):
            return None, None
        head, _ = _git("rev-parse", "HEAD", f"HEAD:{PACKAGE.name}/__init__.py").splitlines()
        return head, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None


def _git(*args: str) -> str:
    """What git says of the repository beside the package, whichever the environment names."""
    root = PACKAGE.parent
    place = [f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    command = ["git", "--no-optional-locks", *place, *args]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        command, check=True, cwd=root, env=clean, capture_output=True, encoding="utf-8",
        errors="surrogateescape",
    )  # fmt: skip
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Facts of this machine and its versions, without loading what is not loaded yet."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "triton": _version("triton"),
        "driver": _driver(),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Version of NVIDIA's driver, if there is one."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)*\b", text)
    return found[0] if found else None


def _processor() -> str:
    """The processor's name as the system gives it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
