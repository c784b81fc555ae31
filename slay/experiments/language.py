"""Train a language model, in one process or in several through DeepSpeed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from slay.errors import SlayError
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.result import Progress, Result, choose_device
from slay.pipeline import plugins
from slay.pipeline.flags import words
from slay.pipeline.jobs import code
from slay.pipeline.params import LanguageParams
from slay.pipeline.record import Number
from slay.training.language import metrics_logger
from slay.training.language.config import TrainConfig
from slay.training.language.data import open_text
from slay.training.language.tokens import Tokens
from slay.training.language.train import DivergedError, train

SCRATCH = Path(".slay")  # state of interrupted jobs, from which they resume
POINTS = 100  # of the training-loss curve


def run(params: LanguageParams, progress: Progress) -> Result:
    """Metrics: validation loss in nats per token, perplexity, bits per byte, speed, memory.

    `corpus` is the first 52 bits of the training text's hash, as a number. The curve has the loss
    of single steps, and the validation loss every `eval_every` steps.
    """
    fingerprint = code(params, choose_device(params.device).type)
    key = json.dumps([params.model_dump(), fingerprint], sort_keys=True)
    folder = SCRATCH / hashlib.sha256(key.encode()).hexdigest()[:16]
    config = config_of(params, folder)
    status: dict[str, Any] = {}
    try:
        with memory_guard():
            if params.processes > 1:
                _launch(config, params, progress)
            else:
                train(config, progress=progress)
    except DivergedError as error:
        status = {"status": "diverged", "message": str(error)}
    except OutOfMemory as error:
        return Result({}, status="oom", message=str(error))
    lines = metrics_logger.read(folder / "logs" / "run" / "metrics.jsonl")
    if params.processes > 1 and lines[-1].get("status") == "diverged":
        message = f"the loss at step {lines[-1]['step']} is no number"
        status = {"status": "diverged", "message": message}
    text = open_text(config)
    metrics: dict[str, Number] = {} if status else _numbers(lines[-1])
    if isinstance(text.train, Tokens):
        metrics["corpus"] = int(text.train.facts.hash[:13], 16)
        metrics["corpus_tokens"] = text.train.facts.tokens
    keep = ("step", "loss", "validation_loss")
    curve = [{k: line[k] for k in keep if k in line} for line in lines if "status" not in line]
    shutil.rmtree(folder)
    with suppress(OSError):  # other jobs are using the folder
        SCRATCH.rmdir()
    return Result(metrics, curve, **status)


def config_of(params: LanguageParams, folder: Path) -> TrainConfig:
    """Configuration of a job's training."""
    return TrainConfig.of(
        **params.model_dump(exclude={"processes"}),
        run_name="run",
        checkpoint_dir=str(folder / "checkpoints"),
        log_dir=str(folder / "logs"),
        log_every=max(1, params.steps // POINTS),
        save_every=max(100, params.steps // 10),
        keep=1,
    )


def _launch(config: TrainConfig, params: LanguageParams, progress: Progress) -> None:
    """Run DeepSpeed's launcher with `params.processes` processes."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]  # a free one: other trainings may run on this machine
    command = [str(Path(sys.executable).with_name("deepspeed")), f"--master_port={port}"]
    environment = dict(os.environ)
    if params.device == "cpu" or not torch.cuda.is_available():
        environment["DS_ACCELERATOR"] = "cpu"
    if "DS_ACCELERATOR" in environment or "CUDA_VISIBLE_DEVICES" not in environment:
        command += ["--num_accelerators", str(params.processes)]
    # Otherwise the launcher takes the visible devices, which are those that this job has claimed.
    command += ["--module", "slay.training.language", *words(config)]
    command += plugins.words([config.model.attention])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        errors="replace",
    ) as process:
        last = ""
        for line in process.stdout or ():
            progress(line.rstrip())
            last = line.strip() if line.startswith("Error:") else last
    lines = metrics_logger.read(metrics_logger.folder_of(config) / "metrics.jsonl")
    diverged = bool(lines) and lines[-1].get("status") == "diverged"
    if process.returncode and not diverged:
        raise SlayError(
            last.removeprefix("Error: ") or f"DeepSpeed ended with {process.returncode}"
        )


def _numbers(line: dict[str, Any]) -> dict[str, Number]:
    """Metrics of the whole training, from the last line of its log."""
    metrics = {k: v for k, v in line.items() if k not in ("validation_loss", "finished")}
    return {"loss": line["validation_loss"], **{k: v for k, v in metrics.items() if v is not None}}
