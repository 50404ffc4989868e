"""Simulated activations, correlation scores, length curves, ablation scores and figures about units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdxcli.methods.neurons.ablation import LinearHead, ablation_scores, controls
from rdxcli.methods.neurons.inspection import area_chart, classify, impact, importance_share
from rdxcli.methods.neurons.scores import ratio_interval
from rdxcli.methods.neurons.simulation import correlation_scores, find_concepts, length_curve, simulate
from rdxcli.methods.neurons.tables import Explanation, ExplanationTable

N = 120
NAMES = ["cat", "dog", "0", "null", "dog"]


def concept_matrix(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((N, len(NAMES)))


TABLE = ExplanationTable(
    "linear",
    (
        Explanation(4, ("cat", "null"), (2.0, -1.0), 0.5),
        Explanation(1, (), (), 3.0, status="constant"),
        Explanation(2, ("0", "dog", "cat"), (1.0, 0.5, 0.25), 0.0),
    ),
)


def test_predictions_by_hand() -> None:
    P = concept_matrix()
    rows = np.array([5, 9, 30])
    predicted, notes = simulate(TABLE, P, NAMES, rows)
    np.testing.assert_allclose(predicted[:, 0], 2 * P[rows, 0] - P[rows, 3] + 0.5)
    assert predicted[:, 1].tolist() == [3.0] * 3
    np.testing.assert_allclose(predicted[:, 2], P[rows, 2] + 0.5 * P[rows, 1] + 0.25 * P[rows, 0])
    assert notes == ["1 concept name occurs more than once, the first column is used: `dog`"]
    np.testing.assert_allclose(simulate(TABLE, P, NAMES, rows, length=1)[0][:, 2], P[rows, 2])


def test_missing_concepts() -> None:
    found = find_concepts(TABLE, ["cat", "dog"])
    assert found.missing == ("null", "0")
    assert "not in the concept matrix" in found.notes[0]
    with pytest.raises(ValueError, match="2 concepts without a column"):
        simulate(TABLE, concept_matrix()[:, :2], ["cat", "dog"])
    with pytest.raises(ValueError, match="5 concept columns and 2 names"):
        simulate(TABLE, concept_matrix(), ["cat", "dog"])


def test_correlation_scores() -> None:
    P = concept_matrix()
    rng = np.random.default_rng(1)
    A = rng.random((N, 6))
    A[:, 4] = 2 * P[:, 0] - P[:, 3] + 0.1 * rng.normal(size=N)
    test = np.arange(60, N)
    scores = correlation_scores(TABLE, P, NAMES, A, rows=test, n_resamples=100)
    assert scores.units.tolist() == [4, 1, 2]
    predicted, _ = simulate(TABLE, P, NAMES, test)
    assert scores.scores[0] == pytest.approx(np.corrcoef(predicted[:, 0], A[test, 4])[0, 1])
    assert np.isnan(scores.scores[1])
    assert scores.summary.count == 2
    assert scores.summary.undefined == 1
    assert scores.lengths.tolist() == [2, 0, 3]
    assert any("no correlation for 1 unit" in note for note in scores.notes)
    assert scores.interval is not None
    assert scores.interval.low[0] < scores.scores[0] < scores.interval.high[0]
    picked = correlation_scores(TABLE, P, NAMES, A[:, [2, 4, 1]], units=[2, 4, 1], rows=test, n_resamples=0)
    np.testing.assert_array_equal(picked.scores, scores.scores)
    with pytest.raises(ValueError, match=r"explanations of units \[4\]"):
        correlation_scores(TABLE, P, NAMES, A[:, :4], rows=test)
    with pytest.raises(ValueError, match="the same images"):
        correlation_scores(TABLE, P[:-1], NAMES, A)


def test_length_curve_keeps_its_units() -> None:
    P = concept_matrix()
    A = np.zeros((N, 6))
    A[:, 4], A[:, 2] = simulate(TABLE, P, NAMES)[0][:, [0, 2]].T
    curve = length_curve(TABLE, P, NAMES, A)
    assert curve.lengths.tolist() == [1, 2, 3]
    assert [summary.count for summary in curve.summaries] == [2, 2, 2]
    np.testing.assert_allclose(curve.scores[2, [0, 2]], 1.0)
    assert curve.scores[0, 0] == pytest.approx(np.corrcoef(P[:, 0], A[:, 4])[0, 1])
    assert np.isnan(curve.scores[:, 1]).all()
    assert sorted(curve.by_length) == [2, 3]


def head(seed: int = 0, d: int = 4, k: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X, W, b = rng.random((N, d)), 2 * rng.normal(size=(k, d)), rng.normal(size=k)
    return X, W, b, (X @ W.T + b + 0.3 * rng.normal(size=(N, k))).argmax(axis=1)


def test_head_losses_are_those_of_the_full_product() -> None:
    X, W, b, y = head()
    losses = LinearHead(X, W, b, y, temperature=1.7)
    rows = np.array([3, 50, 7])
    values = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64, requires_grad=True)
    ours = losses(2, values, rows)
    changed = torch.as_tensor(X[rows]).clone()
    changed = torch.cat([changed[:, :2], values[:, None], changed[:, 3:]], dim=1)
    logits = (changed @ torch.as_tensor(W).T + torch.as_tensor(b)) / 1.7
    full = torch.nn.functional.cross_entropy(logits, torch.as_tensor(y[rows]), reduction="none")
    torch.testing.assert_close(ours, full)
    weights = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    slope, expected = (
        torch.autograd.grad((weights * loss).sum(), values, retain_graph=True)[0] for loss in (ours, full)
    )
    torch.testing.assert_close(slope, expected)


class TwoLayers:
    """A unit in the middle of a network: everything after it is run again."""

    def __init__(self, X: np.ndarray, y: np.ndarray, seed: int = 0) -> None:
        self.X, self.y = torch.as_tensor(X), torch.as_tensor(y)
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(X.shape[1], 8, generator=generator, dtype=torch.float64)
        self.second = torch.randn(8, 3, generator=generator, dtype=torch.float64)

    def __call__(self, unit: int, values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        x = self.X[rows].clone()
        x = torch.where(torch.arange(x.shape[1]) == unit, values[:, None], x)
        return torch.nn.functional.cross_entropy(
            torch.tanh(x @ self.first) @ self.second, self.y[rows], reduction="none"
        )


@pytest.mark.parametrize("network", [False, True])
def test_ablation_scores(network: bool) -> None:
    X, W, b, y = head()
    losses = TwoLayers(X, y) if network else LinearHead(X, W, b, y)
    rng = np.random.default_rng(0)
    val, test = np.arange(50), np.arange(50, N)
    noisy = X + 0.05 * rng.normal(size=X.shape)
    perfect = ablation_scores(X, X, losses, val=val, test=test)
    np.testing.assert_allclose(perfect.scores, 1.0, atol=1e-6)
    np.testing.assert_allclose(ablation_scores(X, X, losses, val=val, test=test, steps=0).scores, 1.0)
    good = ablation_scores(noisy, X, losses, val=val, test=test, steps=20)
    bad = ablation_scores(rng.random(X.shape), X, losses, val=val, test=test, steps=20)
    assert (good.scores > bad.scores).all()
    # the score of unit 1 by hand, with the fitted c and d
    new = torch.as_tensor(good.scale[1] * noisy[test, 1] + good.shift[1])
    truth = losses(1, torch.as_tensor(X[test, 1]), test)
    mean = losses(1, torch.full((len(test),), X[val, 1].mean(), dtype=torch.float64), test)
    by_hand = 1 - float((losses(1, new, test) - truth).abs().sum() / (mean - truth).abs().sum())
    assert good.scores[1] == pytest.approx(by_hand)
    one = ablation_scores(noisy[:, [1]], X, losses, val=val, test=test, units=[1], steps=20)
    assert one.scores[0] == good.scores[1]
    assert good.summary.standard_error == pytest.approx(good.scores.std() / 2)


def test_the_mean_scores_zero_and_constants_have_no_score() -> None:
    X, W, b, y = head()
    val, test = np.arange(50), np.arange(50, N)
    constant = np.tile(X[val].mean(axis=0), (N, 1))
    losses = LinearHead(X, W, b, y)
    np.testing.assert_allclose(
        ablation_scores(constant, X, losses, val=val, test=test, steps=0).scores, 0.0, atol=1e-12
    )
    assert np.isnan(ablation_scores(constant, X, losses, val=val, test=test, variant="norm").scores).all()
    silent = W.copy()
    silent[:, 2] = 0.0
    scores = ablation_scores(X, X, LinearHead(X, silent, b, y), val=val, test=test, steps=2)
    assert np.isnan(scores.scores).tolist() == [False, False, True, False]
    assert scores.notes == ("no ablation score for 1 unit that has no effect or a constant prediction: 2",)
    assert (scores.summary.count, scores.summary.undefined) == (3, 1)


def planted(n: int = 1200, u: int = 8) -> tuple[np.ndarray, LinearHead, np.ndarray]:
    """A classifier that is right on nine of ten samples, and the classes."""
    rng = np.random.default_rng(3)
    W = rng.normal(size=(4, u))
    X = rng.normal(size=(n, u)) + np.repeat(4.0 * W, n // 4, axis=0)[:n] / np.sqrt(u)
    return X, LinearHead(X, W, np.zeros(4), np.repeat(np.arange(4), n // 4)), np.repeat(np.arange(4), n // 4)


@pytest.mark.parametrize("variant", ["optim", "norm"])
def test_scores_fall_from_the_truth_to_nothing_as_noise_is_mixed_in(variant: str) -> None:
    X, losses, _ = planted()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(X))
    parts = {"val": order[:400], "test": order[400:], "variant": variant}
    Z, noise = (X - X.mean(axis=0)) / X.std(axis=0), rng.normal(size=X.shape)
    means = []
    for rho in (1.0, 0.98, 0.9, 0.7, 0.4, 0.0):
        mixed = (rho * Z + np.sqrt(1 - rho**2) * noise) * X.std(axis=0) + X.mean(axis=0)
        means.append(ablation_scores(mixed, X, losses, **parts).scores.mean())
    assert means == sorted(means, reverse=True)
    assert means[0] > (0.99 if variant == "optim" else 0.85)
    assert 0.2 < means[2] < 0.9
    assert abs(means[-1]) < 0.1
    ends = controls(X, losses, units=np.arange(8), **parts)
    assert ends.truth.scores.mean() == pytest.approx(means[0], abs=0.01)  # Adam never rests
    assert abs(ends.shuffled.scores.mean()) < 0.1
    alone = controls(X, losses, units=[5], **parts)
    assert alone.shuffled.scores[0] == ends.shuffled.scores[5]


def test_a_prediction_of_the_true_class_fails_where_the_model_is_wrong() -> None:
    """It says what the unit should have done: good where the model is right, worse than the mean where it is not."""
    X, losses, y = planted()
    right = losses.logits.numpy().argmax(axis=1) == y
    assert 0.85 < right.mean() < 0.97
    order = np.random.default_rng(0).permutation(len(X))
    of_class = np.stack([X[(y == k) & right].mean(axis=0) for k in range(4)])[y]
    parts = {"val": order[:400], "test": order[400:], "variant": "norm"}
    found = ablation_scores(of_class, X, losses, right=right, **parts)
    assert found.wrong_share.mean() > 2 * (1 - right.mean())
    assert found.right_scores.mean() > found.scores.mean() + 0.05
    test = order[400:]
    new = torch.as_tensor(found.scale[2] * of_class[test, 2] + found.shift[2])
    truth = losses(2, torch.as_tensor(X[test, 2]), test)
    mean = losses(2, torch.full((len(test),), X[order[:400], 2].mean(), dtype=torch.float64), test)
    ok = right[test]
    by_hand = 1 - float((new_loss := (losses(2, new, test) - truth).abs()[ok].sum()) / (mean - truth).abs()[ok].sum())
    assert new_loss > 0
    assert found.right_scores[2] == pytest.approx(by_hand)
    assert found.wrong_share[2] == pytest.approx(float((mean - truth).abs()[~ok].sum() / (mean - truth).abs().sum()))
    with pytest.raises(ValueError, match="right"):
        ablation_scores(of_class, X, losses, right=right[:5], **parts)


def test_intervals_of_ablation_scores() -> None:
    X, losses, _ = planted()
    order = np.random.default_rng(0).permutation(len(X))
    noisy = X + 0.5 * np.random.default_rng(1).normal(size=X.shape)
    parts = {"val": order[:400], "test": order[400:], "variant": "norm"}
    found = ablation_scores(noisy, X, losses, **parts)
    assert found.interval is not None
    assert ((found.interval.low < found.scores) & (found.scores < found.interval.high)).all()
    # the standard error over images against that of scores on disjoint tenths of the test part
    tenths = [
        ablation_scores(noisy, X, losses, intervals=False, **{**parts, "test": part}).scores
        for part in np.array_split(order[400:], 10)
    ]
    spread = np.std(tenths, axis=0, ddof=1).mean() / np.sqrt(10)
    assert found.interval.standard_error.mean() == pytest.approx(spread, rel=0.4)
    alone = ablation_scores(noisy[:, [3]], X, losses, units=[3], **parts)
    assert alone.interval is not None
    assert alone.interval.low[0] == found.interval.low[3]
    assert ablation_scores(noisy, X, losses, intervals=False, **parts).interval is None


def test_intervals_of_ratios_know_when_few_images_matter() -> None:
    rng = np.random.default_rng(2)
    worst = rng.exponential(size=(300, 60)) * (rng.random((300, 60)) < 0.05)
    found = worst * rng.random((300, 60)) ** 2  # E found / E worst = 1/3
    interval = ratio_interval(found, worst)
    assert ((interval.low < 2 / 3) & (interval.high > 2 / 3)).mean() >= 0.9
    assert (interval.high < 1).all()
    one = np.zeros((50, 3))
    one[7] = 1.0
    assert np.isnan(ratio_interval(0.5 * one, one).low).all()  # one image carries everything: nothing is known
    perfect = ratio_interval(np.zeros((50, 1)), worst[:50, :1])
    assert (perfect.low[0], perfect.high[0]) == (1.0, 1.0)
    assert np.isnan(ratio_interval(one, np.zeros((50, 3))).low).all()


def test_the_normalised_variant_does_not_depend_on_scale() -> None:
    X, W, b, y = head()
    val, test = np.arange(50), np.arange(50, N)
    losses = LinearHead(X, W, b, y)
    p = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)
    one, two = (ablation_scores(q, X, losses, val=val, test=test, variant="norm").scores for q in (p, 7 * p - 3))
    np.testing.assert_allclose(one, two)


def test_progress_is_told() -> None:
    X, W, b, y = head()
    told: list[int] = []
    losses = LinearHead(X, W, b, y)
    ablation_scores(X, X, losses, val=range(50), test=range(50, N), variant="norm", advance=told.append)
    assert told == [1] * 4


def test_impossible_ablation() -> None:
    X, W, b, y = head()
    losses = LinearHead(X, W, b, y)
    for call in (
        lambda: LinearHead(X, W[:, :2], b, y),
        lambda: LinearHead(X, W, b, y + 5),
        lambda: LinearHead(X, W, b, y, temperature=0),
        lambda: ablation_scores(X[:5], X, losses, val=[0], test=[1]),
        lambda: ablation_scores(X, X, losses, val=[0], test=[1], variant="x"),
        lambda: ablation_scores(X, X, losses, val=[0], test=[1], units=[0, 1, 2, 9]),
        lambda: ablation_scores(X * np.nan, X, losses, val=[0], test=[1]),
    ):
        with pytest.raises(ValueError, match="Got"):
            call()


def test_importance() -> None:
    effect = impact([1, 1, 0, 1], [1, 0, 0, 1], [0.5, 1.0, 2.0, 0.5], [0.5, 2.0, 2.0, 0.25])
    np.testing.assert_allclose(effect, [0, 0.5 * (1 / 3 + 1 / 4), 0, 0.5 * (-0.25 / 4)])
    share = importance_share([1.0, -3.0, 0.0, 4.0], [0.1, 9.0, 2.0, 3.0], [0.0, 0.25, 0.5, 0.9])
    np.testing.assert_allclose(share, [3 / 8, 7 / 8, 7 / 8, 1])
    assert importance_share(np.zeros(4), np.arange(4), [0.5]).tolist() == [0.0]
    with pytest.raises(ValueError, match="cutoffs"):
        importance_share(np.ones(4), np.arange(4), [1.0])
    with pytest.raises(ValueError, match="no correct image"):
        impact([0, 0], [0, 0], [1, 1], [1, 1])


def test_area_chart() -> None:
    presence = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0]])
    chart = area_chart(presence, [0.0, 1.0, 0.9, 0.5, 0.5], bands=4)
    assert chart.edges.tolist() == [0, 0.25, 0.5, 0.75, 1.0]
    assert chart.counts.tolist() == [0, 2, 0, 2]  # an activation of exactly 0 is in no band
    np.testing.assert_array_equal(chart.share, [[np.nan, 50, np.nan, 50], [np.nan, 50, np.nan, 50]])
    np.testing.assert_array_equal(chart.other, [np.nan, 0, np.nan, 50])
    assert chart.x.tolist() == [0, 0.125, 0.375, 0.625, 0.875, 1.0]
    assert chart.padded(np.array([1, 2])).tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="never positive"):
        area_chart(presence, np.zeros(5))


def test_classification() -> None:
    out = classify([[2.0, 0.0], [0.0, 1000.0]], [0, 0], temperature=2.0)
    assert out.predicted.tolist() == [0, 1]
    assert out.correct.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(out.loss, [np.log(1 + np.exp(-1)), 500.0])
