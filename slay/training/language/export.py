"""Export of trained models, and text generation from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from slay.errors import SlayError
from slay.files import new_folder
from slay.models.gpt import check_sampling, load, sample
from slay.training.language import checkpoint
from slay.training.language.stream import Tokenizer
from slay.training.language.tokens import TOKENIZER

LENGTH = 200  # default tokens of a continuation


def export_model(path: Path, out: Path) -> dict[str, Any]:
    """Copy the model of a checkpoint, or of a run's last one, with its tokenizer."""
    path = next(reversed(checkpoint.complete(path)), path)
    facts = checkpoint.facts_of(path)
    load(path)  # or raise before anything is written
    tokenizer = facts["tokenizer"]
    known = {"attention": facts["settings"]["attention"], "step": facts["step"]}
    with new_folder(out) as folder:
        for name in ("model.safetensors", "config.json"):
            shutil.copyfile(path / name, folder / name)
        if Path(tokenizer).is_file():
            shutil.copyfile(tokenizer, folder / TOKENIZER)
            tokenizer = TOKENIZER
        text = json.dumps(known | {"tokenizer": tokenizer, "settings": facts["settings"]}, indent=1)
        (folder / "training.json").write_text(text + "\n", encoding="utf-8")
    return known


def continuations(
    folder: Path,
    prompt: str,
    *,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    device: str,
) -> Iterator[str]:
    """Yield the prompt, then text as it is sampled, until the end token or `max_new_tokens`.

    If None, that is `LENGTH`, limited to the remaining positions if these are learned.
    """
    check_sampling(temperature, top_k, top_p)
    there = "cuda" if torch.cuda.is_available() else "cpu"
    model = load(folder, there if device == "auto" else device)
    try:
        facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlayError(f"{folder}: has no readable training.json; see `slay export`") from error
    codec = _codec(folder, facts["tokenizer"])
    asked = codec.encode(prompt).tolist() or [codec.end]
    room = model.config.context_len - len(asked) + 1
    learned = model.config.positions == "learned"
    if max_new_tokens is None:
        max_new_tokens = min(LENGTH, max(1, room)) if learned else LENGTH
    if learned and max_new_tokens > room:
        raise SlayError(
            f"--max-new-tokens {max_new_tokens}: the model has learned "
            f"{model.config.context_len} positions, {max(0, room)} are left after the prompt"
        )
    generator = torch.Generator(model.token.weight.device).manual_seed(seed)
    tokens = torch.tensor([asked], device=model.token.weight.device)
    yield prompt
    with torch.no_grad():
        logits, state = model(tokens, output_final_state=True)
        logits = logits[:, -1]  # (1, V)
        new: list[int] = []
        shown = ""
        for _ in range(max_new_tokens):
            token = sample(logits, temperature, top_k, top_p, generator)  # (1,)
            if int(token) == codec.end:
                break
            new.append(int(token))
            text = codec.decode(new)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else inside a character
                yield text[len(shown) :]
                shown = text
            if len(new) < max_new_tokens:
                logits, state = model.step(token, state)


class Bytes:
    """Byte tokenizer of the built-in corpus."""

    end = 256

    def encode(self, text: str) -> torch.Tensor:
        return torch.tensor(list(text.encode()), dtype=torch.int64)

    def decode(self, tokens: list[int]) -> str:
        return bytes(t for t in tokens if t < self.end).decode(errors="replace")


def _codec(folder: Path, name: str) -> Any:
    if name == "bytes":
        return Bytes()
    local = folder / name
    return Tokenizer(str(local) if local.is_file() else name)
