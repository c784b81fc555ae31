"""Experiments and files behind each table and figure; imported by the workflow, so kept light."""

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

# Files that a table or figure reads beside its records and its template.
PRINTED = "results/published/printed.yaml"
RUNS = "results/published/*/about.json"
BENCHMARKS = "results/published/kernels/*.jsonl"
CLAIMS = ["paper/claims.yaml", "paper/parts/verdicts.tex.j2", PRINTED, RUNS]
FILES = {
    "tables/quality": [PRINTED],
    "tables/language": [PRINTED],
    "tables/machines": [PRINTED, RUNS, BENCHMARKS],
    "tables/runs": [PRINTED, RUNS],
    "tables/claims": CLAIMS,
    "tables/claims-ours": CLAIMS,
    "figures/machines": [PRINTED, RUNS, BENCHMARKS],
}


def module_of(table: str) -> str:
    """The module that provides the context of a table."""
    name = "claims" if table.startswith("claims") else table.replace("-", "_")
    return f"slay.report.tables.{name}"
