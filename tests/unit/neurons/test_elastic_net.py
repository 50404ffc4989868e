"""The batched elastic net against scikit-learn, optimality conditions, and the plain iteration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet

from rdxcli.numerics import proximal_flow
from rdxcli.numerics.elastic_net import (
    Problem,
    exact,
    group_soft_threshold,
    lambda_grid,
    lambda_max,
    path,
    soft_threshold,
)


def regression(
    n: int = 120, c: int = 30, u: int = 5, seed: int = 0, lam: float = 0.06, alpha: float = 0.9
) -> tuple[np.ndarray, np.ndarray, Problem]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)) @ rng.normal(size=(6, c)) + rng.normal(size=(n, c))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    Y = X[:, :4] @ rng.normal(size=(4, u)) + rng.normal(size=(n, u))
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    return X, Y, Problem(X.T @ X / n, Y.T @ X / n, (Y**2).mean(axis=0), lam, alpha)


def plain_flow(problem: Problem, h: float, steps: int) -> np.ndarray:
    W = np.zeros_like(problem.C)
    for _ in range(steps):
        W = soft_threshold(W - h * (W @ problem.G - problem.C), h * problem.l1, h * problem.l2)
    return W


@pytest.mark.parametrize(("lam", "alpha"), [(0.06, 0.9), (0.3, 1.0), (0.01, 0.5), (0.0505, 0.99)])
def test_the_minimum_is_that_of_scikit_learn(lam: float, alpha: float) -> None:
    X, Y, problem = regression(lam=lam, alpha=alpha)
    W = exact(problem)
    reference = ElasticNet(alpha=lam, l1_ratio=alpha, tol=1e-12, max_iter=100_000, fit_intercept=False).fit(X, Y)
    np.testing.assert_allclose(W, reference.coef_, atol=1e-6)
    assert problem.duality_gap(W).max() < 1e-12
    by_hand = 0.5 * ((Y - X @ W.T) ** 2).mean(axis=0) + lam * alpha * np.abs(W).sum(axis=1)
    np.testing.assert_allclose(problem.objective(W), by_hand + 0.5 * lam * (1 - alpha) * (W**2).sum(axis=1))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    c=st.integers(2, 40),
    lam=st.floats(1e-3, 0.5),
    alpha=st.floats(0.3, 1.0),
    copies=st.booleans(),
)
def test_optimality_conditions(seed: int, c: int, lam: float, alpha: float, copies: bool) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(50, c))
    if copies:  # exactly equal concepts
        X[:, c // 2 :] = X[:, : c - c // 2]
    Y = X @ rng.normal(size=(c, 3)) * (rng.random((c, 3)) < 0.3).sum() / c + rng.normal(size=(50, 3))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    problem = Problem(X.T @ X / 50, Y.T @ X / 50, (Y**2).mean(axis=0), lam, alpha)
    W = exact(problem)
    Q = problem.gradient(W)
    assert (np.abs(Q) <= problem.l1 * (1 + 1e-6) + 1e-9).all()
    np.testing.assert_allclose(Q[W != 0], problem.l1 * np.sign(W[W != 0]), rtol=1e-6, atol=1e-9)
    assert (problem.duality_gap(W) <= 1e-7 * (1 + problem.v)).all()


def test_targets_do_not_influence_each_other() -> None:
    _, _, problem = regression(u=7)
    whole = exact(problem)
    for row in range(7):
        one = Problem(problem.G, problem.C[row : row + 1], problem.v[row : row + 1], problem.lam, problem.alpha)
        np.testing.assert_allclose(exact(one)[0], whole[row], atol=1e-12)


def test_warm_starts_change_nothing() -> None:
    _, _, problem = regression()
    W = exact(problem)
    rng = np.random.default_rng(1)
    for start in (W, -W, rng.normal(size=W.shape), exact(problem.at(0.3))):
        np.testing.assert_allclose(exact(problem, start=start), W, atol=1e-10)


def test_the_path_ends_at_least_squares() -> None:
    X, Y, problem = regression(alpha=0.95)
    lams = lambda_grid(lambda_max(problem.C, 0.95), 0.01, 8)
    W = path(problem, lams)
    assert not W[0].any()
    for k, lam in enumerate(lams[:-1]):
        assert problem.at(lam).duality_gap(W[k]).max() < 1e-10
    np.testing.assert_allclose(W[-1].T, np.linalg.lstsq(X, Y, rcond=None)[0], atol=1e-8)
    np.testing.assert_allclose(np.diff(np.log(lams[:-1])), np.diff(np.log(lams[:-1]))[0])


def test_without_l1_the_minimum_is_ridge_regression() -> None:
    X, Y, problem = regression(lam=0.3, alpha=0.0)
    expected = np.linalg.solve(X.T @ X / len(X) + 0.3 * np.eye(X.shape[1]), X.T @ Y / len(X)).T
    W = exact(problem)
    np.testing.assert_allclose(W, expected, atol=1e-10)
    assert problem.duality_gap(W).max() < 1e-15
    assert problem.duality_gap(np.zeros_like(W)).min() > 0


def test_the_gap_bounds_the_distance_to_the_minimum() -> None:
    _, _, problem = regression()
    best = problem.objective(exact(problem))
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 1.0):
        W = exact(problem) + scale * rng.normal(size=problem.C.shape)
        assert (problem.duality_gap(W) >= problem.objective(W) - best - 1e-12).all()


@pytest.mark.parametrize("c", [12, 60])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_short_cuts_do_not_change_the_flow(c: int, dtype: str) -> None:
    _, _, problem = regression(c=c, u=6, lam=0.1)
    h = 0.5 / np.linalg.eigvalsh(problem.G)[-1]
    expected = plain_flow(problem, h, 400)
    atol = 1e-13 if dtype == "float64" else 2e-5
    for chunk in (1, 4, 6):
        W = proximal_flow.proximal_gradient(problem, h, 400, dtype=dtype, chunk=chunk)
        np.testing.assert_allclose(W, expected, atol=atol)
        if dtype == "float64":
            assert ((W != 0) == (expected != 0)).all()
    # the path of other devices: all rows together to the end
    import torch

    G, C = torch.as_tensor(problem.G), torch.as_tensor(problem.C)
    together = proximal_flow._Flow(G, h, problem.l1, problem.l2).together(C, torch.zeros_like(C), 400)
    np.testing.assert_allclose(together.numpy(), expected, atol=1e-13)


def test_screening_with_a_scale_other_than_one() -> None:
    _, _, problem = regression(c=80, u=3, lam=0.1)
    big = Problem(problem.G * 9.0, problem.C * 3.0, problem.v, problem.lam, problem.alpha)
    h = 0.5 / np.linalg.eigvalsh(big.G)[-1]
    np.testing.assert_allclose(
        proximal_flow.proximal_gradient(big, h, 300), plain_flow(big, h, 300), rtol=0, atol=1e-13
    )


def test_a_long_flow_reaches_the_minimum() -> None:
    _, _, problem = regression()
    np.testing.assert_allclose(proximal_flow.time_matched(problem, 2000.0, step=None), exact(problem), atol=1e-6)


def test_time_and_steps() -> None:
    assert proximal_flow.flow_time(500, 35_000, 512, 5e-4) == pytest.approx(500.5 * 69 * 5e-4)
    _, _, problem = regression()
    assert not proximal_flow.time_matched(problem, 0.0).any()
    coarse, fine = (proximal_flow.time_matched(problem, 1.0, step=h) for h in (0.005, 0.0005))
    assert 0 < np.abs(coarse - fine).max() < 5e-3


def test_largest_eigenvalue_is_not_too_small() -> None:
    for seed in range(5):
        _, _, problem = regression(seed=seed)
        true = np.linalg.eigvalsh(problem.G)[-1]
        assert true * (1 - 1e-3) <= proximal_flow.largest_eigenvalue(problem.G) <= true * 1.05
    assert proximal_flow.largest_eigenvalue(np.zeros((3, 3))) == 0.0


def test_thresholds() -> None:
    values = np.array([[3.0, -0.5, 0.0], [4.0, 0.0, 0.0]])
    assert soft_threshold(values, 1.0, 1.0).tolist() == [[1.0, 0.0, 0.0], [1.5, 0.0, 0.0]]
    grouped = group_soft_threshold(values, 2.5)
    np.testing.assert_allclose(grouped, [[1.5, 0.0, 0.0], [2.0, 0.0, 0.0]])
    assert np.isfinite(grouped).all()


@pytest.mark.parametrize(
    "change", [{"lam": -1.0}, {"lam": np.nan}, {"alpha": 1.5}, {"C": np.zeros((2, 4))}, {"v": np.zeros(3)}]
)
def test_bad_problems(change: dict[str, object]) -> None:
    good = {"G": np.eye(3), "C": np.zeros((2, 3)), "v": np.ones(2), "lam": 0.1, "alpha": 0.9}
    with pytest.raises(ValueError, match="Got"):
        Problem(**{**good, **change})


def test_bad_options() -> None:
    _, _, problem = regression()
    for call in (
        lambda: proximal_flow.time_matched(problem, -1.0),
        lambda: proximal_flow.time_matched(problem, 1.0, step=0.0),
        lambda: exact(problem, start=np.zeros((1, 1))),
        lambda: lambda_grid(1.0, 0.0, 5),
        lambda: lambda_grid(1.0, 0.1, 0),
    ):
        with pytest.raises(ValueError, match="Got"):
            call()


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    _, _, problem = regression(c=200, u=16)
    np.testing.assert_allclose(exact(problem, device="cuda"), exact(problem), atol=1e-9)
    np.testing.assert_allclose(
        proximal_flow.time_matched(problem, 2.0, device="cuda", dtype="float32"),
        proximal_flow.time_matched(problem, 2.0),
        atol=1e-4,
    )
