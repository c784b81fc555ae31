"""Provenance of results: the commit they were made at, and facts about the machine."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = 'name = "slay-attention"'  # in pyproject.toml


@lru_cache(maxsize=1)
def commit() -> tuple[str | None, bool | None]:
    """Return (commit, dirty) of the checkout; (None, None) outside a checkout.

    A repository of another project that contains an installed or copied slay does not count.
    """
    try:
        if PROJECT not in (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"):
            return None, None
        head, _ = git("rev-parse", "HEAD", f"HEAD:{PACKAGE.name}/__init__.py").splitlines()
        return head, bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None


def git(*args: str) -> str:
    """Output of git in the repository that contains the package, whatever GIT_* variables say."""
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
    """Facts about this machine and installed versions, without importing the libraries."""
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
