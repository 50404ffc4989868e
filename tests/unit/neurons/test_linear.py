"""The estimator as a whole: known answers, invariances, degenerate inputs, real digits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits

from rdxcli.methods.neurons.concepts import LazyCosines, label_concepts
from rdxcli.methods.neurons.linear import LinearExplanation
from rdxcli.methods.neurons.preparation import random_split
from rdxcli.methods.neurons.saga import saga
from rdxcli.methods.neurons.simulation import correlation_scores
from rdxcli.methods.neurons.tables import format_table, parse_table

N = 400
SPLIT = random_split(N, 1)
PARTS = {"train": SPLIT.train, "val": SPLIT.val}


def made_up(c: int = 30, u: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit k is 2 x concept k + concept k + 1, plus noise."""
    rng = np.random.default_rng(seed)
    P = (rng.random((N, c)) < 0.3).astype(float)
    A = 2.0 * P[:, :u] + P[:, 1 : u + 1] + 0.2 * rng.normal(size=(N, u)) + 5.0
    return P, A


@pytest.mark.parametrize("solver", ["matched", "exact", "saga"])
def test_known_answer(solver: str) -> None:
    P, A = made_up()
    model = LinearExplanation(solver=solver).fit(P, A, **PARTS)
    for k, row in enumerate(model.explanations_):
        assert row.concepts == (f"concept {k}", f"concept {k + 1}")
        np.testing.assert_allclose(row.weights, [2.0, 1.0], atol=0.1)
        assert row.bias == pytest.approx(5.0, abs=0.1)
        assert model.selected_[k].tolist() == [k, k + 1]
    assert (np.diff(np.stack(model.path_), axis=1) > 0.02).all()
    assert model.status_ == ["explained"] * 6
    assert model.notes_ == []
    scores, interval = model.score_rows(P, A, SPLIT.test)
    assert (scores > 0.9).all()
    assert ((interval.low < scores) & (scores < interval.high)).all()
    if solver == "exact":
        assert model.duality_gap_.max() < 1e-12
    else:
        assert model.duality_gap_.min() > 0


def test_least_squares_of_the_chosen_set() -> None:
    P, A = made_up(seed=2)
    model = LinearExplanation(tolerance=0.001).fit(P, A, **PARTS)
    for k, row in enumerate(model.explanations_):
        picked = model.selected_[k]
        w = np.linalg.lstsq(np.c_[P[SPLIT.train][:, picked], np.ones(len(SPLIT.train))], A[SPLIT.train, k], rcond=None)[
            0
        ]
        np.testing.assert_allclose([*row.weights, row.bias], w, atol=1e-9)
        assert list(row.weights) == sorted(row.weights, reverse=True)
        prediction = P @ np.bincount(picked, weights=row.weights, minlength=P.shape[1]) + row.bias
        np.testing.assert_allclose(model.predict(P)[:, k], prediction)
        r = np.corrcoef(prediction[SPLIT.val], A[SPLIT.val, k])[0, 1]
        assert model.val_correlation_[k] == pytest.approx(r, abs=1e-9)
        assert row.scores["val correlation"] == model.val_correlation_[k]


def test_matched_is_saga_and_exact_is_lower() -> None:
    P, A = made_up(c=20)
    train = SPLIT.train
    X = (P[train] - P[train].mean(axis=0)) / P[train].std(axis=0, ddof=1)
    Y = (A[train] - A[train].mean(axis=0)) / A[train].std(axis=0, ddof=1)
    reference = saga(X, Y, batch_size=16, tolerance=-1e9).W
    options = {"batch_size": 16, "epochs": 500}
    ours = LinearExplanation(**options).fit(P, A, **PARTS)
    weights = np.zeros_like(reference)
    np.put_along_axis(weights, ours.ranking_, ours.ranking_weights_, axis=1)
    assert np.abs(weights - reference).max() < 2e-3
    exact = LinearExplanation(solver="exact").fit(P, A, **PARTS)
    assert (exact.objective_ <= ours.objective_).all()


def explain(P: Any, A: np.ndarray, **options: Any) -> LinearExplanation:
    fit = {key: options.pop(key) for key in ("units", "concept_names") if key in options}
    return LinearExplanation(**options).fit(P, A, **PARTS, **fit)


