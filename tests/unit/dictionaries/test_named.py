"""Latents of image embeddings with names: planted words are found, words of nothing keep their level, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.dictionaries.named import NamedDictionary
from rdxcli.methods.surrogate.faithfulness import measure, splice_student

WORDS, D = 12, 40
NAMES = [f"word {j}" for j in range(WORDS)]


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings (800, 40) of images that show two of twelve words on average, the words' own, and what is shown."""
    rng = np.random.default_rng(0)
    words = rng.standard_normal((WORDS, D))
    shown = rng.random((800, WORDS)) < 2 / WORDS
    gap = 3 * rng.standard_normal(D)  # images lie apart from texts
    return shown @ words + gap + 0.2 * rng.standard_normal((800, D)), words, shown


@pytest.fixture(scope="module")
def model(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> NamedDictionary:
    x, words, shown = images
    return NamedDictionary(20, k=2, steps=400, batch=128).fit(x[:600], words, NAMES, shown[:600].astype(float))


def test_planted_words_name_latents_both_ways(
    model: NamedDictionary, images: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    x, _, shown = images
    fires = model.transform(x[600:]).toarray() > 0
    for names, _, p in model.named_by_.values():
        sure = np.flatnonzero((p <= 0.01) & (fires.sum(0) >= 5))
        assert len({names[i] for i in sure}) >= 9
        right = [shown[600:][fires[:, i], NAMES.index(names[i])].mean() for i in sure]
        assert np.mean(right) > 0.6 > 3 * shown.mean()
    assert model.names_ == model.named_by_["direction"][0]


def test_it_stands_on_the_scoreboard(model: NamedDictionary, images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, words, _ = images
    weights = model.transform(x[600:])
    assert np.diff(weights.indptr).mean() == pytest.approx(2, abs=0.7)
    board = measure({"dictionary": splice_student(model, weights)}, x[600:], classes=words).scoreboard
    assert board[0]["agreement"] > 0.5
    cosine = (model.reconstruct(weights) * x[600:]).sum(1) / np.linalg.norm(x[600:], axis=1)
    apart = (model.reconstruct(weights)[::-1] * x[600:]).sum(1) / np.linalg.norm(x[600:], axis=1)
    assert cosine.mean() > apart.mean() + 0.1


def test_words_of_nothing_have_their_level(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x = images[0]
    p = np.concatenate(
        [
            NamedDictionary(40, k=2, steps=40, batch=128, random_state=seed)
            .fit(x, np.random.default_rng(100 + seed).standard_normal((30, D)), [str(j) for j in range(30)])
            .p_value_
            for seed in range(4)
        ]
    )
    assert (p <= 0.05).mean() < 0.12


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.full((50, D), np.nan)}, "not finite"),
        ({"images": np.ones((5, D))}, "at least 20"),
        ({"concepts": NAMES[:-1]}, "expected as many"),
        ({"scores": np.ones((3, WORDS))}, "expected \\(800, 12\\)"),
        ({"concept_embeddings": np.ones((WORDS, D))}, "equals the mean"),
    ],
)
def test_bad_input(changed: dict[str, object], message: str, images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    given = {"images": images[0], "concept_embeddings": images[1], "concepts": NAMES, **changed}
    with pytest.raises(ValueError, match=message):
        NamedDictionary(20, k=2, steps=5).fit(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="together with scores"):
        NamedDictionary(20, by="scores").fit(images[0], images[1], NAMES)
