"""Names for groups: the planted word is found, random groups have none, and nothing else matters."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.difference import naming
from rdxcli.methods.difference.naming import name_groups

WIDTH, TEXTS = 64, 300


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """600 images, each a noisy copy of one of the first six texts, as far apart as image and text embeddings are."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(TEXTS, WIDTH))
    images = texts[np.arange(600) % 6] + 1.5 * rng.normal(size=(600, WIDTH)) + 4 * rng.normal(size=WIDTH)
    return images, texts, [f"word {j}" for j in range(TEXTS)]


def _groups() -> dict[str, np.ndarray]:
    rows = np.arange(600)
    return {"one": rows[rows % 6 == 2], "two": rows[np.isin(rows % 6, (0, 5))]}


def test_planted_words_come_first(planted: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    names = name_groups(*planted, _groups())
    assert names["one"][0].word == "word 2"
    assert names["one"][0].clear
    assert names["one"][0].effect > 1.3 * names["one"][1].effect
    assert {name.word for name in names["two"][:2]} == {"word 0", "word 5"}
    assert names["two"][0].effect >= names["two"][1].effect > names["two"][2].effect


def test_the_numbers_are_those_of_the_cosines(planted: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    images, texts, words = planted
    rows = _groups()["two"]
    cosines = (images / np.linalg.norm(images, axis=1, keepdims=True)) @ (
        texts / np.linalg.norm(texts, axis=1, keepdims=True)
    ).T
    inside = np.isin(np.arange(600), rows)
    margin = cosines[inside].mean(axis=0) - cosines[~inside].mean(axis=0)
    within = np.sqrt(
        (inside.sum() * cosines[inside].var(axis=0) + (~inside).sum() * cosines[~inside].var(axis=0)) / 600
    )
    for name in name_groups(images, texts, words, {"two": rows})["two"]:
        j = words.index(name.word)
        assert name.margin == pytest.approx(margin[j], abs=1e-12)
        assert name.effect == pytest.approx(margin[j] / within[j], rel=1e-9)
    assert name_groups(images, texts, words, {"two": rows}, top=TEXTS)["two"][0].effect == pytest.approx(
        (margin / within).max(), rel=1e-9
    )


def test_random_groups_have_no_clear_name(planted: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    rng = np.random.default_rng(5)
    groups = {f"g{i}": rng.choice(600, 40, replace=False) for i in range(20)}
    names = name_groups(*planted, groups)
    assert not [name for found in names.values() for name in found if name.clear]
    best = [found[0].p_value for found in name_groups(*planted, groups, tests=1).values()]
    assert 0.2 < np.mean(best) < 0.8  # uniform when nothing fits
    assert np.mean(np.array(best) <= 0.05) <= 0.2


def test_groups_do_not_depend_on_each_other(planted: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    groups = _groups()
    both = name_groups(*planted, groups, random_state=3)
    turned = name_groups(*planted, dict(reversed(groups.items())), random_state=3)
    alone = name_groups(*planted, {"two": groups["two"]}, tests=2, random_state=3)
    assert both == turned
    assert both["two"] == alone["two"]
    complement = np.setdiff1d(np.arange(600), groups["one"])
    assert name_groups(*planted, {"rest": complement})["rest"][0].word != "word 2"


@pytest.mark.parametrize("m", [40, 350, 560])
def test_random_means_have_the_mean_and_spread_of_random_groups(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for groups of more than half of the images, and where only some of the rows are drawn."""
    rows = np.random.default_rng(2).gamma(1.0, size=(600, 3))
    rows -= rows.mean(axis=0)
    expected = rows.std(axis=0, ddof=1) * np.sqrt(1 / m - 1 / 600)
    for most in (2000, 30):
        monkeypatch.setattr(naming, "MOST_DRAWN", most)
        means = naming._random_means(rows, m, 4000, np.random.default_rng(0))
        np.testing.assert_allclose(means.mean(axis=0), 0, atol=5 * expected.max() / np.sqrt(4000))
        np.testing.assert_allclose(means.std(axis=0), expected, rtol=0.06)


def test_many_groups_can_still_be_clear(planted: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    groups = {"one": _groups()["one"]}
    [name, *_] = name_groups(*planted, groups, tests=200, permutations=19)["one"]
    assert name.clear
    assert name.p_value <= 0.05


def test_groups_without_a_rest_have_no_words(planted: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    assert name_groups(*planted, {"none": [], "single": [4], "all": np.arange(600)}) == {
        "none": [],
        "single": [],
        "all": [],
    }


def test_images_that_are_all_alike_have_no_clear_name() -> None:
    texts = np.random.default_rng(0).normal(size=(5, 8))
    names = name_groups(np.ones((30, 8)), texts, list("abcde"), {"g": np.arange(10)})
    assert all(not name.clear and np.isfinite(name.effect) for name in names["g"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": np.ones((TEXTS, 3))}, "width"),
        ({"words": ["one"]}, "expected one each"),
        ({"images": np.full((600, WIDTH), np.nan)}, "NaN"),
        ({"images": np.ones(600)}, "expected"),
        ({"images": np.ones((0, WIDTH))}, "at least one"),
        ({"groups": {"g": [600, 601]}}, "rows from 600"),
        ({"groups": {"g": [-1, 3]}}, "rows from -1"),
        ({"top": 0}, "at least 1"),
    ],
)
def test_bad_input(planted: tuple[np.ndarray, np.ndarray, list[str]], change: dict, message: str) -> None:
    images, texts, words = planted
    given = {"images": images, "texts": texts, "words": words, "groups": {"g": [0, 1]}, **change}
    with pytest.raises(ValueError, match=message):
        name_groups(**given)
