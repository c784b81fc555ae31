"""Spherical linearised attention: mechanisms, experiments, and the paper made of them.

Importing this package is cheap; torch is loaded by the first name that needs it.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "attend": "slay.attention.functional",
    "get_attention_class": "slay.registry",
    "list_attention_types": "slay.registry",
    "register_attention": "slay.registry",
    "get_task": "slay.tasks",
    "list_tasks": "slay.tasks",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slay' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
