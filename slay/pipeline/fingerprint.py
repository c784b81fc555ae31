"""Fingerprints of the code that results depend on.

A job depends only on the files under `slay/` that it can import. Their fingerprint ignores
comments, docstrings, formatting and the version number. Modules that name, check or pass on values
but compute none are left out: a new registry entry must not invalidate measurements of the others.
A job's own registry entries count, and the modules they name are followed; its parameters are in
its record. Triton kernels count only where they may run; a job on a CPU uses PyTorch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from slay.errors import SlayError
from slay.pipeline import provenance
from slay.pipeline.provenance import git

LIGHT = ("docstrings", "errors", "fields", "files", "registry", "yaml_files")
LEFT_OUT = {f"slay.{name}" for name in LIGHT}
KERNELS = "slay.ops.triton"  # prefix of the kernels' modules


def left_out(module: str) -> bool:
    """Return True for modules that compute no value of a measurement."""
    return module in LEFT_OUT or f"{module}.".startswith("slay.pipeline.")


def fingerprint(modules: Iterable[str], *, kernels: bool = True) -> str:
    """Fingerprint of the import closure of some modules: 16 hex digits.

    A registry entry, `module:attribute`, is itself part of the fingerprint. Without `kernels`,
    Triton kernels are left out.
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
    """Import closure: the modules that some modules can import, themselves included, sorted.

    Limited to this package and to the top-level packages that `modules` name: modules that an
    external mechanism imports from its own package count, third-party packages do not. Imports
    inside functions, relative imports and parent packages count. Without `kernels`, Triton kernels
    and modules that only they import are left out.
    """
    seen: set[str] = set()
    waiting = [name.partition(":")[0] for name in modules]
    for name in waiting:
        _follow(name.partition(".")[0])
    while waiting:
        name = waiting.pop()
        parents = [name[:i] for i, c in enumerate(name) if c == "."]
        for module in (name, *parents):
            if module in seen or left_out(module):
                continue
            if not kernels and module.startswith(KERNELS):
                continue
            seen.add(module)
            waiting.extend(_read(module)[1])
    return sorted(seen)


def changed_files(modules: Iterable[str], commit: str, *, kernels: bool = True) -> list[str]:
    """Files of the import closure of some modules that changed since a commit.

    Raises `OSError` without git, and `subprocess.SubprocessError` if git lacks the commit.
    """
    root = provenance.PACKAGE.parent
    git("cat-file", "-e", f"{commit}^{{commit}}")
    listed = git("ls-tree", "-r", "-z", "--name-only", commit, provenance.PACKAGE.name)
    there = set(listed.split("\0"))
    changed = []
    for name in closure(modules, kernels=kernels):
        path = _source(name)
        if path is None or not path.is_relative_to(root):
            continue
        file = path.relative_to(root).as_posix()
        before = _digest(git("cat-file", "blob", f"{commit}:{file}")) if file in there else None
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


_OUTSIDE: dict[str, Path] = {}  # external top-level modules and their locations


def _follow(top: str) -> None:
    """Include an external top-level module in import closures."""
    if top == provenance.PACKAGE.name or top in _OUTSIDE:
        return
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # it exists but cannot be imported
        spec = None
    if spec is None or spec.origin is None:
        raise SlayError(f"there is no module {top!r} here; PYTHONPATH can say where it is")
    origin = Path(spec.origin)
    _OUTSIDE[top] = origin.parent if spec.submodule_search_locations else origin.with_suffix("")


def _source(module: str) -> Path | None:
    """Source file of a module that closures include; None if there is none."""
    parts = module.split(".")
    root = provenance.PACKAGE if parts[0] == provenance.PACKAGE.name else _OUTSIDE.get(parts[0])
    if root is None:
        return None
    base = root.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def forget() -> None:
    """Clear caches, so that source files are read again if they changed in the meantime."""
    _read.cache_clear()
    _sources.cache_clear()


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's normalised source, and its imports that closures include."""
    path = _source(module)
    if path is None:
        raise SlayError(f"{module}: there is no such module")
    digest, names = _known(path, path.read_bytes(), module)
    return digest, tuple(name for name in names if _source(name))


def _known(path: Path, source: bytes, module: str) -> tuple[str, list[str]]:
    """Digest of a source and the names that it imports, cached in `__pycache__`.

    A cache entry is valid only for the same source bytes and an unchanged version of this file.
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
    with suppress(OSError):  # an unwritable folder only costs time
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
    """Serialise a syntax tree identically under every version of Python.

    Empty fields are skipped, since newer versions add some; so are the empty strings that some
    versions put into the format of an f-string.
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
    """Dotted names that a module may import; the caller drops names without a file."""
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
