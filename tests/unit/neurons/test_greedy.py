"""The greedy search against a literal transcription of its description, one candidate and one pass at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdxcli.methods.neurons.greedy import Adam, LeastSquares, greedy_search, top_fit
from rdxcli.numerics.moments import second_moments

N, TRAIN = 90, 60


def data(seed: int, c: int = 25, u: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    P = (rng.random((N, c)) < 0.4) * rng.random((N, c)) + 0.2 * rng.random((N, 1))
    A = P[:, :5] @ rng.normal(size=(5, u)) + 0.3 * rng.normal(size=(N, u))
    ranking = np.stack([np.argsort(-np.abs(np.corrcoef(P.T, A[:, k])[-1, :-1])) for k in range(u)])
    return P, A, ranking


def moments(P: np.ndarray, A: np.ndarray) -> tuple:
    return second_moments(P, A, np.arange(TRAIN)), second_moments(P, A, np.arange(TRAIN, N))


def by_hand(P: np.ndarray, a: np.ndarray, order: np.ndarray, length: int, tolerance: float, window: int) -> list[int]:
    """Section 5 of the specification, word by word, with NumPy's least squares and correlation."""
    selected: list[int] = []
    bad: set[int] = set()
    best = 0.0
    while len(selected) < length:
        candidates = [c for c in order if c not in selected and c not in bad][:window]
        found, top = None, best
        for c in candidates:
            columns = [*selected, c]
            design = np.c_[P[:TRAIN, columns], np.ones(TRAIN)]
            w = np.linalg.lstsq(design, a[:TRAIN], rcond=None)[0]
            r = np.corrcoef(P[TRAIN:, columns] @ w[:-1] + w[-1], a[TRAIN:])[0, 1]
            if selected and r - best < tolerance:
                bad.add(c)
            elif r > top:
                found, top = c, r
        if found is None:
            break
        selected.append(found)
        best = top
    return selected


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(1, 8),
    tolerance=st.sampled_from([0.0005, 0.02, 0.1]),
    window=st.sampled_from([1, 3, 10, 40]),
)
def test_same_choice_as_by_hand(seed: int, length: int, tolerance: float, window: int) -> None:
    P, A, ranking = data(seed)
    train, val = moments(P, A)
    options = {"max_length": length, "tolerance": tolerance, "window": window}
    found = greedy_search(LeastSquares(train, val), range(3), ranking, **options)
    for unit, search in enumerate(found):
        expected = by_hand(P, A[:, unit], ranking[unit], length, tolerance, window)
        assert (search.steps[-1].concepts.tolist() if search.steps else []) == expected
        assert [len(step.concepts) for step in search.steps] == list(range(1, len(expected) + 1))
        if search.steps:
            fit = search.steps[-1]
            design = np.c_[P[:TRAIN, expected], np.ones(TRAIN)]
            w = np.linalg.lstsq(design, A[:TRAIN, unit], rcond=None)[0]
            np.testing.assert_allclose([*fit.weights, fit.bias], w, atol=1e-9)
            prediction = P[TRAIN:, expected] @ w[:-1]
            assert fit.correlation == pytest.approx(np.corrcoef(prediction, A[TRAIN:, unit])[0, 1], abs=1e-9)


def test_adam_takes_the_steps_of_torch() -> None:
    import torch

    P, A, _ = data(5)
    train, val = moments(P, A)
    concepts = np.array([4, 0, 7])
    layer = torch.nn.Linear(3, 1).double()
    first = layer.weight.detach().numpy()[0].copy(), float(layer.bias.detach())
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.3)
    X, y = torch.tensor(P[:TRAIN, concepts]), torch.tensor(A[:TRAIN, 1])
    for _ in range(100):
        optimiser.zero_grad()
        ((layer(X)[:, 0] - y) ** 2).mean().backward()
        optimiser.step()
    fit = Adam(train, val, start=lambda unit, length: first).fit(1, concepts)
    np.testing.assert_allclose(fit.weights, layer.weight.detach().numpy()[0], atol=1e-9)
    assert fit.bias == pytest.approx(float(layer.bias.detach()), abs=1e-9)
    long = Adam(train, val, steps=5_000, learning_rate=0.01).fit(1, concepts)
    np.testing.assert_allclose(long.weights, LeastSquares(train, val).fit(1, concepts).weights, atol=2e-3)


def test_units_do_not_influence_each_other() -> None:
    P, A, ranking = data(1, u=6)
    refit = LeastSquares(*moments(P, A))
    whole = greedy_search(refit, range(6), ranking, tolerance=0.001)
    for unit in (5, 2):
        alone = greedy_search(refit, [unit], ranking[[unit]], tolerance=0.001)[0]
        assert alone.steps[-1].concepts.tolist() == whole[unit].steps[-1].concepts.tolist()
        assert alone.steps[-1].weights.tolist() == whole[unit].steps[-1].weights.tolist()


