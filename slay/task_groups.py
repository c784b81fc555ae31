"""The synthetic tasks by name, and groups of them for configurations and tables.

Scores in tables depend on the members of groups, so modules that import this file depend on it.
Jobs do not: each has one task, which it looks up in `slay.registry`.
"""

from __future__ import annotations

from slay.errors import unknown

PATHS = {
    "copy": "slay.tasks.basic:Copy",
    "sort": "slay.tasks.basic:Sort",
    "reverse": "slay.tasks.basic:Reverse",
    "retrieval": "slay.tasks.memory:Retrieval",
    "kv_recall": "slay.tasks.memory:KeyValueRecall",
    "first_token": "slay.tasks.memory:FirstToken",
    "selective_copy": "slay.tasks.memory:SelectiveCopy",
    "long_copy": "slay.tasks.long_range:LongCopy",
    "distant_match": "slay.tasks.long_range:DistantMatch",
    "multihop": "slay.tasks.long_range:MultiHop",
    "stack": "slay.tasks.reasoning:Stack",
    "induction": "slay.tasks.reasoning:Induction",
    "pattern": "slay.tasks.reasoning:Pattern",
    "counting": "slay.tasks.arithmetic:Counting",
    "parity": "slay.tasks.arithmetic:Parity",
    "addition": "slay.tasks.arithmetic:Addition",
    "modular": "slay.tasks.arithmetic:Modular",
    "bigram": "slay.tasks.pattern:Bigram",
    "majority": "slay.tasks.pattern:Majority",
    "noisy_copy": "slay.tasks.robustness:NoisyCopy",
    "compression": "slay.tasks.robustness:Compression",
    "histogram": "slay.tasks.aggregation:Histogram",
    "mqar": "slay.tasks.recall:MultiQueryRecall",
    "mad_in_context_recall": "slay.tasks.mad:InContextRecall",
    "mad_noisy_recall": "slay.tasks.mad:NoisyRecall",
    "mad_fuzzy_recall": "slay.tasks.mad:FuzzyRecall",
    "mad_memorisation": "slay.tasks.mad:Memorisation",
    "mad_selective_copying": "slay.tasks.mad:SelectiveCopying",
    "mad_compression": "slay.tasks.mad:Reconstruction",
}

ATTENTION_CRITICAL = ["copy", "retrieval", "kv_recall", "first_token", "selective_copy"]
ATTENTION_CRITICAL += ["long_copy", "distant_match", "multihop", "induction"]


def task_groups() -> dict[str, list[str]]:
    """Groups of tasks by name: categories such as "memory/*", and selections across categories.

    "core" has the 22 tasks of the study, "attention_critical" those of them that cannot be solved
    without looking up tokens.
    """
    groups: dict[str, list[str]] = {}
    for name, path in PATHS.items():
        category = path.partition(":")[0].rpartition(".")[2]
        groups.setdefault(f"{category}/*", []).append(name)
    beyond = groups["recall/*"] + groups["mad/*"]
    core = [name for name in PATHS if name not in beyond]
    return {**groups, "attention_critical": ATTENTION_CRITICAL, "core": core, "all": list(PATHS)}


def expand_tasks(asked: list[str]) -> list[str]:
    """Expand names and groups to tasks; a group adds those that are not yet listed.

    Raises `UnknownNameError`.
    """
    groups = task_groups()
    tasks: list[str] = []
    for name in asked:
        if not isinstance(name, str) or (name not in groups and name not in PATHS):
            raise unknown("task or group of tasks", name, [*PATHS, *groups])
        tasks += [task for task in groups.get(name, [name]) if name == task or task not in tasks]
    return tasks
