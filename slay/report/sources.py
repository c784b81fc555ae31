"""Experiments behind each table and figure; imported by the workflow, so kept light."""

EVERY = ["quality", "scaling", "max_context", "ablation", "tasks", "language"]

TABLES: dict[str, list[str]] = {
    "mechanisms": [],
    "quality": ["quality"],
    "scaling": ["scaling"],
    "tasks": ["tasks"],
    "tasks-full": ["tasks"],
    "passes": ["scaling"],
    "longest-context": ["max_context"],
    "budget": ["ablation"],
    "denominators": ["quality"],
    "language": ["language"],
    "machines": ["scaling"],
    "runs": EVERY,
    "claims": EVERY,
    "claims-ours": EVERY,
}
FIGURES: dict[str, list[str]] = {
    "quality": ["quality"],
    "scaling": ["scaling"],
    "machines": ["scaling"],
    "tasks": ["tasks"],
    "training": ["tasks"],
    "lengths": ["tasks"],
    "budget": ["ablation"],
    "normalisers": ["quality"],
    "profiles": ["analysis"],
    "quadrature": ["analysis"],
    "reconstruction": ["analysis"],
    "entropy": ["analysis"],
    "maps": ["analysis"],
    "sphere": ["analysis"],
    "decision": ["analysis"],
    "language": ["language"],
}


def module_of(table: str) -> str:
    """The module that provides the context of a table."""
    name = "claims" if table.startswith("claims") else table.replace("-", "_")
    return f"slay.report.tables.{name}"
