"""Filters from how signal values vary inside clusters: what is determined, and that it is said when nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.methods.directions.baselines import KMeansDirections, PCADirections
from rdxcli.methods.directions.eddp import EDDP
from rdxcli.methods.directions.independence import independent_filters, varying_filters
from rdxcli.methods.directions.recovery import recovery
from rdxcli.methods.directions.synthetic import decoders, generate, named


def mixed(law: str, own: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Features (9, P), owners (P,) and unit filters: 4 concepts and 2 distractors in 9 channels.

    Values spread ``own`` times as far in their own cluster as elsewhere.
    """
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((9, 9)))[0][:, :6] + 0.25 * rng.standard_normal((9, 6))
    owner = rng.integers(4, size=4000)
    draw = rng.standard_normal if law == "gaussian" else lambda size: rng.uniform(-1.7, 1.7, size)
    values = draw((4000, 6))
    present = owner[:, None] == np.arange(4)
    values[:, :4] *= np.where(present, own, 1.0)
    values[:, :4] += 12 * present
    x = values @ directions.T + 0.01 * rng.standard_normal((4000, 9))
    W = decoders(directions[:, :4], directions[:, 4:])
    return (
        torch.from_numpy((x - x.mean(0)).T.astype(np.float32)),
        torch.from_numpy(owner),
        W / np.linalg.norm(W, axis=0),
    )


def cosines(found: np.ndarray, W: np.ndarray) -> np.ndarray:
    return np.abs((found / np.linalg.norm(found, axis=0) * W).sum(0))


def reduced(X: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    axes = np.linalg.svd(X.numpy(), full_matrices=False)[0][:, :6]
    return torch.from_numpy(axes.T @ X.numpy()), axes


@pytest.mark.parametrize("law", ["gaussian", "uniform"])
@pytest.mark.parametrize("seed", [0, 1])
def test_values_that_vary_more_where_they_are_present_determine_the_filters(law: str, seed: int) -> None:
    X, owner, W = mixed(law, 2.0, seed)
    x, axes = reduced(X)
    found = varying_filters(x, owner, 4)
    assert found is not None
    assert float(found.certainty.min()) > 5
    assert cosines(axes @ found.W.numpy().T, W).min() > 0.99


def test_the_law_of_the_values_determines_them_where_they_vary_alike() -> None:
    X, owner, W = mixed("uniform", 1.0, 2)
    x, axes = reduced(X)
    found = independent_filters(x, owner, 4, torch.Generator().manual_seed(0))
    varying = varying_filters(x, owner, 4)
    assert found is not None
    assert varying is not None
    assert float(varying.certainty.min()) < 5 < float(found.certainty.min())
    assert cosines(axes @ found.W.numpy().T, W).min() > 0.99


def test_gaussian_values_that_vary_alike_determine_nothing() -> None:
    X, owner, _ = mixed("gaussian", 1.0, 3)
    x, _ = reduced(X)
    for found in (
        independent_filters(x, owner, 4, torch.Generator().manual_seed(0)),
        varying_filters(x, owner, 4),
    ):
        assert found is not None
        assert float(found.certainty.min()) < 5
    assert varying_filters(x, torch.zeros_like(owner), 4) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gap"])
def test_harder_cases_are_solved_better_than_by_the_baselines(name: str) -> None:
    """Seeds that nothing was chosen on; more of them in tests/benchmarks/bench_eddp_harder.py."""
    case = generate(named(name, images_per_class=60, seed=400))
    truth = (case.X, case.values, case.owner, case.S, case.B, case.W, case.is_test)
    found = EDDP(case.S.shape[1], n_starts=6).fit(case.X[~case.is_test], case.head)
    mine = recovery(found, *truth).as_dict()
    assert mine["enc"] > 0.94
    assert mine["iou"] > 0.85
    for kind in (PCADirections, KMeansDirections):
        theirs = recovery(kind(case.S.shape[1]).fit(case.X[~case.is_test]), *truth).as_dict()
        for score in ("enc", "dec_span", "corr", "iou"):
            assert mine[score] >= theirs[score] - 0.01, (kind.__name__, score)
