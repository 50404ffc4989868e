"""Concept scores: sums, Shapley values by brute force, the bias, contrasts, images without concepts, summaries."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.methods.surrogate import attribution as at
from rdxcli.methods.surrogate.encoding import Encodings, from_matrix
from rdxcli.methods.surrogate.extraction import Concept
from rdxcli.methods.surrogate.model import Surrogate
from rdxcli.methods.surrogate.summaries import summarise


def case(n: int = 7, c: int = 6, d: int = 5, seed: int = 0) -> tuple[at.Affine, Encodings, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = rng.random((n, c)) * (rng.random((n, c)) < 0.6)
    matrix[0] = 0
    names = [Concept(f"c{j}", "n") for j in range(c)]
    encodings = from_matrix(matrix, [str(i) for i in range(n)], names)
    return at.Affine(rng.normal(size=(c, d)), rng.normal(size=d)), encodings, rng.normal(size=(4, d))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_add_up(seed: int) -> None:
    affine, encodings, texts = case(seed=seed)
    z = encodings.dense(np.float64) @ affine.table + affine.bias
    cosine = unit(z) @ unit(texts).T
    some = encodings.has_concepts
    images = at.image_scores(affine, encodings)
    np.testing.assert_allclose(images.csr().sum(axis=1)[some], 1.0, atol=1e-8)
    assert not images.csr().toarray()[~some].any()
    separate = at.image_scores(affine, encodings, bias="separate")
    np.testing.assert_allclose(separate.csr().sum(axis=1) + separate.bias, 1.0, atol=1e-9)
    classes = at.class_scores(affine, encodings, texts)
    np.testing.assert_allclose(classes.similarity, cosine, atol=1e-9)
    np.testing.assert_allclose(classes.dense().sum(axis=2) + classes.bias, cosine, atol=1e-9)
    rescaled = at.class_scores(affine, encodings, texts, bias="rescaled")
    np.testing.assert_allclose(rescaled.dense().sum(axis=2)[some], cosine[some], atol=1e-7)
    contrast = at.contrast_scores(affine, encodings, texts[0], texts[1])
    np.testing.assert_allclose(contrast.total, cosine[:, 0] - cosine[:, 1], atol=1e-9)
    np.testing.assert_allclose(contrast.csr().sum(axis=1) + contrast.bias, contrast.total, atol=1e-9)
    own = at.text_scores(affine, encodings, texts[classes.predictions])
    for i, y in enumerate(classes.predictions):
        np.testing.assert_allclose(own.csr().toarray()[i], classes.dense()[i, y], atol=1e-12)


def test_separate_scores_are_shapley_values() -> None:
    """Players are the concepts, the worth of a coalition is z(coalition).t / |z(all)|, the empty one has the bias."""
    affine, encodings, texts = case(n=4, c=5)
    t = unit(texts)[0]
    found = at.text_scores(affine, encodings, texts[0]).csr().toarray()
    dense = encodings.dense(np.float64)
    for i, c in enumerate(dense):
        players = range(len(c))
        length = np.linalg.norm(c @ affine.table + affine.bias)

        def worth(who: list[int], c: np.ndarray = c, length: float = length) -> float:
            return float((c * np.isin(np.arange(len(c)), who)) @ affine.table @ t + affine.bias @ t) / length

        for j in players:
            others = [p for p in players if p != j]
            value = sum(
                (worth([*s, j]) - worth(s)) / (len(c) * math.comb(len(c) - 1, size))
                for size in range(len(c))
                for s in map(list, combinations(others, size))
            )
            assert found[i, j] == pytest.approx(value, abs=1e-12)


def test_the_bias_does_not_turn_signs() -> None:
    """Where bias and concepts pull apart, rescaled scores flip every sign; separate ones keep them."""
    affine = at.Affine(np.array([[1.0, 0.0], [0.5, 0.0]]), np.array([-2.0, 1.0]))
    encodings = from_matrix(np.array([[1.0, 1.0]]), ["x"], [Concept("a", "n"), Concept("b", "n")])
    text = np.array([1.0, 0.0])
    separate = at.text_scores(affine, encodings, text)
    rescaled = at.text_scores(affine, encodings, text, bias="rescaled")
    assert separate.total[0] < 0
    assert (separate.scores > 0).all()
    assert separate.bias[0] < 0
    assert (rescaled.scores < 0).all()
    assert rescaled.factor[0] < 0


def test_images_without_concepts_are_said_so() -> None:
    affine, encodings, texts = case()
    images = at.image_scores(affine, encodings)
    assert images.has_concepts.tolist() == encodings.has_concepts.tolist()
    assert images.top(3)[0] == []
    assert np.isfinite(images.scores).all()
    assert at.image_scores(affine, encodings, bias="separate").bias[0] == pytest.approx(1.0)
    classes = at.class_scores(affine, encodings, texts)
    np.testing.assert_allclose(classes.bias[0], classes.similarity[0], atol=1e-12)
    nothing = at.image_scores(at.Affine(affine.table, np.zeros(5)), encodings, bias="separate")
    assert np.isfinite(nothing.csr().toarray()).all()
    assert summarise(images).empty.tolist() == [1]


def test_unstable_scores_are_marked() -> None:
    affine = at.Affine(np.array([[0.01, 0.0], [1.0, 0.0]]), np.array([5.0, 0.0]))
    encodings = from_matrix(np.array([[1.0, 0.0], [0.0, 20.0]]), ["a", "b"], [Concept("a", "n"), Concept("b", "n")])
    images = at.image_scores(affine, encodings)
    assert at.unstable(images, affine, encodings).tolist() == [True, False]
    assert not at.unstable(at.image_scores(affine, encodings, bias="separate"), affine, encodings).any()


def test_tops() -> None:
    affine, encodings, texts = case()
    images = at.image_scores(affine, encodings)
    dense = images.csr().toarray()
    for i, top in enumerate(images.top(3)):
        present = np.flatnonzero(dense[i])
        wanted = sorted(present, key=lambda j, i=i: (-abs(dense[i, j]), j))[:3]
        assert [column for column, _ in top] == wanted
        assert [score for _, score in top] == [dense[i, j] for j in wanted]
    values, positions = at.largest(dense, 2, axis=0)
    assert values.shape == positions.shape == (2, dense.shape[1])
    np.testing.assert_array_equal(values[0], dense[np.abs(dense).argmax(0), range(dense.shape[1])])
    classes = at.class_scores(affine, encodings, texts)
    best = classes.top(1, 2, k=1)[0]
    assert abs(best[1]) == pytest.approx(np.abs(classes.dense()[1, 2]).max())
    assert at.describe([(0, 0.5)], encodings.concepts) == [{"concept": "c0/n", "score": 0.5}]
    for k in (0, 99):
        with pytest.raises(ValueError, match="Got k"):
            at.largest(dense, k, 1)
    with pytest.raises(ValueError, match="Got k"):
        images.top(0)


def test_a_surrogate_with_key_encoder_sees_texts_through_it() -> None:
    _, encodings, texts = case()
    model = Surrogate(6, 3, text_dim=5, use_key_encoder=True)
    state = {name: value.numpy().astype(np.float64) for name, value in model.published_state().items()}
    keys = texts @ state["key_encoder.weight"].T + state["key_encoder.bias"]
    z = encodings.dense(np.float64) @ state["query_encoder.weight"].T + state["query_encoder.bias"]
    np.testing.assert_allclose(at.class_scores(model, encodings, texts).similarity, unit(z) @ unit(keys).T, atol=1e-7)


def test_wrong_use_is_refused() -> None:
    affine, encodings, texts = case()
    wrong = [
        lambda: at.image_scores(affine, encodings, bias="x"),
        lambda: at.class_scores(affine, encodings, texts[:, :-1]),
        lambda: at.class_scores(affine, encodings, texts * 0),
        lambda: at.class_scores(affine, encodings, texts * np.nan),
        lambda: at.text_scores(affine, encodings, texts[:3]),
        lambda: at.image_scores(at.Affine(affine.table[:-1], affine.bias), encodings),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="Got"):
            call()


def test_summaries() -> None:
    affine, encodings, _ = case(n=12)
    images = at.image_scores(affine, encodings)
    dense = images.csr().toarray()
    labels = ["x", "y", "x"] * 4
    found = summarise(images, labels)
    rows = [np.array(labels) == name for name in found.groups]
    for g, member in enumerate(rows):
        np.testing.assert_allclose(found.mean[g], dense[member].mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.share[g], (dense[member] != 0).mean(axis=0), atol=1e-12)
        spread = dense[member].std(axis=0, ddof=1) / np.sqrt(member.sum())
        np.testing.assert_allclose(found.error[g], spread, atol=1e-10)
        np.testing.assert_allclose(found.difference(g), dense[member].mean(0) - dense[~member].mean(0), atol=1e-12)
    np.testing.assert_allclose(found.overall, dense.mean(axis=0), atol=1e-12)
    top = found.top(0, encodings.concepts, 2)
    assert len(top) == 2
    assert abs(top[0]["score"]) >= abs(top[1]["score"])
    apart = found.top(1, encodings.concepts, 1, distinctive=True)[0]
    assert abs(apart["difference"]) == pytest.approx(np.abs(found.difference(1)).max())
    whole = summarise(images)
    assert whole.groups == ["all"]
    assert not whole.difference(0).any()
    assert summarise(images, list("abcdefghijkl")).top(1, encodings.concepts)[0]["error"] is None
    with pytest.raises(ValueError, match="1 label for 12 images"):
        summarise(images, ["x"])
