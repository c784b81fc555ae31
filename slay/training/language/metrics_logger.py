"""Log of a training: one line of JSON per report, TensorBoard, and optionally Weights & Biases."""

from __future__ import annotations

import json
import math
import os
import secrets
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from slay import files
from slay.errors import SlayError
from slay.files import WriteError, writing
from slay.training.language.config import TrainConfig

Line = dict[str, Any]


class MetricsLogger:
    """Writer of metrics.jsonl in the run's folder, of TensorBoard and Weights & Biases.

    On resume, the lines of steps that will be repeated are dropped.
    """

    def __init__(self, config: TrainConfig, after: int):
        self.folder = folder_of(config)
        self.path = self.folder / "metrics.jsonl"
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open(after)
        self.wandb = _wandb(config, self.folder, after) if config.run.wandb else None

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.path, "; the checkpoints are kept")

    def _open(self, after: int) -> None:
        known = (line for line in read(self.path) if line["step"] <= after)
        self.lines = [line for line in known if "finished" not in line]
        files.write(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        self.file = self.path.open("a", encoding="utf-8", buffering=1)
        self.board = _tensorboard(self.folder, after)

    def write(self, line: Line) -> None:
        """Write a line with its `step`; numbers that are not finite become null."""
        clean = {k: None if _none(v) else v for k, v in line.items()}
        self.lines.append(clean)
        numbers = {k: v for k, v in clean.items() if isinstance(v, int | float) and k != "step"}
        with self._writing():
            self.file.write(json.dumps(clean) + "\n")
            for name, value in numbers.items() if self.board is not None else ():
                self.board.add_scalar(name, value, line["step"])
        if self.wandb is not None:
            self.wandb.log(numbers, step=line["step"])

    def close(self, quietly: bool = False) -> None:
        """Close the log. `quietly`: suppress write errors, which would hide an earlier error."""
        with suppress(WriteError) if quietly else nullcontext(), self._writing():
            self.file.close()
            if self.board is not None:
                self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def folder_of(config: TrainConfig) -> Path:
    """Folder of a run's log."""
    return Path(config.run.log_dir) / config.name


def read(path: Path) -> list[Line]:
    """Read the lines of a log, without incomplete ones."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines


def _none(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _tensorboard(folder: Path, after: int) -> Any:
    """Writer for TensorBoard, or None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=after + 1 if after else None)


def _wandb(config: TrainConfig, folder: Path, after: int) -> Any:
    """Run of W&B: the one that contains the steps up to `after`, or a new one."""
    try:
        import wandb
    except ImportError as error:
        raise SlayError("--wandb: not installed; pip install wandb") from error
    known = folder / "wandb-id"
    if not (after and known.exists()):
        known.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
    return wandb.init(
        project="slay",
        name=config.name,
        id=known.read_text(),
        resume="allow",
        allow_val_change=True,
        dir=folder,
        config=dict(config),
        mode=cast(Any, os.environ.get("WANDB_MODE", "offline")),
    )
