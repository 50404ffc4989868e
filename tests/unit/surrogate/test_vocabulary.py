"""Concepts, document frequencies, vocabularies, encodings: counted by hand and against a plain second derivation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.methods.surrogate.encoding import Encodings, encode, entries_of, from_arrays, from_matrix
from rdxcli.methods.surrogate.extraction import Concept, ConceptExtractor, load_extractor
from rdxcli.methods.surrogate.vocabulary import count_concepts, fit_vocabulary, given_vocabulary, merge_counts

CAPTIONS = {
    "b.jpg": ["a brown dog runs in the park", "two brown dogs and a hot dog stand", "Dogs!"],
    "a.jpg": ["a cat sleeps. A dog watches the cat", "the cat is sleeping"],
    "c.jpg": [],
    "d.jpg": ["of the and"],
}


@pytest.fixture(scope="module")
def packaged() -> ConceptExtractor:
    return load_extractor("packaged")


class Words:
    """Every word is a noun, spelled as it is."""

    def tag(self, words: list[str]) -> list[str]:
        return ["NN"] * len(words)

    def lookup(self, word: str, pos: str, tag: str = "") -> str | None:
        return word

    def compound(self, words: tuple[str, ...]) -> bool:
        return words == ("hot", "dog")

    def describe(self) -> dict[str, str]:
        return {}


def plain(**options: object) -> ConceptExtractor:
    return ConceptExtractor(Words(), Words(), **options)  # type: ignore[arg-type]


def test_concepts_of_a_caption(packaged: ConceptExtractor) -> None:
    found = packaged.concepts("A young man rides his horse. Two DOGS watch!")
    assert found == [("man", "n"), ("horse", "n"), ("dog", "n"), ("young", "a"), ("ride", "v"), ("watch", "v")]
    assert packaged.concepts("") == []
    assert packaged.describe()["normalisation"] == "improved"


def test_counts(packaged: ConceptExtractor) -> None:
    counts = count_concepts(CAPTIONS, packaged)
    assert counts.ids == list(CAPTIONS)
    assert counts.concepts == sorted(counts.concepts)
    dog = counts.concepts.index(Concept("dog", "n"))
    assert counts.matrix.toarray()[:, dog].tolist() == [3, 1, 0, 0]
    assert counts.image_counts[dog] == 2
    assert counts.num_captions.tolist() == [3, 2, 0, 1]
    found = encode(counts, fit_vocabulary(counts, min_count=1, max_threshold=1.0))
    assert found.notes == ("1 of 4 images have no captions", "2 of 4 images have no concepts")
    assert found.has_concepts.tolist() == [True, True, False, False]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text("xyz", min_size=1, max_size=3),
        st.lists(st.lists(st.sampled_from("abcdefg"), max_size=4).map(" ".join), max_size=4),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
    st.floats(0.2, 1.0),
    st.data(),
)
def test_frequencies_twice(captions: dict[str, list[str]], least: int, most: float, data: st.DataObject) -> None:
    counts = count_concepts(captions, plain())
    k = {
        (name, word): sum(word in text.split() for text in texts)
        for name, texts in captions.items()
        for word in "abcdefg"
    }
    df = Counter(word for (_, word), number in k.items() if number)
    wanted = sorted(word for word, number in df.items() if number >= least and number / len(captions) <= most)
    # Any split into shards gives the same counts.
    cut = data.draw(st.integers(0, len(captions)))
    parts = [dict(list(captions.items())[:cut]), dict(list(captions.items())[cut:])]
    merged = merge_counts([count_concepts(part, plain()) for part in parts if part])
    assert merged.ids == counts.ids
    assert merged.concepts == counts.concepts
    np.testing.assert_array_equal(merged.matrix.toarray(), counts.matrix.toarray())
    if not wanted:
        with pytest.raises(ValueError, match="Got no concept"):
            fit_vocabulary(counts, min_count=least, max_threshold=most)
        return
    vocabulary = fit_vocabulary(counts, min_count=least, max_threshold=most)
    assert [concept.lemma for concept in vocabulary.concepts] == wanted
    assert vocabulary.image_counts.tolist() == [df[word] for word in wanted]
    found = encode(counts, vocabulary)
    dense = found.dense(np.float64)
    for i, (name, texts) in enumerate(captions.items()):
        for j, word in enumerate(wanted):
            assert dense[i, j] == (k[name, word] / len(texts) if k[name, word] else 0.0)
    np.testing.assert_array_equal(encode(counts, vocabulary, method="union").dense(), dense > 0)


def test_options_of_the_vocabulary(packaged: ConceptExtractor) -> None:
    counts = count_concepts(CAPTIONS, packaged)
    everything = {"min_count": 1, "max_threshold": 1.0}
    names = lambda **options: [str(c) for c in fit_vocabulary(counts, **everything, **options).concepts]  # noqa: E731
    assert "dog/n" in names()
    assert "dog/n" not in names(stop=["dog"])
    assert "dog/n" in names(stop=["dog/v", "cat/n"])
    assert "cat/n" not in names(stop=[Concept("cat", "n")])
    assert all(name.endswith("/v") for name in names(pos="v"))
    assert names(max_size=1) == ["dog/n"]
    row = fit_vocabulary(counts, **everything).rows()[0]
    assert set(row) == {"index", "lemma", "pos", "image_count", "image_share", "status", "reason"}
    for wrong in ({"min_count": 0}, {"max_threshold": 0.0}, {"max_threshold": 1.5}, {"max_size": 0}, {"pos": "q"}):
        with pytest.raises(ValueError, match="Got"):
            fit_vocabulary(counts, **{**everything, **wrong})


def test_phrases() -> None:
    assert Concept("hot dog", "p") in plain(phrases="compounds").concepts("a hot dog stand")
    assert Concept("dog stand", "p") not in plain(phrases="compounds").concepts("a hot dog stand")
    found = load_extractor("packaged", phrases="noun-phrases").concepts("a big red fire truck near a house")
    phrases = [concept.lemma for concept in found if concept.pos == "p"]
    assert phrases == ["big red fire", "red fire", "red fire truck", "fire truck"]


def test_terms_of_a_user() -> None:
    extractor = load_extractor("packaged", terms=["traffic light", "run", "dog"])
    found = extractor.concepts("Two dogs were running under traffic lights")
    assert [str(c) for c in found if c.pos == "*"] == ["dog", "run", "traffic light"]
    counts = count_concepts({"1": ["a dog runs", "the run of a dog"], "2": ["traffic lights"]}, extractor)
    vocabulary = given_vocabulary(counts, ["traffic light", "run", "zebra"])
    assert [str(concept) for concept in vocabulary.concepts] == ["traffic light", "run", "zebra"]
    assert vocabulary.image_counts.tolist() == [1, 1, 0]
    assert vocabulary.notes == ("1 of 3 concepts are in no caption: zebra",)
    assert encode(counts, vocabulary).dense().tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="twice"):
        given_vocabulary(counts, ["run", "run"])
    with pytest.raises(ValueError, match="empty vocabulary"):
        given_vocabulary(counts, [])


def test_wrong_input(packaged: ConceptExtractor) -> None:
    for wrong in ({}, {"a": "a string"}, {"a": [1]}):
        with pytest.raises(ValueError, match="Got"):
            count_concepts(wrong, packaged)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than one part"):
        merge_counts([count_concepts({"a": ["dog"]}, packaged)] * 2)
    with pytest.raises(ValueError, match="normalisation"):
        plain(normalisation="x")
    with pytest.raises(ValueError, match="source"):
        load_extractor("x")
    with pytest.raises(FileNotFoundError, match="NLTK data"):
        load_extractor("published", nltk_data="nowhere")
    assert Concept.parse("a/n") == ("a", "n")
    assert Concept.parse("24/7") == ("24/7", "*")
    with pytest.raises(ValueError, match="empty concept"):
        Concept.parse(" ")


# ---------------------------------------------------------------- encodings


def some(n: int = 5, c: int = 4, seed: int = 0) -> Encodings:
    rng = np.random.default_rng(seed)
    m = rng.integers(1, 9, n)
    k = rng.binomial(m[:, None], 0.4, (n, c)) * (rng.random((n, c)) < 0.7)
    names = [Concept(f"c{j}", "n") for j in range(c)]
    return from_matrix(k / m[:, None], [f"s{i}" for i in range(n)], names, num_captions=m)


def test_rows_are_matched_by_id() -> None:
    found = some()
    turned = found.align(["s3", "s0"])
    np.testing.assert_array_equal(turned.dense(), found.dense()[[3, 0]])
    assert turned.num_captions is not None
    with pytest.raises(ValueError, match="without an encoding, first nobody"):
        found.align(["s0", "nobody"])
    with pytest.raises(ValueError, match="outside"):
        found.take([9])


def test_round_trip() -> None:
    found = some()
    again = from_arrays(found.arrays(), found.ids, found.concepts)
    for name, value in found.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value)
        assert not value.dtype.hasobject
    np.testing.assert_array_equal(again.shares, found.shares)
    given_numbers = from_matrix(found.dense(), found.ids, found.concepts)
    assert set(given_numbers.arrays()) == {"indptr", "indices", "shares"}
    np.testing.assert_array_equal(from_arrays(given_numbers.arrays(), found.ids, found.concepts).dense(), found.dense())


def test_damaged_arrays_are_refused() -> None:
    found = some()
    arrays = found.arrays()
    wrong = [
        {"indptr": arrays["indptr"][:-1]},
        {"indices": arrays["indices"] + 99},
        {"count": arrays["count"] + 200},
        {"count": arrays["count"][:-1]},
        {"num_captions": np.zeros_like(arrays["num_captions"])},
    ]
    for change in wrong:
        with pytest.raises(ValueError, match="Got"):
            from_arrays({**arrays, **change}, found.ids, found.concepts)
    with pytest.raises(ValueError, match="without indices"):
        from_arrays({"indptr": arrays["indptr"]}, found.ids, found.concepts)
    with pytest.raises(ValueError, match="twice"):
        from_arrays(arrays, ["s0"] * len(found.ids), found.concepts)
    with pytest.raises(ValueError, match="NaN"):
        from_matrix(np.full((1, 1), np.nan), ["a"], [Concept("x", "n")])
    with pytest.raises(ValueError, match="not k / m"):
        from_matrix(np.array([[0.37]]), ["a"], [Concept("x", "n")], num_captions=[2])


def test_intervention_writes_whole_columns() -> None:
    found = some()
    changed = found.with_values({1: 0.0, 3: 0.5})
    expected = found.dense(np.float64)
    expected[:, 1], expected[:, 3] = 0.0, 0.5
    np.testing.assert_allclose(changed.dense(np.float64), expected, atol=1e-7)
    assert changed.count is None
    assert 1 not in changed.indices
    for wrong in ({9: 1.0}, {0: np.nan}):
        with pytest.raises(ValueError, match="Got"):
            found.with_values(wrong)


def test_entries_of_rows() -> None:
    indptr = np.array([0, 2, 2, 5])
    entries, selected = entries_of(indptr, np.array([2, 0, 1, 2]))
    assert entries.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert selected.tolist() == [0, 3, 5, 5, 8]
    assert entries_of(indptr, np.array([], dtype=int))[1].tolist() == [0]
