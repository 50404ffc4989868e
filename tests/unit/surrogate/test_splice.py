"""SpLiCE: scikit-learn's lasso one image at a time, optimality, degenerate dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from rdxcli.methods.surrogate.splice import SpLiCE, distinct, solve, unit


def case(words: int = 300, n: int = 9, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(6, d))
    Q = rng.normal(size=(words, d)) + rng.normal(size=(words, 6)) @ low
    return Q, rng.normal(size=d) * 0.05, rng.normal(size=(n, d)) + rng.normal(size=(n, 6)) @ low


@pytest.mark.parametrize("l1", [0.01, 0.1, 0.25, 0.6])
@pytest.mark.parametrize("words", [7, 48, 300])
def test_the_lasso_one_by_one(l1: float, words: int) -> None:
    Q, mean, images = case(words)
    model = SpLiCE(l1).fit(Q, mean)
    weights = model.transform(images)
    assert model.violation_ < 1e-7
    v = model.centre(images)
    lasso = Lasso(alpha=l1 / (2 * Q.shape[1]), positive=True, fit_intercept=False, tol=1e-12, max_iter=200_000)
    for i, row in enumerate(v):
        wanted = lasso.fit(model.dictionary_.T, row).coef_
        w = weights.toarray()[i]
        objective = lambda w, row=row: ((row - w @ model.dictionary_) ** 2).sum() + l1 * w.sum()  # noqa: E731
        assert objective(w) <= objective(wanted) + 1e-9
        if words <= Q.shape[1] or l1 >= 0.1:
            np.testing.assert_allclose(w, wanted, atol=2e-5)
    assert (weights.data > 0).all()


def test_the_dictionary_is_centred() -> None:
    Q, mean, _ = case()
    model = SpLiCE().fit(Q, mean)
    expected = unit(unit(Q) - unit(Q).mean(axis=0))
    np.testing.assert_allclose(model.dictionary_, expected, atol=1e-12)
    np.testing.assert_allclose(SpLiCE().fit(expected, mean, centred=True).dictionary_, expected, atol=1e-15)


def test_an_image_that_is_a_word() -> None:
    Q, _, _ = case()
    model = SpLiCE(0.05).fit(Q, np.zeros(24))
    weights = model.transform(model.dictionary_[[5, 17]]).toarray()
    assert weights.argmax(axis=1).tolist() == [5, 17]
    # With a single atom the minimum is 1 - l1 / 2.
    assert weights[0, 5] == pytest.approx(0.975, abs=0.05)
    np.testing.assert_allclose(np.linalg.norm(model.reconstruct(model.transform(Q[:3])), axis=1), 1.0)


def test_degenerate_problems() -> None:
    Q, mean, images = case()
    none = SpLiCE(2.5).fit(Q, mean)
    assert none.transform(images).nnz == 0
    assert np.isfinite(none.reconstruct(none.transform(images))).all()
    # Every word twice: the weights are not unique, the reconstruction is.
    once, twice = (SpLiCE(0.1).fit(x, mean) for x in (Q, np.concatenate([Q, Q])))
    np.testing.assert_allclose(
        twice.transform(images) @ twice.dictionary_, once.transform(images) @ once.dictionary_, atol=1e-6
    )
    assert twice.violation_ < 1e-6


def test_blocks_change_nothing() -> None:
    Q, mean, images = case(n=300)
    model = SpLiCE(0.2).fit(Q, mean)
    whole = model.transform(images).toarray()
    np.testing.assert_allclose(model.transform(images[::-1]).toarray(), whole[::-1], atol=1e-10)
    alone, _ = solve(model.dictionary_, model.centre(images[:2]), 0.2)
    np.testing.assert_allclose(alone.toarray(), whole[:2], atol=1e-10)


def test_interventions() -> None:
    Q, mean, images = case()
    model = SpLiCE(0.1).fit(Q, mean)
    weights = model.transform(images)
    used = int(weights.indices[0])
    gone = model.intervene(weights, [used]).toarray()
    expected = weights.toarray()
    expected[:, used] = 0
    np.testing.assert_array_equal(gone, expected)
    expected[:, used] = 0.5
    np.testing.assert_array_equal(model.intervene(weights, {used: 0.5}).toarray(), expected)


def test_wrong_input_is_refused() -> None:
    Q, mean, images = case()
    wrong = [
        lambda: SpLiCE(0.0).fit(Q, mean),
        lambda: SpLiCE().fit(Q * np.nan, mean),
        lambda: SpLiCE().fit(Q, mean[:-1]),
        lambda: SpLiCE().fit(np.ones((4, 3)), np.zeros(3)),
        lambda: SpLiCE().fit(Q, mean).transform(images[:, :-1]),
        lambda: SpLiCE().fit(Q, mean).transform(images * np.inf),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="Got"):
            call()


def test_words_that_say_what_others_say_are_left_out() -> None:
    rng = np.random.default_rng(0)
    dog, red, hot = unit(rng.normal(size=(3, 64)))
    words = ["dog", "red", "dogs", "hot", "red dog", "hot dog", "dog"]
    embeddings = [dog, red, dog + 0.02 * rng.normal(size=64), hot, red + dog, rng.normal(size=64), dog]
    assert distinct(words, embeddings).tolist() == [0, 1, 3, 5]
    assert distinct(words[::-1], embeddings[::-1]).tolist() == [0, 1, 3, 5]  # the first of two alike stays
    assert len(distinct(words, embeddings, 1.0)) == len(words)
