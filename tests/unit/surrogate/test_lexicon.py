"""Lemmas: WordNet's rules with their oddities, the improved ones, and the packaged dictionary."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdxcli.methods.surrogate import nltk_data
from rdxcli.methods.surrogate.lexicon import PackagedLexicon, TableLexicon, WordNetLexicon, suffix_forms

INDEX = {
    "noun": "dog man men glass glasses pant pants box city wolf leaf light hot_dog church",
    "verb": "rid ride shin shine be run stop park leave",
    "adj": "big good red",
}
IRREGULAR = {
    "noun": "men man\nwolves wolf\nleaves leaf",
    "verb": "is be\nran run\nrunning run\nstopped stop",
    "adj": "better good well\nbigger big",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / nltk_data.WORDNET
    place.mkdir(parents=True)
    for name, words in INDEX.items():
        lines = ["  1 This is a licence line", *(f"{word} n 1 0 1 0 00001740  " for word in words.split())]
        (place / f"index.{name}").write_text("\n".join(lines) + "\n", "utf-8")
        (place / f"{name}.exc").write_text(IRREGULAR[name] + "\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "pos", "original", "improved"),
    [
        ("dogs", "n", "dog", "dog"),
        ("Dogs", "n", "Dogs", "dog"),
        ("riding", "v", "rid", "ride"),
        ("rides", "v", "rid", "ride"),
        ("shining", "v", "shin", "shine"),
        ("men", "n", "men", "man"),
        ("glasses", "n", "glass", "glasses"),
        ("pants", "n", "pant", "pants"),
        ("wolves", "n", "wolf", "wolf"),
        ("leaves", "n", "leaf", "leaf"),
        ("leaves", "v", "leave", "leave"),
        ("cities", "n", "city", "city"),
        ("boxes", "n", "box", "box"),
        ("is", "v", "be", "be"),
        ("better", "a", "good", "good"),
        ("bigger", "a", "big", "big"),
        ("unheard", "a", "unheard", "unheard"),
    ],
)
def test_wordnet_lemmas(folder: Path, word: str, pos: str, original: str, improved: str) -> None:
    assert WordNetLexicon.from_folder(folder).lemma(word, pos) == original
    assert WordNetLexicon.from_folder(folder, improved=True).lemma(word, pos) == improved


def test_wordnet_acceptance(folder: Path) -> None:
    lexicon = WordNetLexicon.from_folder(folder)
    assert lexicon.lookup("Dogs", "n") == "Dogs"  # accepted through its lower-case form
    assert lexicon.lookup("grass.", "n") is None
    assert lexicon.lookup("dog", "v") is None
    assert lexicon.compound(("hot", "dog"))
    assert not lexicon.compound(("red", "dog"))
    assert set(lexicon.describe()["sha256"]) == set(nltk_data.WORDNET_FILES)
    with pytest.raises(ValueError, match="part of speech"):
        lexicon.lemma("dog", "x")


def test_suffix_rules_apply_once_each() -> None:
    assert suffix_forms("churches", "n") == ["churche", "church"]
    assert suffix_forms("women", "n") == ["woman"]
    assert suffix_forms("wet", "a") == []


def test_table() -> None:
    lexicon = TableLexicon([("dogs", "n", "dog", True), ("xx", "n", "xx", False)])
    assert lexicon.lookup("dogs", "n") == "dog"
    assert lexicon.lookup("xx", "n") is None
    assert lexicon.lookup("cat", "n") is None
    assert not lexicon.compound(("hot", "dog"))


@pytest.mark.parametrize(
    ("word", "pos", "lemma"),
    [
        ("Dogs", "n", "dog"),
        ("men", "n", "man"),
        ("riding", "v", "ride"),
        ("leaves", "n", "leaf"),
        ("better", "a", "good"),
        ("selfies", "n", "selfies"),
        ("wetsuit", "n", "wetsuit"),
        ("seagulls", "n", "seagull"),
        ("glamping", "v", "glamping"),
        ("womens", "n", "woman"),
        ("close-up", "n", "close-up"),
        ("grass.", "n", None),
        ("1950s", "n", None),
        ("--", "n", None),
    ],
)
def test_packaged_lemmas(word: str, pos: str, lemma: str | None) -> None:
    assert PackagedLexicon().lookup(word, pos) == lemma


def test_packaged_lexicon_needs_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package holds pickled models for unknown words; the dictionary look-ups we use never open them."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    lexicon = PackagedLexicon()
    assert lexicon.lookup("horses", "n") == "horse"
    assert lexicon.lookup("flibbertigibbets", "n") == "flibbertigibbets"
    assert lexicon.possible("run", "v")
    assert not lexicon.possible("the", "v")
