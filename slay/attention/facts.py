"""What the tables say about a mechanism, read from its class."""

from __future__ import annotations

from typing import Any

from slay.registry import ATTENTION, get_attention_class


def facts(name: str, head_dim: int) -> dict[str, Any]:
    """Kernel, cost, number of features and state size of a mechanism at a head dimension."""
    cls = get_attention_class(name)
    one_head = cls.heads_only(head_dim, 1)
    return {
        "name": ATTENTION.canonical(name),
        "module": cls.__module__,
        "kernel": cls.kernel,
        "complexity": cls.complexity,
        "exact": cls.exact,
        "nonnegative": cls.nonnegative,
        "paper": cls.paper,
        "head_dim": head_dim,
        "num_features": getattr(one_head, "num_features", None),
        "state_size": one_head.state_size(head_dim),
    }
