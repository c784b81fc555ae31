"""Training loop: read, step, report, evaluate, save; the same for one and for many processes."""

from __future__ import annotations

import math
import resource
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from slay.attention.layer import accepted
from slay.errors import SlayError
from slay.files import alone
from slay.models.gpt import GPT, Block, GPTConfig, evaluating
from slay.pipeline import texts
from slay.registry import get_attention_class
from slay.training.language import checkpoint, metrics_logger
from slay.training.language.config import TrainConfig
from slay.training.language.data import Text, bits_per_byte, open_text
from slay.training.language.engine import DeepSpeed, Engine, SingleProcess, processes
from slay.training.language.feed import Batches
from slay.training.language.metrics_logger import Line, MetricsLogger
from slay.training.language.schedule import batches, learning_rate, unit_of
from slay.training.language.tokens import IGNORE, Tokens

Progress = Callable[[str], None]
EVALUATED = 16  # sequences per batch of an evaluation


class DivergedError(SlayError):
    """The loss is not finite; the last good checkpoint is kept."""

    def __init__(self, step: int, loss: float):
        super().__init__(f"the loss at step {step} is {loss}; the checkpoints before it are kept")
        self.step = step


@dataclass
class Outcome:
    """Result of a training."""

    metrics: dict[str, Any]
    lines: list[Line] = field(default_factory=list)  # of the log


def train(config: TrainConfig, *, distributed: bool = False, progress: Progress = print) -> Outcome:
    """Train, or resume training. Everything invalid is rejected before the first step."""
    device = _device(config)
    rank, world = processes() if distributed else (0, 1)
    unit = unit_of(config.optim, world)
    text = open_text(config)
    kind = "DeepSpeed" if distributed else "plain"
    digests = digests_of(config, text)
    checkpoint.find(config, kind, world, digests)  # to raise before folders are locked
    with ExitStack() as held:
        # Both may be the same folder.
        folders = (checkpoint.folder_of(config), metrics_logger.folder_of(config))
        for folder in {path.resolve(): path for path in folders}.values() if rank == 0 else ():
            held.enter_context(alone(folder))
        start = checkpoint.find(config, kind, world, digests)
        return _run(config, text, unit, device, start, progress, distributed)


def digests_of(config: TrainConfig, text: Text) -> dict[str, str]:
    """Digests of the files that a run depends on, by the setting that names them."""
    given = [config.optim.deepspeed_config] if config.optim.deepspeed_config else []
    return {"data": text.digest, "deepspeed_config": texts.digest(given)}


def _run(
    config: TrainConfig,
    text: Text,
    unit: int,
    device: torch.device,
    start: Path | None,
    progress: Progress,
    distributed: bool,
) -> Outcome:
    """Train from a checkpoint, or from scratch."""
    torch.manual_seed(config.optim.seed)
    model = GPT(model_config(config, text))
    if config.run.use_triton:  # a setting of this run, not of the model
        for block in model.blocks:
            cast(Block, block).attention.backend = "triton"
    engine: Engine = (DeepSpeed if distributed else SingleProcess)(model, config, device)
    torch.manual_seed(config.optim.seed + engine.rank)  # dropout
    after, state = 0, {}
    if start is not None:
        try:
            engine.load(start)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            line = " ".join(str(error).split())
            raise SlayError(f"{start}: does not fit this model and text ({line})") from error
        after, state = checkpoint.facts_of(start)["step"], checkpoint.remembered(start, engine.rank)
        _set_random(state["random"])
        progress(f"goes on after step {after} ({start})")
    return Run(config, text, engine, unit, after, state, progress).finish()