def same(a: LinearExplanation, b: LinearExplanation, rows: slice = slice(None), atol: float = 1e-9) -> None:
    for x, y in zip(a.explanations_, b.explanations_[rows], strict=True):
        assert (x.unit, x.concepts, x.status) == (y.unit, y.concepts, y.status)
        np.testing.assert_allclose([*x.weights, x.bias], [*y.weights, y.bias], atol=atol)


@pytest.mark.parametrize("solver", ["matched", "exact"])
def test_grouping_order_and_blocks_change_nothing(solver: str) -> None:
    P, A = made_up(u=8)
    whole = explain(P, A, solver=solver)
    same(explain(P, A, solver=solver, units=[2, 3]), whole, slice(2, 4))
    same(explain(P, A, solver=solver, units=[7]), whole, slice(7, 8))
    same(explain(P, A, solver=solver, block_rows=17), whole)
    reordered = explain(P, A[:, ::-1].copy(), solver=solver)
    assert [row.concepts for row in reordered.explanations_[::-1]] == [row.concepts for row in whole.explanations_]


def test_order_of_concepts_and_rows_changes_nothing() -> None:
    P, A = made_up()
    whole = explain(P, A)
    order = np.random.default_rng(0).permutation(P.shape[1])
    names = [f"concept {i}" for i in order]
    same(explain(P[:, order], A, concept_names=names), whole)
    rows = np.random.default_rng(1).permutation(N)
    place = np.argsort(rows)
    moved = LinearExplanation().fit(P[rows], A[rows], train=np.sort(place[SPLIT.train]), val=np.sort(place[SPLIT.val]))
    same(moved, whole)


def test_sources_of_every_kind_agree(tmp_path: Path) -> None:
    P, A = made_up()
    whole = explain(P, A)
    np.save(tmp_path / "p.npy", P.astype(np.float32))
    same(explain(np.load(tmp_path / "p.npy", mmap_mode="r"), A), whole)
    same(explain(sparse.csr_array(P), A), whole)
    same(explain(P.astype(np.uint8), A), whole)
    same(explain(P.tolist(), A.tolist()), whole)
    same(explain(P, A, dtype="float32"), whole, atol=1e-4)


def test_test_rows_are_not_looked_at() -> None:
    P, A = made_up()
    whole = explain(P, A)
    changed, other = A.copy(), P.copy()
    changed[SPLIT.test] *= 50
    other[SPLIT.test] = 0
    same(explain(other, changed), whole)
    assert not np.allclose(
        explain(P, A, statistics="all").ranking_weights_, explain(P, changed, statistics="all").ranking_weights_
    )


def test_dead_units_and_degenerate_concepts_are_reported() -> None:
    P, A = made_up(u=6)
    A[:, 1] = 0.0
    A[:, 2] = 7.25
    A[SPLIT.val, 3] = 1.0
    A[:, 4] = np.abs(A[:, 4]) * 1e-4
    only = SPLIT.test[:8]
    P[:, 10] = 0.0
    P[only, 10] = 1.0  # constant on the training rows
    P[:, 11] = P[:, 0]
    for options in (
        {},
        {"solver": "exact"},
        {"statistics": "all"},
        {"search": "top"},
        {"refit": "adam"},
        {"lam": "path"},
    ):
        model = explain(P, A, **options)
        assert [model.status_[k] for k in (0, 1, 2, 3, 4)] == [
            "explained",
            "constant",
            "constant",
            "constant",
            "explained",
        ]
        assert [model.dead_[k] for k in range(5)] == [False, True, False, False, True]
        notes = "\n".join(model.notes_)
        assert "no explanation for 3 units that do not vary on the training or validation rows: 1, 2, 3" in notes
        assert "1 unit never exceeds 0.01, as good as dead: 4" in notes
        assert re.search("left out 1 (concept that does not vary|of 30 concepts that are)", notes)
        assert not model.concept_mask_[10]
        for name in ("val_correlation_", "objective_", "duality_gap_", "ranking_weights_"):
            assert np.isfinite(getattr(model, name)).all()
        flat = model.explanations_[2]
        assert (flat.concepts, flat.bias, flat.scores["val correlation"]) == ((), 7.25, None)
        text = format_table(model.table("layer4"))
        assert "nan" not in text.lower()
        assert parse_table(text).rows == model.table("layer4").rows
        scores, interval = model.score_rows(P, A, SPLIT.test)
        assert np.isnan(scores[1])
        assert np.isnan(interval.low[1])
        assert np.isfinite(scores[0])


