"""Words of captions as a linguist would have them: tags, lemmas, compounds, names, languages."""

from __future__ import annotations

import hashlib
import json
import pickle  # noqa: TID251 - written here, to be refused
from pathlib import Path

import numpy as np
import pytest

from rdxcli.methods.surrogate import hanta
from rdxcli.methods.surrogate.caption_tagger import CaptionTagger
from rdxcli.methods.surrogate.extraction import Concept, ConceptExtractor, load_extractor
from rdxcli.methods.surrogate.languages import detect
from rdxcli.methods.surrogate.lexicon import CaptionLexicon
from rdxcli.methods.surrogate.tokenising import LexiconTagger, Tagger, recase, tokenise
from rdxcli.methods.surrogate.vocabulary import count_concepts, fit_vocabulary

HERE = Path(__file__).parent
GOLDEN = HERE.parents[1] / "golden" / "data" / "explain_r" / "captions.json"
EITHER = {"x": "av", "y": "no", "z": "na", "w": "np", "q": "nv", "b": "ao", "c": "navop"}
AUXILIARIES = set("is are was were be been am being 's 're 'm has have had do does did".split())  # noqa: SIM905


@pytest.fixture(scope="module")
def english() -> ConceptExtractor:
    return load_extractor()


@pytest.mark.parametrize(
    ("caption", "wanted", "unwanted"),
    [
        ("A dog jumps over a gate", "jump/v dog/n gate/n", "jump/n"),
        ("two men ride bikes in the parks", "ride/v bike/n park/n", "ride/n"),
        ("others watch a parade", "watch/v", "watch/n"),
        ("people in traditional dress stand outside", "stand/v dress/n", "stand/n"),
        ("a photo of a fruit stand on a busy street", "", "stand/v"),
        ("a woman in a tank top runs", "tank top/n run/v", "top/a top/n run/n"),
        ("a man holds a ball in his left hand", "left/a hand/n hold/v", "leave/v"),
        ("a boy on a moped", "moped/n", "mope/v mop/v"),
        ("the hot dog fell on the ground", "hot dog/n fall/v", "fell/v hot/a dog/n"),
        ("two hot dogs beside a fire hydrant", "hot dog/n fire hydrant/n", "fire/n"),
        ("a crowd stands in front of a statue", "crowd/n statue/n stand/v", "front/n"),
        ("a small plane lands on the runway", "land/v plane/n", "land/n"),
        ("a football team practices on the field", "practice/v", "practice/n"),
        ("She is the best dancer of Los Angeles", "good/a dancer/n Los Angeles/m", "be/v best/a angele/n"),
        ("christmas in texas", "Christmas/m Texas/m", "christma/n texa/n"),
        ("it has been a day with the one", "day/n", "be/v have/v one/n it/n"),
        ("a close - up of an owl", "close-up/n owl/n", "close/n"),
        # each clause has one finite verb, that agrees with its subject
        ("a nurse and a farmer stare at the clock .", "stare/v", "stare/n"),
        ("a man and his daughter stand together looking at a map", "stand/v", "stand/n"),
        ("two ladies in their tennis uniforms kick a can", "kick/v uniform/n", "kick/n uniform/v"),
        ("three cats are sleeping on some metal bars with a toy", "bar/n sleep/v", "bar/v"),
        ("one nurse helps another carry a box", "help/v", "help/n"),
        ("a teenage girl dressed in white stands on a dusty road", "stand/v", "stand/n"),
        ("a small girl dressed in red running along a wall", "run/v", "running/n"),
        ("a farmer holding reins is standing on a cart", "hold/v", "holding/n"),
        ("a boy wearing a white tank top , blue jeans and a cap", "tank top/n", "top/a top/n tank/n"),
        ("a man is typing", "type/v", "typing/n"),
        ("a brick building", "building/n", "build/v"),
    ],
)
def test_concepts_of_a_caption(english: ConceptExtractor, caption: str, wanted: str, unwanted: str) -> None:
    found = {str(concept).replace(" ", "_") for concept in english.concepts(caption)}
    for spelled in wanted.replace(" top/", "_top/").replace("hot dog/", "hot_dog/").replace(
        "fire hydrant/", "fire_hydrant/"
    ).replace("Los Angeles/", "Los_Angeles/").split():  # fmt: skip
        assert spelled in found, found
    assert not found & set(unwanted.split()), found


@pytest.mark.parametrize(
    ("word", "pos", "tag", "lemma"),
    [
        ("christmas", "n", "NN", "Christmas"),
        ("texas", "n", "NN", "Texas"),
        ("adidas", "n", "NN", "adidas"),
        ("vegas", "n", "NN", "Vegas"),
        ("galleries", "n", "NNS", "gallery"),
        ("reeds", "n", "NNS", "reed"),
        ("goods", "n", "NNS", "goods"),
        ("placemats", "n", "NNS", "placemat"),
        ("twenties", "n", "NNS", "twenty"),
        ("selfies", "n", "NNS", "selfie"),
        ("flibbertigibbas", "n", "NNS", "flibbertigibbas"),
        ("sunglasses", "n", "NNS", "sunglasses"),
        ("men", "n", "NNS", "man"),
        ("leaves", "n", "NNS", "leaf"),
        ("leaves", "v", "VBZ", "leave"),
        ("fell", "v", "VBD", "fall"),
        ("riding", "v", "VBG", "ride"),
        ("bigger", "a", "JJR", "big"),
        ("are", "v", "VBP", None),
        ("grass.", "n", "NN", None),
    ],
)
def test_lemmas(word: str, pos: str, tag: str, lemma: str | None) -> None:
    assert CaptionLexicon().lookup(word, pos, tag) == lemma