def test_nothing_to_find() -> None:
    P, A, ranking = data(2)
    A[:, 0] = 0.0  # dead
    A[TRAIN:, 1] = 3.0  # constant on the validation rows
    A[:TRAIN, 2], A[TRAIN:, 2] = P[:TRAIN, 0], -P[TRAIN:, 0]  # the only candidate has the wrong sign there
    ranking[2, 0], ranking[2, 1:] = 0, -1
    for refit in (LeastSquares(*moments(P, A)), Adam(*moments(P, A))):
        found = greedy_search(refit, range(3), ranking)
        assert [len(search.steps) for search in found] == [0, 0, 0]


def test_degenerate_candidates_are_passed_over() -> None:
    P, A, _ = data(3)
    P[:, 1] = P[:, 0]  # a copy
    P[:, 2] = 0.7  # constant
    P[:, 3] = P[:, 0] + 2 * P[:, 4]  # dependent on two others
    ranking = np.array([[2, 0, 1, 4, 3, 5, 6]])
    refit = LeastSquares(*moments(P, A))
    search = greedy_search(refit, [0], ranking, tolerance=-1.0, window=3, trace=True)[0]
    chosen = search.steps[-1].concepts.tolist()
    assert 2 not in chosen
    assert len({0, 1} & set(chosen)) == 1
    assert len({0, 1, 3, 4} & set(chosen)) <= 2
    assert all(np.isfinite(step.weights).all() and np.isfinite(step.correlation) for step in search.steps)


def test_a_constant_candidate_follows_nothing_whatever_the_refit() -> None:
    P, A, _ = data(3)
    P[:, 2] = 0.7
    P[TRAIN:, 3] = 0.4  # varies on the training rows only
    A[TRAIN:, 1] = 3.0
    for refit in (LeastSquares(*moments(P, A)), Adam(*moments(P, A))):
        found = refit.correlations(np.array([0, 1]), np.empty((2, 0), dtype=np.int64), np.array([[2, 3, 4, -1]] * 2))
        assert found[0, :2].tolist() == [0.0, 0.0]
        assert np.isfinite(found[0, 2])
        assert np.isnan(found[0, 3])
        assert np.isnan(found[1]).all()  # the unit does not vary: there is nothing to follow
        assert refit.fit(0, np.array([3])).correlation == 0.0
        trace = greedy_search(refit, [0], np.array([[2, 3, 4, 0]]), trace=True)[0].trace
        assert [r for step, c, r in trace if step == 0 and c in (2, 3)] == [0.0, 0.0]


def test_near_copies_do_not_cancel_each_other_out() -> None:
    P, A, _ = data(7)
    P[:, 1] = P[:, 0] + 1e-4 * np.random.default_rng(0).normal(size=N)  # nearly the same concept
    A[:, 0] = P[:, 0] + 1e4 * (P[:, 1] - P[:, 0])
    fit = greedy_search(LeastSquares(*moments(P, A)), [0], np.arange(25)[None, :], tolerance=0.001)[0].steps[-1]
    assert not {0, 1} <= set(fit.concepts.tolist())
    assert np.abs(fit.weights).max() < 100


def test_top_fit_of_dependent_concepts_is_finite() -> None:
    P, A, _ = data(4)
    P[:, 1], P[:, 2] = P[:, 0], 1.0
    train, val = moments(P, A)
    fit = top_fit(LeastSquares(train, val), 0, np.array([0, 1, 2, 3, -1]), 4)
    assert fit is not None
    assert fit.concepts.tolist() == [0, 1, 2, 3]
    assert fit.weights[0] == pytest.approx(fit.weights[1])  # smallest norm
    assert fit.weights[2] == 0.0
    both = np.linalg.lstsq(np.c_[P[:TRAIN, [0, 3]], np.ones(TRAIN)], A[:TRAIN, 0], rcond=None)[0]
    np.testing.assert_allclose([fit.weights[:2].sum(), fit.weights[3], fit.bias], both, atol=1e-9)
    assert top_fit(LeastSquares(train, val), 0, np.array([-1, -1]), 4) is None


def test_fewer_candidates_than_the_window() -> None:
    P, A, _ = data(6)
    refit = LeastSquares(*moments(P, A))
    found = greedy_search(refit, [0, 1], np.array([[3, -1, -1], [0, 1, 2]]), tolerance=0.0)
    assert found[0].steps[-1].concepts.tolist() == [3] if found[0].steps else True
    assert len(found[1].steps) <= 3
    with pytest.raises(ValueError, match="positive integers"):
        greedy_search(refit, [0], np.array([[1]]), max_length=0)