def test_concepts_that_validation_never_shows_do_not_fill_the_window() -> None:
    P, A = made_up()
    rare = np.zeros((N, 12))
    for k in range(12):  # present in training only, where they follow the unit perfectly
        rare[SPLIT.train[A[SPLIT.train, 0].argsort()[-5 * (k + 1) :]], k] = 1.0
    model = explain(np.c_[rare, P], A[:, :1], window=5)
    assert model.status_ == ["explained"]
    assert min(model.selected_[0]) >= 12
    assert "no candidates: 12 concepts that do not vary on the validation rows" in model.notes_


def test_no_concept_with_a_positive_correlation() -> None:
    rng = np.random.default_rng(0)
    P = (rng.random((N, 1)) < 0.5).astype(float)
    A = P.copy()
    A[SPLIT.val] *= -1
    model = explain(P, A)
    assert model.status_ == ["no concept"]
    assert model.explanations_[0].scores["val correlation"] == 0.0
    assert "no explanation for 1 unit that has no concept with a positive validation correlation: 0" in model.notes_


def test_equal_names_are_told_apart_by_column() -> None:
    P, A = made_up()
    names = [f"c{i}" for i in range(30)]
    names[1] = "c0"
    model = explain(P, A, concept_names=names)
    assert model.explanations_[0].concepts == ("c0", "c0")
    assert model.selected_[0].tolist() == [0, 1]
    assert "1 chosen name belongs to several concepts (see `selected_` for the column): `c0`" in model.notes_
    assert np.corrcoef(model.predict(P)[:, 0], A[:, 0])[0, 1] > 0.9


def test_top_search_and_its_columns() -> None:
    P, A = made_up()
    model = explain(P, A, search="top", description_length=4)
    assert all(len(row.concepts) == 4 for row in model.explanations_)
    header = format_table(model.table("fc")).splitlines()[0]
    assert header.count("concept") == 4
    for k in range(6):
        assert set(model.selected_[k].tolist()) == set(model.ranking_[k, :4].tolist())


