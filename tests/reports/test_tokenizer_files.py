"""A document's tokens are all of it, whatever else a tokenizer's file asks for."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Codec
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from slay.errors import SlayError
from slay.training.language.prepare import prepare_tokens
from slay.training.language.stream import END, Tokenizer, source, whole
from slay.training.language.tokens import pack, read

DOCUMENT = " ".join(f"word{i % 7}" for i in range(100))
KINDS = {
    "words": (
        lambda: models.WordLevel(unk_token="?"),
        pre_tokenizers.WhitespaceSplit(),
        trainers.WordLevelTrainer(special_tokens=["?", END]),
    ),
    "bytes": (
        models.BPE,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        trainers.BpeTrainer(
            special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    ),
    "pieces": (
        models.Unigram,
        pre_tokenizers.Metaspace(),
        trainers.UnigramTrainer(special_tokens=["?", END], unk_token="?", vocab_size=40),
    ),
}


def trained(kind):
    model, pre_tokenizer, trainer = KINDS[kind]
    codec = Codec(model())
    codec.pre_tokenizer = pre_tokenizer
    codec.train_from_iterator([DOCUMENT, "hello world"], trainer)
    if kind == "bytes":
        codec.decoder = decoders.ByteLevel()
    return codec


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """A tokenizer's file, and the same tokenizer with all that can change a document."""
    folder = tmp_path_factory.mktemp(request.param)
    codec = trained(request.param)
    codec.save(str(folder / "plain.json"))
    ends = {"single": f"{END} $A {END}", "special_tokens": [(END, codec.token_to_id(END))]}
    codec.post_processor = processors.TemplateProcessing(**ends)
    codec.enable_truncation(8)
    codec.enable_padding(length=8)
    for name, value in (("dropout", 0.9), ("alpha", 0.1), ("nbest_size", 5)):
        if hasattr(codec.model, name):
            setattr(codec.model, name, value)
    codec.save(str(folder / "tokenizer.json"))
    return folder


@given(st.sampled_from([DOCUMENT, "word1", "hello", f"{DOCUMENT} hello"]))
def test_truncation_padding_and_random_choices_of_a_file_are_switched_off(saved, text):
    """A tokenizer.json that truncates at 8 leaves 8 tokens of a document, or draws them."""
    plain = Codec.from_file(str(saved / "plain.json"))
    ours = Tokenizer(str(saved / "tokenizer.json"))
    expected = plain.encode(text, add_special_tokens=False).ids
    for codec in (ours, pickle.loads(pickle.dumps(ours))):
        for _ in range(3):
            assert codec.encode(text).tolist() == expected


@given(st.lists(st.sampled_from([END, "hello", "word1", " ", "world"]), max_size=9).map("".join))
def test_text_that_spells_the_end_token_does_not_end_a_document(saved, text):
    """<|endoftext|> inside of a document becomes the end token and cuts it in two."""
    ours = Tokenizer(str(saved / "tokenizer.json"))
    for codec in (ours, pickle.loads(pickle.dumps(ours))):
        tokens = codec.encode(text)
        assert codec.end not in tokens
        if "bytes" in saved.name:
            assert codec.decode(tokens.tolist()) == text


@given(st.lists(st.integers(0, 70_000), min_size=2, max_size=5, unique=True))
def test_numbers_with_gaps_are_held(tmp_path_factory, numbers):
    """Tokens come back as others: a vocabulary with gaps is stored in too small a type."""
    folder = tmp_path_factory.mktemp("gaps")
    vocabulary = {f"w{n}": n for n in numbers}
    codec = Codec(models.WordLevel(vocabulary, unk_token=f"w{numbers[0]}"))
    codec.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    codec.save(str(folder / "tokenizer.json"))
    (folder / "a.txt").write_text(" ".join(vocabulary))
    ours = Tokenizer(str(folder / "tokenizer.json"))
    text = whole(source(str(folder / "a.txt")), ours)
    assert text.row.tolist() == [*numbers, ours.end]
    assert max(text.row) < text.facts.vocab_size
    (train,) = prepare_tokens([str(folder / "a.txt")], folder / "t", ours.name, 0.0)
    assert read(folder / "t" / "train.bin").row.tolist() == [*numbers, train.end]


def test_a_token_that_its_type_cannot_hold_is_refused():
    """Token 300 is stored as 44."""
    with pytest.raises(SlayError, match="token 300"):
        pack([np.array([300])], name="t", tokenizer="t", vocab_size=257, end=256, size=1)


def test_a_word_without_a_token_is_one_line(tmp_path):
    """ "Missing [UNK] token from the vocabulary" as a traceback."""
    Codec(models.WordLevel({"a": 0})).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SlayError, match=r"cannot encode a document \(.*UNK"):
        Tokenizer(str(tmp_path / "tokenizer.json")).encode("b")
