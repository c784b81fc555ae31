"""Strings made for shells, folders and LaTeX stay text, from the configuration to the PDF."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from conftest import SMOKE
from pypdf import PdfReader

from slay.training.language.tokens import Writer

pytestmark = [pytest.mark.workflow, pytest.mark.tex]

TITLE = r"""50% of $x_1^2$ & "{#2}" ~ \input{secret} <b> 'it' $(touch hacked); ☃ Ψé"""
DATA = """my $(touch hacked) `touch hacked`; touch hacked & {threads} 'a' "b" 100%_é #1 \\x"""


def test_they_stay_text(checkout):
    (checkout.path / DATA).mkdir()
    for split in ("train", "validation"):
        file = checkout.path / DATA / f"{split}.bin"
        writer = Writer(file, name=split, tokenizer="bytes", vocab_size=257, end=256)
        writer.add(np.frombuffer(b"some text, again and again. " * 40, dtype=np.uint8), 1120)
        writer.close()
    path = checkout.path / SMOKE
    config = yaml.safe_load(path.read_text())
    config["title"] = TITLE
    config["plugins"] = {"my_soft.2": "slay.attention.elu:EluAttention"}
    config["attention"].append("my_soft.2")
    config["experiments"]["quality"].append({"attention": "my_soft.2", "head_dim": 16})
    config["experiments"]["language"][0]["data"] = DATA
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    before = set(checkout.path.iterdir())

    done = checkout.run("--cores", "2", "paper", "--configfile", SMOKE)

    assert done.returncode == 0, done.stdout[-5000:]
    assert set(checkout.path.iterdir()) == before
    assert not list(checkout.path.rglob("*hacked"))
    records = [json.loads(p.read_text()) for p in checkout.records() if "my-touch-hacked" in str(p)]
    assert [record["params"]["data"] for record in records] == [DATA] * 2
    pages = PdfReader(checkout.path / "results/smoke/paper/slay.pdf").pages
    text = " ".join(" ".join(page.extract_text() for page in pages).split())
    for words in ("50% of $x_1^2$ &", r"\input{secret} <b>", "$(touch hacked);", "[U+2603]"):
        assert words in text
    assert "{threads}" in text
    assert "my_soft.2" in text
    assert checkout.planned() == set()