def test_german_and_dutch_words() -> None:
    german = load_extractor(language="de")
    found = {str(concept) for concept in german.concepts("Eine Frau hält zwei rote Bälle neben dem alten Baum")}
    assert found == {"Frau/n", "Ball/n", "Baum/n", "rot/a", "alt/a", "halten/v"}
    with pytest.raises(ValueError, match="knows English only"):
        load_extractor("packaged", language="de")


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (["a dog jumps over a gate", "two men on a bench"], "en"),
        (["Adidas Superstar sneakers by Pharrell", "a Fiat Panda on a road in Milano"], "en"),
        (["Ein Hund springt über das Tor", "zwei Männer fahren auf Fahrrädern"], "de"),
        (["un chien saute par-dessus la barrière", "deux hommes font du vélo dans la rue"], "fr"),
        (["一只狗跳过大门", "两个男人骑自行车"], None),
    ],
)
def test_languages(texts: list[str], code: str | None) -> None:
    assert detect(texts).code == code


def test_models_are_read_without_running_anything() -> None:
    plain = {"a": [1, 2.5, None, True, "x"], ("b", 3): {1, 2}, "c": np.float64(0.25), "d": frozenset([1]), "e": ()}
    assert hanta.plain_content(pickle.dumps(plain, protocol=4)) == plain
    for harmful in (print, Path("x"), np.zeros(3), 3j):
        with pytest.raises(ValueError, match="plain data"):
            hanta.plain_content(pickle.dumps(harmful, protocol=4))


def test_frequent_concepts_are_cut_aloud(english: ConceptExtractor) -> None:
    captions = {str(i): [f"a dog near a {thing}"] for i, thing in enumerate(["tree", "tree", "tree", "car", "house"])}
    counts = count_concepts(captions, english)
    vocabulary = fit_vocabulary(counts, min_count=2, max_threshold=0.6)
    rows = {f"{row['lemma']}/{row['pos']}": row for row in vocabulary.rows()}
    assert [row["index"] for row in rows.values()] == [0, "", "", ""]
    assert rows["tree/n"]["status"] == "kept"
    assert (rows["dog/n"]["status"], rows["dog/n"]["reason"]) == ("cut", "in more than 0.6 of the images")
    assert rows["car/n"]["reason"] == "in fewer than 2 images"
    assert any("dog/n" in note for note in vocabulary.notes)
    kept = fit_vocabulary(counts, min_count=2, max_threshold=0.6, keep=["dog", "car/n"], stop=["tree"])
    assert [str(concept) for concept in kept.concepts] == ["car/n", "dog/n"]


def tagged(text: str) -> dict[str, tuple[str, str]]:
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {digest: (part, tags) for digest, part, tags in rows}


def share_right(tagger: Tagger, captions: list[str], part: str | None = None) -> tuple[float, int]:
    """Share of words with the right part of speech, auxiliaries and punctuation apart, and their number."""
    gold = tagged((HERE / "tagged_captions.txt").read_text("utf-8"))
    right = words = 0
    for caption in dict.fromkeys(captions):
        known, tags = gold.get(hashlib.sha256(caption.encode()).hexdigest()[:16], ("", ""))
        if not tags or part not in (None, known):
            continue
        tokens = tokenise(caption)
        for word, gold_tag, tag in zip(tokens, tags, tagger.tag(recase(tokens)), strict=True):
            if not any(map(str.isalpha, word)) or word.lower() in AUXILIARIES:
                continue
            found = {"N": "n", "J": "a", "V": "v"}.get(tag[:1], "o")
            words += 1
            right += found in EITHER.get(gold_tag, gold_tag).replace("p", "n")
    return right / words, words


def test_tags_of_captions() -> None:
    captions = [text for texts in json.loads(GOLDEN.read_text("utf-8")).values() for text in texts]
    new, words = share_right(CaptionTagger(), captions)
    old, _ = share_right(LexiconTagger(CaptionLexicon().possible), captions)
    assert words > 1400
    assert new > 0.993
    assert new > old + 0.01


@pytest.mark.shared
def test_tags_of_web_captions(shared: Path) -> None:
    captions = (shared / "data/text/conceptual_captions_val.txt").read_text("utf-8").splitlines()
    new, words = share_right(CaptionTagger(), captions, "test")
    assert words > 900
    assert new > 0.985


def test_compounds_are_one_noun_in_place_of_their_words(english: ConceptExtractor) -> None:
    assert english.concepts("a man eats hot dogs in a living room") == [
        Concept("man", "n"), Concept("hot dog", "n"), Concept("living room", "n"), Concept("eat", "v"),
    ]  # fmt: skip