def test_the_path_takes_the_penalty_with_the_lowest_validation_error() -> None:
    P, A = made_up(u=4)
    A[:, 3] = np.random.default_rng(5).normal(size=N)  # noise: the strongest penalty is right
    model = explain(P, A, lam="path", path_size=12)
    assert model.lam_[3] > 10 * model.lam_[0]
    X = (P - P[SPLIT.train].mean(axis=0)) / P[SPLIT.train].std(axis=0, ddof=1)
    y = (A[:, 0] - A[SPLIT.train, 0].mean()) / A[SPLIT.train, 0].std(ddof=1)
    errors = {}
    for lam in np.unique([*model.lam_.tolist(), 0.5, 0.2, 0.1, 0.02]):
        one = explain(P, A, solver="exact", lam=float(lam) * 0.99, units=[0])
        w = np.zeros(30)
        w[one.ranking_[0]] = one.ranking_weights_[0]
        errors[float(lam)] = float(((X[SPLIT.val] @ w - y[SPLIT.val]) ** 2).mean())
    assert min(errors, key=lambda lam: errors[lam]) == pytest.approx(model.lam_[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "fast"}, "solver='fast'"),
        ({"search": "x"}, "search"),
        ({"refit": "x"}, "refit"),
        ({"statistics": "test"}, "statistics"),
        ({"lam": -1}, "lam=-1"),
        ({"lam": "auto"}, "lam='auto'"),
        ({"alpha": 2.0}, "alpha=2.0"),
        ({"max_length": 0}, "max_length=0"),
        ({"window": 1.5}, "window=1.5"),
        ({"dtype": "float16"}, "dtype"),
        ({"device": "tpu"}, "device"),
        ({"min_top": 2.0}, "no concept with a mean"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    P, A = made_up()
    with pytest.raises(ValueError, match=message):
        explain(P, A, **options)


def test_inhibition_is_found_by_absolute_weight() -> None:
    rng = np.random.default_rng(3)
    P = (rng.random((N, 40)) < 0.3).astype(float)
    A = (0.4 * P[:, :1] - 2.0 * P[:, 5:6] - 1.0 * P[:, 6:7]) + 0.3 * rng.normal(size=(N, 1))
    by_size = explain(P, A, rank="absolute", max_length=2)
    assert by_size.explanations_[0].concepts == ("concept 6", "concept 5")  # written with the largest weight first
    np.testing.assert_allclose(by_size.explanations_[0].weights, [-1.0, -2.0], atol=0.15)
    assert by_size.val_correlation_[0] > explain(P, A, max_length=2).val_correlation_[0] + 0.1
    with pytest.raises(ValueError, match="rank='up'"):
        explain(P, A, rank="up")


def test_impossible_inputs() -> None:
    P, A = made_up()
    bad = A.copy()
    bad[3, 2] = np.nan
    for call in (
        lambda: LinearExplanation().fit(P[:-1], A, **PARTS),
        lambda: LinearExplanation().fit(P, bad, **PARTS),
        lambda: LinearExplanation().fit(P, A[:, :, None, None], **PARTS),
        lambda: LinearExplanation().fit(P, A, train=[0, 1, 2], val=[2, 3]),
        lambda: LinearExplanation().fit(P, A, train=[0, 1, N], val=[2, 3]),
        lambda: explain(P, A, concept_names=["a"]),
        lambda: explain(P, A, units=[6]),
        lambda: explain(np.ones_like(P), A),
        lambda: explain(P, A).predict(P[:, :5]),
    ):
        with pytest.raises(ValueError, match="Got"):
            call()


def test_scikit_learn_conventions() -> None:
    model = LinearExplanation(max_length=3, solver="exact")
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    P, A = made_up()
    same(copy.fit(P, A, **PARTS), model.fit(P, A, **PARTS))


def test_computed_similarities_from_explanation_to_simulation() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(N, 16)), rng.normal(size=(40, 16))
    explainer = LazyCosines(images, texts, a=10.0, b=0.0)
    simulator = LazyCosines(images + 0.1 * rng.normal(size=images.shape), texts, a=12.0, b=0.01)
    A = np.maximum(explainer[:][:, :5] @ rng.normal(size=(5, 3)) + 0.05 * rng.normal(size=(N, 3)), 0)
    names = [f"word {i}" for i in range(40)]
    model = explain(explainer, A, concept_names=names)
    same(explain(explainer[:], A, concept_names=names), model)
    table = parse_table(format_table(model.table("fc")))
    scores = correlation_scores(table, simulator, names, A, rows=SPLIT.test, n_resamples=50)
    own, _ = model.score_rows(explainer, A, SPLIT.test)
    assert (scores.scores > 0.2).all()
    assert own.mean() >= scores.scores.mean() - 0.05


def test_real_digits_with_superclasses() -> None:
    digits = load_digits()
    names = [f"digit {k}" for k in range(10)]
    superclasses = {"round": [0, 6, 8, 9], "straight": [1, 4, 7], "even": [0, 2, 4, 6, 8]}
    P, concept_names = label_concepts(digits.target, names, superclasses)
    rng = np.random.default_rng(0)
    hidden = np.maximum(digits.data @ rng.normal(size=(64, 24)) / 40, 0)
    split = random_split(len(digits.target), 0)
    runs = {
        solver: LinearExplanation(solver=solver, min_top=None).fit(
            P, hidden, train=split.train, val=split.val, concept_names=concept_names
        )
        for solver in ("matched", "exact")
    }
    for model in runs.values():
        scores, _ = model.score_rows(P, hidden, split.test)
        assert np.nanmean(scores) > 0.45
        assert all(set(row.concepts) <= set(concept_names) for row in model.explanations_)
    # one-hot classes explain at most what the class means explain
    live = np.flatnonzero(np.ptp(hidden[split.test], axis=0))
    means = np.stack([hidden[split.train][digits.target[split.train] == k].mean(axis=0) for k in range(10)])
    ceiling = [np.corrcoef(means[digits.target[split.test], k], hidden[split.test, k])[0, 1] for k in live]
    best, _ = runs["matched"].score_rows(P, hidden, split.test)
    assert np.nanmean(best) <= np.mean(ceiling) + 0.01
    assert np.nanmean(best) >= np.mean(ceiling) - 0.1


def test_the_largest_case_needs_moments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are asked for in blocks, never all at once."""
    P, A = made_up()
    asked: list[int] = []

    class Source:
        shape = P.shape

        def __getitem__(self, rows: Any) -> np.ndarray:
            block = P[rows]
            asked.append(len(block))
            return block

    model = explain(Source(), A, block_rows=13)
    assert max(asked) <= 13
    same(model, explain(P, A))