class Run:
    """A running training."""

    def __init__(
        self,
        config: TrainConfig,
        text: Text,
        engine: Engine,
        unit: int,
        after: int,
        state: dict[str, Any],
        progress: Progress,
    ):
        self.config, self.text, self.engine, self.after = config, text, engine, after
        self.progress = progress if engine.rank == 0 else lambda line: None
        self.steps = batches(config.optim, unit, after)
        first = next(iter(batches(config.optim, unit, after)), (0, 0, 0))[1]
        self.feed = Batches(
            text.train, config.model.context_len, config.optim.seed, engine.rank, engine.world,
            config.run.num_workers, first, state.get("cursors", {}),
        )  # fmt: skip
        self.metrics = MetricsLogger(config, after) if engine.rank == 0 else None
        self.tokens, self.seconds = 0, 0.0  # of the training steps only

    def finish(self) -> Outcome:
        """Run all remaining steps, then the last evaluation."""
        config = self.config
        try:
            for step, _, size in self.steps:
                last = step == config.optim.steps
                begin = time.perf_counter()
                loss, norm = self._step(step, size)
                spent = time.perf_counter() - begin
                self.seconds += spent
                self.tokens += size * config.model.context_len
                if step % config.run.log_every == 0 or last or step == 1:
                    speed = size * config.model.context_len / spent
                    self._report(step, loss, norm, speed)
                if config.run.eval_every and step % config.run.eval_every == 0 and not last:
                    self._evaluate(step)
                if last or (config.run.save_every and step % config.run.save_every == 0):
                    self._save(step)
            metrics = self._evaluate(config.optim.steps, final=True)
            return Outcome(metrics, self.metrics.lines if self.metrics else [])
        finally:
            if self.metrics is not None:
                self.metrics.close(quietly=sys.exc_info()[0] is not None)

    def _step(self, step: int, size: int) -> tuple[float, float]:
        """Take one optimiser step on `size` sequences of all processes; return loss, gradient norm.

        Both are of the mean over the step's tokens, however these are split into pieces and
        processes.
        """
        config, engine = self.config, self.engine
        pieces = config.optim.gradient_accumulation_steps
        parts = [self.feed.take(size // (engine.world * pieces)) for _ in range(pieces)]
        asked = [int((targets != IGNORE).sum()) for _, targets in parts]
        each = engine.mean(sum(asked)) / pieces  # tokens of a piece, on average
        lr = learning_rate(step, config.optim)
        if isinstance(engine, DeepSpeed):
            engine.set_rate(lr)
        total = 0.0
        for (tokens, targets), number in zip(parts, asked, strict=True):
            loss = engine.loss(tokens.to(engine.device), targets.to(engine.device))
            loss = loss * (number / each)
            value = engine.mean(loss.item())
            if not math.isfinite(value):
                self._write({"step": step, "status": "diverged", "loss": value})
                raise DivergedError(step, value)
            engine.backward(loss)
            total += value / pieces
        return total, engine.step(lr)

    def _report(self, step: int, loss: float, norm: float, speed: float) -> None:
        lr = learning_rate(step, self.config.optim)
        left = (self.config.optim.steps - step) * self.seconds / max(1, step - self.after)
        self.progress(
            f"step {step}/{self.config.optim.steps}  loss {loss:.4f}  lr {lr:.2e}  "
            f"{speed:,.0f} tokens/s  {_clock(left)} left"
        )
        self._write(
            {
                "step": step,
                "loss": loss,
                "lr": lr,
                "gradient_norm": norm,
                "tokens_per_second": speed,
            }
        )

    def _write(self, line: Line) -> None:
        if self.metrics is not None:
            self.metrics.write(line)

    def _save(self, step: int) -> None:
        mine = {"cursors": self.feed.cursors, "random": _random()}
        facts = {
            "kind": self.engine.kind,
            "world": self.engine.world,
            "tokenizer": self.text.tokenizer,
            **digests_of(self.config, self.text),
        }
        checkpoint.write(
            self.config,
            step,
            facts,
            mine,
            self.engine.rank,
            self.engine.save,
            self.engine.barrier,
        )

    def _evaluate(self, step: int, final: bool = False) -> dict[str, Any]:
        """Return the loss on the validation text; at the end with the totals of the run."""
        nats = evaluate(self.engine, self.text.validation, self.config)
        found = {
            "validation_loss": nats,
            "perplexity": math.exp(min(nats, 700.0)),
            "bits_per_byte": bits_per_byte(nats, self.text.validation),
        }
        if final:
            found |= self._totals(step)
        self._write({"step": step, **found})
        self.progress(
            f"step {step}  validation loss {nats:.4f}  perplexity {found['perplexity']:.2f}  "
            f"{found['bits_per_byte']:.3f} bits a byte"
        )
        return {"step": step, **found}

    def _totals(self, step: int) -> dict[str, Any]:
        """Metrics of the whole training."""
        model = self.engine.model
        speed = self.tokens / self.seconds if self.seconds else None
        return {
            "unigram_entropy": self.text.unigram_entropy,
            "tokens_per_second": speed,
            "peak_memory_bytes": _peak_memory(self.engine.device),
            "parameters": model.num_parameters,
            "finished": True,
            "flops_utilisation": _utilisation(model, self.config, self.engine, speed),
        }


@torch.no_grad()
def evaluate(engine: Engine, text: Tokens, config: TrainConfig) -> float:
    """Mean cross-entropy in nats per token, over `eval_sequences` evenly spaced sequences or all.

    Every process takes its share; one with no sequences left evaluates sequence 0, uncounted.
    """
    length = config.model.context_len
    there = text.sequences(length)
    number = min(there, config.run.eval_sequences or there)
    chosen = [i * there // number for i in range(number)]
    mine = chosen[engine.rank :: engine.world]
    rounds = math.ceil(math.ceil(number / engine.world) / EVALUATED)
    nats = asked = 0.0
    with evaluating(engine.model):
        for turn in range(rounds):
            part = mine[turn * EVALUATED : (turn + 1) * EVALUATED]
            pairs = [text.sequence(index, length) for index in part or [0]]
            tokens, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
            loss = engine.loss(tokens.to(engine.device), targets.to(engine.device)).item()
            count = int((targets != IGNORE).sum()) if part else 0
            nats += loss * count
            asked += count
    return engine.mean(nats) / engine.mean(asked)


def model_config(config: TrainConfig, text: Text) -> GPTConfig:
    """Configuration of the GPT: the model's, with the vocabulary of the text and the seed."""
    own = dict(config.model)
    epsilon = {"epsilon": own.pop("epsilon")}  # an option of some mechanisms
    known = accepted(get_attention_class(config.model.attention), epsilon)
    own["options"] = {**known, **config.model.options}
    return GPTConfig(vocab_size=text.vocab_size, seed=config.optim.seed, **own)


def _device(config: TrainConfig) -> torch.device:
    """Device to compute on. Raises `SlayError` if it does not support the settings."""
    there = torch.cuda.is_available()
    if config.run.device == "cuda" and not there:
        raise SlayError("device 'cuda': torch sees no GPU here; use device 'cpu' or 'auto'")
    name = "cuda" if there and config.run.device != "cpu" else "cpu"
    if name == "cpu" and config.optim.precision == "fp16":
        raise SlayError("precision 'fp16': needs a GPU; on a CPU use bf16 or fp32")
    if config.run.use_triton and name == "cpu":
        raise SlayError("--use-triton: kernels run on a CUDA GPU; leave it out on a CPU")
    return torch.device(name)


def _random() -> dict[str, Any]:
    """State of the generators that dropout draws from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _peak_memory(device: torch.device) -> int:
    """Peak bytes of the GPU's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# Operations per second of dense matrix products, from the makers' data sheets: fp16 and bf16, fp32.
PEAKS = {
    "H100": (989e12, 67e12), "H200": (989e12, 67e12), "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12), "L4": (121e12, 30.3e12), "A10": (125e12, 31.2e12),
    "V100": (125e12, 15.7e12), "T4": (65e12, 8.1e12),
}  # fmt: skip


def operations(model: GPT) -> float:
    """Operations per token, forward and backward: 6 per matrix weight, plus those of attention."""
    config = model.config
    weights = sum(p.numel() for p in model.blocks.parameters() if p.ndim >= 2)
    weights += config.vocab_size * config.embed_dim
    mechanism = cast(Block, model.blocks[0]).attention
    of_a_head = mechanism.operations(config.context_len, backward=True) / config.context_len
    return 6 * weights + config.n_layers * config.n_heads * of_a_head


def _utilisation(
    model: GPT, config: TrainConfig, engine: Engine, speed: float | None
) -> float | None:
    """Model FLOPs utilisation, as a share of the GPUs' peak; None on a CPU or an unknown GPU."""
    if engine.device.type != "cuda" or speed is None:
        return None
    name = torch.cuda.get_device_name(engine.device)
    peak = next((peaks for key, peaks in PEAKS.items() if key in name), None)
    if peak is None:
        return None
    return speed * operations(model) / (peak[config.optim.precision == "fp32"] * engine.world)


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def command(config: TrainConfig, *, distributed: bool) -> Path:
    """Train from a command line; return the last checkpoint."""
    rank = processes()[0] if distributed else 0

    def say(line: str) -> None:
        if rank == 0:
            print(line, flush=True)

    def ignore(failure: threading.ExceptHookArgs) -> None:
        """Ignore failed writes in TensorBoard's thread: the log's next line raises them."""
        if not issubclass(failure.exc_type, OSError):
            hook(failure)

    hook, threading.excepthook = threading.excepthook, ignore
    try:
        train(config, distributed=distributed, progress=say)
    finally:
        threading.excepthook = hook
    last = checkpoint.complete(checkpoint.folder_of(config))[-1]
    say(f"{last}: done")
    return last
