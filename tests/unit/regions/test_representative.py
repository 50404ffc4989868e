"""Representative Interpretation where the boundaries are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.methods.regions.representative import (
    RepresentativeInterpretation,
    find_boundaries,
    greedy_cover,
    sides,
)

X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
W = torch.tensor([[2.0, 0.0, 0.0], [-1.0, 1.5, 0.0], [-1.0, -1.5, 0.0]])
B = torch.tensor([0.1, 0.0, -0.1])


def head(f: torch.Tensor) -> torch.Tensor:
    return f.flatten(1) @ W.T + B


LOGITS = X @ W.numpy().T + B.numpy()
Y = LOGITS.argmax(axis=1)
TARGET = int(np.flatnonzero(Y == 0)[0])


def test_planes_of_a_linear_head_are_differences_of_its_rows() -> None:
    rows = np.flatnonzero(Y != 0)[:20]
    found = find_boundaries(head, X, TARGET, rows)
    np.testing.assert_array_equal(found.rows, rows)
    for j, other in enumerate(found.classes):
        np.testing.assert_allclose(found.W[:, j], (W[0] - W[other]).numpy(), atol=1e-5)
        np.testing.assert_allclose(found.b[j], B[0] - B[other], atol=1e-4)
    gap = np.einsum("bd,db->b", found.points, found.W) + found.b
    assert ((gap >= 0) & (gap < 1e-5**0.5 + 1e-5)).all()
    assert set(found.classes.tolist()) == {1, 2}


def test_searches_that_do_not_end_are_left_out() -> None:
    rows = np.array([*np.flatnonzero(Y == 0)[1:3], *np.flatnonzero(Y == 1)[:2]])  # two that need no boundary
    found = find_boundaries(head, X, TARGET, rows, max_iterations=300)
    assert found.rows.tolist() == rows[2:].tolist()
    none = find_boundaries(head, X, TARGET, rows[:2], max_iterations=20)
    assert none.W.shape == (3, 0)
    assert none.b.shape == (0,)


def test_one_search_does_not_depend_on_the_others() -> None:
    rows = np.flatnonzero(Y != 0)[:10]
    together = find_boundaries(head, X, TARGET, rows)
    alone = find_boundaries(head, X, TARGET, rows[4:5])
    np.testing.assert_allclose(alone.points[0], together.points[4], atol=1e-5)


def test_the_cover_is_the_class_of_a_linear_head() -> None:
    fitted = RepresentativeInterpretation(30).fit(X, head, target=TARGET)
    assert len(fitted.selected_) == 2, "one plane towards each other class"
    assert fitted.members_[0] == TARGET
    assert fitted.scores_["purity"] == 1.0
    assert fitted.scores_["recall"] > 0.97
    inside = fitted.membership(X)
    np.testing.assert_array_equal(np.flatnonzero(inside), np.sort(fitted.members_))
    np.testing.assert_array_equal(sides(X, fitted.boundaries_.W, fitted.boundaries_.b), fitted.bits_)
    again = RepresentativeInterpretation(30).fit(X, head, target=TARGET, predictions=Y)
    np.testing.assert_array_equal(again.members_, fitted.members_)


def test_maps_keep_their_shape() -> None:
    def on_maps(f: torch.Tensor) -> torch.Tensor:
        assert f.shape[1:] == (3, 1, 1)
        return head(f)

    fitted = RepresentativeInterpretation(10).fit(X.reshape(300, 3, 1, 1), on_maps, target=TARGET)
    flat = RepresentativeInterpretation(10).fit(X, head, target=TARGET)
    np.testing.assert_array_equal(fitted.members_, flat.members_)


def test_without_boundaries_it_is_unbounded_not_everything() -> None:
    fitted = RepresentativeInterpretation(5, max_iterations=1).fit(X, head, target=TARGET)
    assert len(fitted.boundaries_.rows) == 0
    assert len(fitted.members_) == 0
    assert fitted.scores_["coverage"] == 1.0
    assert fitted.scores_["purity"] is None
    assert any("unbounded" in note for note in fitted.notes_)
    assert not fitted.membership(X).any()


# the greedy choice


def test_the_cheapest_boundary_comes_first() -> None:
    same = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1]], dtype=bool)
    other = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0]], dtype=bool)
    cover = greedy_cover(same, other)
    assert cover.order.tolist() == [1, 2], "both cost 1/2; the first wins"
    assert cover.same.tolist() == [1]
    assert cover.other.tolist() == []


def test_it_ends_when_nothing_more_can_be_removed() -> None:
    same = np.array([[1, 1, 1], [1, 1, 0]], dtype=bool)
    other = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]], dtype=bool)
    honest = greedy_cover(same, other[:2])
    assert honest.order.tolist() == [0]
    assert honest.same.tolist() == [0, 1]
    assert honest.other.tolist() == [1]
    slip = greedy_cover(same, other[:2], compat=True)
    assert slip.order.tolist() == [0, 2], "the marker -1 used as an index"
    assert slip.same.tolist() == [0]
    assert slip.selected(3).tolist() == [True, False, True]


def test_limits() -> None:
    same = np.ones((2, 6), dtype=bool)
    other = ~np.eye(6, dtype=bool)
    assert len(greedy_cover(same, other).order) == 6
    assert len(greedy_cover(same, other, n_steps=2).order) == 3, "one step more, as published"
    assert len(greedy_cover(same, other, delta=4).other) == 4


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: greedy_cover(np.ones((2, 3)), np.ones((2, 4))), "Got matches of shapes"),
        (lambda: greedy_cover(np.ones((2, 0)), np.ones((2, 0))), "Got matches of shapes"),
        (lambda: greedy_cover(np.ones((2, 1)), np.ones((2, 1)), delta=-1), "delta=-1"),
        (lambda: RepresentativeInterpretation(0).fit(X, head, target=0), "n_boundaries=0"),
        (lambda: RepresentativeInterpretation(weight=1.0).fit(X, head, target=0), "weight=1.0"),
        (lambda: RepresentativeInterpretation(gap=0).fit(X, head, target=0), "gap=0"),
        (lambda: RepresentativeInterpretation().fit(X, head, target=300), "target=300"),
        (lambda: RepresentativeInterpretation().fit(X * np.nan, head, target=0), "NaN"),
        (lambda: RepresentativeInterpretation().fit(X, head, target=0, predictions=Y[:3]), "predictions of shape"),
        (lambda: RepresentativeInterpretation().fit(X, head, target=0, predictions=Y * 0), "there is no boundary"),
    ],
)
def test_refused(function, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function()
