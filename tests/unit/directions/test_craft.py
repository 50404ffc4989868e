"""Non-negative concepts of a class: planted parts, exact Sobol indices, fidelity, crops, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from rdxcli.methods.directions import craft
from rdxcli.methods.directions.alignment import PooledLinearHead
from rdxcli.methods.directions.craft import CRAFT, _coefficients, _total
from rdxcli.methods.directions.health import matched_cosines
from rdxcli.representations.crops import _starts


@pytest.fixture(scope="module")
def parts() -> tuple[np.ndarray, np.ndarray, PooledLinearHead]:
    """Features (80, 12, 2, 2) of three sparse parts; class 1 reads the first and, half as much, the second."""
    rng = np.random.default_rng(0)
    W = np.zeros((3, 12))
    for i in range(3):
        W[i, 4 * i : 4 * i + 4] = rng.uniform(0.5, 1, 4)
    U = rng.gamma(1.0, 1.0, (80, 2, 2, 3)) * (rng.random((80, 2, 2, 3)) < 0.5)
    X = np.ascontiguousarray((U @ W).transpose(0, 3, 1, 2).astype(np.float32))
    weight = np.zeros((12, 2))
    weight[:, 1] = np.linalg.pinv(W) @ [2.0, 1.0, 0.0]
    return X, W, PooledLinearHead(weight, np.array([0.1, 0.0]))


def test_planted_parts_and_their_importance(parts: tuple[np.ndarray, np.ndarray, PooledLinearHead]) -> None:
    X, W, head = parts
    found = CRAFT(3, designs=256, images=40).fit(X, head)
    unit = W / np.linalg.norm(W, axis=1, keepdims=True)
    assert matched_cosines(unit, found.encoding_).min() > 0.99
    order = np.abs(found.encoding_ @ unit.T).argmax(1)
    importance = found.importance_[np.argsort(order)]
    # logit = 2 m_0 u_0 + m_1 u_1: shares of the variance, mean over images
    u = np.maximum(X.transpose(0, 2, 3, 1) @ np.linalg.pinv(W), 0).mean((1, 2))
    chosen = np.unique(np.linspace(0, 79, 40).astype(int))
    strength = (u[chosen] * [2, 1, 0]) ** 2
    shares = strength / np.maximum(strength.sum(1, keepdims=True), 1e-12)
    np.testing.assert_allclose(importance, shares.mean(0), atol=0.05)
    assert found.output_ == 1
    assert found.fidelity_["same"] == 1.0 > found.fidelity_["same_chance"]
    assert found.fidelity_["explained"] > 0.98
    assert found.fidelity_["logit"] > 0.99
    assert (np.diff(found.importance_) <= 0).all()
    assert not any("mean features" in note for note in found.notes_)
    entries, scores = found.about()
    assert entries[0]["importance"]["equal"] == pytest.approx(1 / 3)
    assert scores["stability"]["mean"] > scores["stability"]["chance"]


def test_concepts_that_keep_less_than_the_mean_does_say_so(
    parts: tuple[np.ndarray, np.ndarray, PooledLinearHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concepts that are not found in a quarter of the images: the mean of all keeps more predictions."""
    X, _, head = parts

    def forgetful(A: np.ndarray, W: np.ndarray) -> np.ndarray:
        found = _coefficients(A, W)
        found[: len(found) // 4] = 0
        return found

    monkeypatch.setattr(craft, "_coefficients", forgetful)
    found = CRAFT(3, designs=16, images=40).fit(X, PooledLinearHead(head.weight, np.array([0.3, 0.0])))
    assert 0.5 <= found.fidelity_["same"] < found.fidelity_["same_chance"]
    assert any("mean features keep more predictions" in note for note in found.notes_)


def test_total_indices_of_a_product() -> None:
    """f = x0 x1 + 0 x2: S_T of x0 is 1 - V(x1 / 2) / V(f), by hand 4 / 7."""
    craft = CRAFT(3, designs=4096)
    m = craft._designs().double().numpy()
    found = _total(m[:, 0] * m[:, 1], 4096, 3)
    np.testing.assert_allclose(found, [4 / 7, 4 / 7, 0], atol=0.02)


def test_coefficients_are_those_of_non_negative_least_squares() -> None:
    from scipy.optimize import nnls

    rng = np.random.default_rng(1)
    W, A = rng.random((4, 9)), rng.random((20, 9)) - 0.2
    np.testing.assert_allclose(_coefficients(A, W, 2000), [nnls(W.T, row)[0] for row in A], atol=1e-4)


def test_crops_cover_the_image_evenly() -> None:
    assert _starts(224, 90) == [0, 67, 134]
    assert _starts(8, 8) == [0]
    for size, side in ((32, 13), (33, 7), (9, 2)):
        starts = _starts(size, side)
        assert starts[0] == 0
        assert starts[-1] == size - side
        assert max(np.diff(starts)) <= side


def test_what_cannot_be_used(parts: tuple[np.ndarray, np.ndarray, PooledLinearHead]) -> None:
    X, _, head = parts
    with pytest.raises(ValueError, match="expected fewer directions or more images"):
        CRAFT(13).fit(X, head)
    with pytest.raises(ValueError, match="crops of shape"):
        CRAFT(3).fit(X, head, crops=np.zeros((5, 4)))
    without = CRAFT(3).fit(X - 1.0, None, rows=np.arange(40))
    assert any("negative somewhere" in note for note in without.notes_)
    assert without.output_ is None
    assert without.about()[0] == [{}, {}, {}]
    assert np.isfinite(without.encoding_).all()
