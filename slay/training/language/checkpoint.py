"""Checkpoints of a training, written atomically.

<checkpoint_dir>/<run>/step-00001000/
    model.safetensors, config.json    the model, for `slay export` and `slay generate`
    run.json                          step, settings, number and kind of processes
    process-0.pt, ...                 position in the data and random state of each process
    optimiser.pt or deepspeed/        the optimiser
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from slay import files
from slay.errors import SlayError
from slay.fields import renamed
from slay.files import WriteError, writing
from slay.training.language.config import ModelConfig, TrainConfig

STEP = re.compile(r"step-(\d{8})")
# Fields that must match a checkpoint's weights.
MODEL = ModelConfig.model_fields.keys() - {"epsilon", "dropout", "gradient_checkpointing"}


def folder_of(config: TrainConfig) -> Path:
    """Folder of a run's checkpoints."""
    return Path(config.run.checkpoint_dir) / config.name


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first; partially written ones are ignored."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if STEP.fullmatch(path.name))


def find(
    config: TrainConfig, kind: str, world: int, digests: dict[str, str] | None = None
) -> Path | None:
    """Return the checkpoint to resume from, if any: the run's own last one, or `resume_from`.

    Raises `SlayError` if it is missing, of another model, or of another number or kind of
    processes; for the run's own also if it is of other settings or of files with other `digests`.
    """
    own = complete(folder_of(config))
    path = own[-1] if own else None
    if path is None:
        if not config.run.resume_from:
            return None
        path = Path(config.run.resume_from)
        path = next(reversed(complete(path)), path)
    facts = facts_of(path)
    there, here = facts["settings"], dict(config)
    names = config.identity() if own else [name for name in here if name in MODEL]
    for name in names:
        if there.get(name) != here[name]:
            advice = "; give another --run-name, or the same settings" if own else ""
            raise SlayError(
                f"{path}: made with {name} = {there.get(name)}, not {here[name]}{advice}"
            )
    for name, digest in (digests or {}).items() if own else ():
        if facts.get(name, "") != digest:
            raise SlayError(
                f"{path}: {name} = {here[name]} holds other content now than when this was made; "
                "give another --run-name, or the same content"
            )
    if (facts["kind"], facts["world"]) != (kind, world):
        raise SlayError(
            f"{path}: made by {facts['world']} {facts['kind']} process(es), these are {world} "
            f"{kind}; start as many of the same kind"
        )
    return path


def facts_of(path: Path) -> dict[str, Any]:
    """Contents of a checkpoint's run.json, its settings by today's names."""
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        return {**facts, "settings": renamed(facts["settings"])}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SlayError(f"{path}: is no checkpoint (there is no readable run.json)") from error


def write(
    config: TrainConfig,
    step: int,
    facts: dict[str, Any],
    mine: dict[str, Any],
    rank: int,
    save: Callable[[Path], None],
    barrier: Callable[[], None],
) -> Path:
    """Save a checkpoint from all processes, under a temporary name until complete; delete old ones.

    `mine`: the state of this process. `save`: writes model and optimiser to a folder.
    """
    final = folder_of(config) / f"step-{step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    if rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        with writing(final):
            partial.mkdir(parents=True)
    barrier()
    try:
        with writing(final, "; the checkpoints before it are kept"):
            torch.save(mine, partial / f"process-{rank}.pt")
            save(partial)
            barrier()
            if rank == 0:
                known = {"step": step, "settings": dict(config), **facts}
                text = json.dumps(known, indent=1) + "\n"
                (partial / "run.json").write_text(text, encoding="utf-8")
                _sync(partial)
                files.remove(final)
                os.replace(partial, final)
                _sync(final.parent, deep=False)
    except WriteError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in complete(final.parent)[: -config.run.keep] if rank == 0 else []:
        files.remove(old)
    barrier()
    return final


def remembered(path: Path, rank: int) -> dict[str, Any]:
    """Load the state that a process saved."""
    return torch.load(path / f"process-{rank}.pt", weights_only=True)


def _sync(folder: Path, deep: bool = True) -> None:
    """Flush a folder to disk, with everything in it if `deep`."""
    paths = [folder, *(folder.rglob("*") if deep else ())]
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
