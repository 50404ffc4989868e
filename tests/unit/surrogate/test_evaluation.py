"""Metrics, removal curves, prompts and segments, each against a plain second derivation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from rdxcli.methods.surrogate import curves as cv
from rdxcli.methods.surrogate import evaluation as ev
from rdxcli.methods.surrogate import segments
from rdxcli.methods.surrogate.prompts import clean, duplicates, prompts


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (6, 5), elements=st.integers(-3, 3).map(float)),
    st.lists(st.integers(0, 4), min_size=6, max_size=6),
)
def test_ranks_are_positions_in_a_stable_order(S: np.ndarray, targets: list[int]) -> None:
    expected = [list(np.argsort(-row, kind="stable")).index(t) for row, t in zip(S, targets, strict=True)]
    assert ev.ranks(S, targets).tolist() == expected


def test_retrieval_by_hand() -> None:
    S = np.eye(3)
    S[2] = [0.9, 0.1, 0.5]
    got = ev.retrieval_metrics(S)
    assert got["r1"] == pytest.approx(200 / 3)
    assert got["meanr"] == pytest.approx(4 / 3)
    assert got["medr"] == 1.0
    assert got["sum"] == got["r1"] + got["r5"] + got["r10"]
    # A constant student is not rewarded for ties.
    assert ev.retrieval_metrics(np.zeros((50, 50)))["r1"] == 2.0
    assert set(ev.retrieval(S, S)["faithfulness"]) == {f"{way}/{key}" for way in ("i2t", "t2i") for key in got}
    assert ev.retrieval(S, S)["faithfulness"]["i2t/r1"] == 100.0


def test_agreement_with_and_without_batches() -> None:
    a, b = np.eye(5), np.eye(5)[[0, 1, 2, 4, 3]]
    assert ev.agreement(a, b) == 0.6
    assert ev.agreement(a, b, batch_size=4) == pytest.approx((0.75 + 0.0) / 2)
    assert ev.average_tables([{"x": 1, "y": 2}, {"x": 3}]) == {"x": 2.0, "y": 2.0}


def test_classification_by_hand() -> None:
    classes = np.eye(2)
    teacher = np.array([[2.0, 1.0], [1.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    student = np.array([[1.0, 0.0], [5.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    got = ev.classification(student, teacher, classes, labels=[0, 0, 0, 1], l0=[1, 2, 3, 2])
    assert got["agreement"] == 0.75
    assert got["accuracy"] == 1.0
    assert got["teacher_accuracy"] == 0.75
    assert got["l0"] == 2.0
    assert got["agreement_interval"][0] < 0.75 < got["agreement_interval"][1]
    assert ev.published_line(got) == f"(A/F/S/C): (100.00/75.00/2.00/{got['cosine']:.2f})"
    table = ev.scoreboard({"a": {"agreement": 0.2}, "b": got})
    assert [row["method"] for row in table] == ["b", "a"]
    assert table[1]["cosine"] is None


def test_wrong_input_is_refused() -> None:
    S = np.eye(3)
    wrong: list[Any] = [
        lambda: ev.ranks(S * np.nan),
        lambda: ev.ranks(S, [0, 1]),
        lambda: ev.ranks(S, [0, 1, 3]),
        lambda: ev.agreement(S, S[:2]),
        lambda: ev.agreement(S, S, batch_size=0),
        lambda: ev.retrieval(S[:2], S[:2]),
        lambda: ev.cosine_matrix(S, S[:, :2]),
        lambda: ev.classification(S, S[:2], S),
        lambda: ev.classification(S, S, S, labels=[0]),
        lambda: ev.average_tables([]),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match="Got"):
            call()


# ---------------------------------------------------------------- deletion and insertion


def sparse(n: int = 8, c: int = 7, d: int = 5, seed: int = 0) -> tuple[csr_array, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = rng.random((n, c)) * (rng.random((n, c)) < 0.6)
    dense[1] = 0
    return csr_array(dense), rng.normal(size=(c, d)), rng.normal(size=d), rng.normal(size=(n, d))


def test_curves_step_by_step() -> None:
    A, V, base, targets = sparse()
    scores = np.random.default_rng(1).normal(size=A.nnz)
    found = cv.removal_curves(A, scores, V, cv.cosine_to(targets), base=base, fractions=(0, 0.3, 1), repeats=2)
    deleted, inserted = np.zeros(3), np.zeros(3)
    rows = [i for i in range(A.shape[0]) if A.indptr[i + 1] > A.indptr[i]]
    for i in rows:
        span = range(A.indptr[i], A.indptr[i + 1])
        order = sorted(span, key=lambda e: -scores[e])
        for f, fraction in enumerate((0, 0.3, 1)):
            k = int(np.ceil(fraction * len(order) - 1e-9))
            for total, kept in ((deleted, order[k:]), (inserted, order[:k])):
                x = base + sum((A.data[e] * V[A.indices[e]] for e in kept), np.zeros(5))
                total[f] += x @ targets[i] / np.linalg.norm(x) / np.linalg.norm(targets[i])
    assert found.images == len(rows) == 7
    np.testing.assert_allclose(found.deletion, deleted / len(rows), atol=1e-12)
    np.testing.assert_allclose(found.insertion, inserted / len(rows), atol=1e-12)
    # Nothing removed and everything inserted are the same embedding, whatever the order.
    for curve in (found.random_deletion[0], found.insertion[-1], found.random_insertion[-1]):
        assert curve == pytest.approx(found.deletion[0], abs=1e-12)


def test_a_good_order_beats_chance_and_a_bad_one_does_not() -> None:
    A, V, base, targets = sparse(60, 12, 10)
    parts = A.data * np.einsum("ed,ed->e", V[A.indices], targets[np.repeat(np.arange(60), np.diff(A.indptr))])
    judge = cv.cosine_to(targets)
    good, bad = (cv.removal_curves(A, sign * parts, V, judge, base=base).areas() for sign in (1, -1))
    assert good["deletion_gain"] > 0.05
    assert good["insertion_gain"] > 0.05
    assert bad["deletion_gain"] < 0
    assert bad["insertion_gain"] < 0


def test_blocks_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    A, V, base, targets = sparse()
    classes = np.random.default_rng(3).normal(size=(3, 5))
    wanted = (targets @ classes.T).argmax(axis=1)
    judge = cv.agrees_with(wanted, classes)
    whole = cv.removal_curves(A, A.data, V, judge, base=base, finish=lambda x: x * 2)
    monkeypatch.setattr(cv, "_BLOCK_NUMBERS", 1)
    small = cv.removal_curves(A, csr_array(A), V, judge, base=base)
    for name in ("deletion", "insertion", "random_deletion", "random_insertion"):
        np.testing.assert_allclose(getattr(small, name), getattr(whole, name), atol=1e-12)
    for wrong in ({"fractions": (0, 0.5)}, {"repeats": 0}):
        with pytest.raises(ValueError, match="Got"):
            cv.removal_curves(A, A.data, V, judge, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no image"):
        cv.removal_curves(csr_array((2, 7)), np.zeros(0), V, judge)
    with pytest.raises(ValueError, match="entries"):
        cv.removal_curves(A, A.data[:-1], V, judge)
    with pytest.raises(ValueError, match="concept vectors"):
        cv.removal_curves(A, A.data, V[:-1], judge)


# ---------------------------------------------------------------- prompts and segments


def test_prompts() -> None:
    assert prompts(["apple_pie", "b/c"]) == ["a photo of a apple pie.", "a photo of a b c."]
    assert prompts(["apple_pie"], cleaned=False) == ["a photo of a apple_pie."]
    assert prompts(["apple_pie", "dog"], article=True) == ["a photo of an apple pie.", "a photo of a dog."]
    assert prompts(["ox"], "the {}", article=True) == ["the ox"]
    assert prompts(["ox"], "banana {}", article=True) == ["banana ox"]
    assert clean(" a_b/c ") == "a b c"
    assert duplicates(["x", "y", "x"]) == {"x": [0, 2]}
    for template in ("no place", "{} {}"):
        with pytest.raises(ValueError, match="template"):
            prompts(["x"], template)


def test_masks() -> None:
    masks = np.zeros((5, 10, 10), dtype=bool)
    masks[0, :5] = True
    masks[1, :4] = True  # overlap 40 / 50 with the first: not more than 0.8
    masks[2, :5, :9] = True  # 45 / 50 with the first
    masks[3, 9, 9] = True  # one pixel in a hundred
    assert segments.thin_masks(masks, min_area=0.02) == [0, 1]
    assert segments.thin_masks(masks, min_area=0.0, max_iou=1.0) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="masks"):
        segments.thin_masks(masks[0])


def test_trees() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.2], [20.0]])
    tree = segments.cluster(points)
    for p in range(1, 6):
        labels = tree.labels(p)
        assert len(set(labels)) == p == len(tree.cut(p))
    assert len({*tree.labels(3)[:2]}) == 1
    assert tree.labels(3)[2] == tree.labels(3)[3]
    assert sorted(tree.members(8)) == [0, 1, 2, 3, 4]
    found, columns = segments.membership(tree.labels(3), [0, 1, 1, 2, 2], min_images=2)
    assert found.shape == (3, 2)
    assert found.sum() == 4
    assert len(columns) == 2
    for call in (lambda: tree.cut(0), lambda: segments.cluster([[1.0]]), lambda: segments.membership([0], [1, 2])):
        with pytest.raises(ValueError, match="Got"):
            call()
