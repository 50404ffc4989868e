"""States of neurons: thresholds, pools, packing, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdxcli.methods.regions import configurations as module
from rdxcli.methods.regions.configurations import Configurations, binarise


def maps(n: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 4, 5)).astype(np.float32)


def test_strictly_above_the_threshold() -> None:
    z = np.array([-1.0, -0.0, 0.0, 1e-30, np.inf, -np.inf, np.nan])
    assert binarise(z).tolist() == [False, False, False, True, True, False, False]


def test_positions_follow_the_flat_index() -> None:
    z = maps()
    made = Configurations.from_activations(z)
    assert (made.n, made.m, made.shape) == (30, 60, (3, 4, 5))
    np.testing.assert_array_equal(made.bits(), (z > 0).reshape(30, -1))
    assert made.positions([0, 5, 59]).tolist() == [[0, 0, 0], [0, 1, 0], [2, 3, 4]]
    np.testing.assert_array_equal(made.counts, (z > 0).sum(axis=0).ravel())
    np.testing.assert_array_equal(made.states([7, 3]), (z > 0).reshape(30, -1)[:, [7, 3]])


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_pools(pool: str) -> None:
    z = maps()
    made = Configurations.from_activations(z, 0.4, pool=pool)
    pooled = z.mean(axis=(2, 3)) if pool == "avg" else z.max(axis=(2, 3))
    assert made.shape == (3,)
    np.testing.assert_array_equal(made.bits(), pooled > 0.4)


def test_thresholds_per_neuron_and_per_channel() -> None:
    z = maps()
    flat = z.reshape(30, -1)
    median = Configurations.from_activations(z, "median")
    np.testing.assert_array_equal(median.bits(), flat > np.median(flat, axis=0))
    upper = Configurations.from_activations(z, "quantile:0.9")
    np.testing.assert_array_equal(upper.counts, (flat > np.quantile(flat, 0.9, axis=0)).sum(axis=0))
    channel = Configurations.from_activations(z, [0.0, 1.0, -1.0])
    np.testing.assert_array_equal(channel.bits(), flat > np.repeat([0.0, 1.0, -1.0], 20))


@pytest.mark.parametrize("threshold", [0.0, "median", "quantile:0.25"])
@pytest.mark.parametrize("pool", ["none", "avg"])
def test_blocks_change_nothing(threshold: float | str, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Configurations.from_activations(maps(), threshold, pool=pool)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    parts = Configurations.from_activations(maps(), threshold, pool=pool)
    np.testing.assert_array_equal(parts.words, whole.words)
    np.testing.assert_array_equal(parts.thresholds, whole.thresholds)


def test_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", maps())
    mapped = np.load(tmp_path / "z.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        Configurations.from_activations(mapped).words, Configurations.from_activations(maps()).words
    )


def test_further_samples_use_the_same_thresholds() -> None:
    fitted = Configurations.from_activations(maps(), "median")
    new = maps(11, seed=1)
    np.testing.assert_array_equal(fitted.encode(new).bits(), new.reshape(11, -1) > fitted.thresholds)
    with pytest.raises(ValueError, match=r"Got samples of shape \(7,\), expected \(3, 4, 5\)"):
        fitted.encode(np.zeros((2, 7)))


@pytest.mark.parametrize("threshold", [0.5, "median"])
def test_arrays_and_back(threshold: float | str, tmp_path: Path) -> None:
    made = Configurations.from_activations(maps(), threshold, pool="avg")
    np.savez(tmp_path / "c.npz", **made.arrays())
    with np.load(tmp_path / "c.npz", allow_pickle=False) as stored:
        again = Configurations.from_arrays(stored)
    np.testing.assert_array_equal(again.words, made.words)
    np.testing.assert_array_equal(again.thresholds, made.thresholds)
    assert (again.shape, again.pool) == (made.shape, made.pool)
    with pytest.raises(ValueError, match="Got packed words of shape"):
        Configurations.from_arrays(made.arrays() | {"shape": np.array([99])})


def test_take() -> None:
    made = Configurations.from_activations(maps())
    np.testing.assert_array_equal(made.take([4, 2]).bits(), made.bits()[[4, 2]])


def test_pooled_rectified_features_are_remarked() -> None:
    """Trap 14 of the specification: an average of rectified values is nearly always above zero."""
    pooled = np.maximum(maps(), 0).mean(axis=(2, 3))
    assert any("median" in note for note in Configurations.from_activations(pooled).notes)
    assert not Configurations.from_activations(pooled, "median").notes
    assert any("cannot tell" in note for note in Configurations.from_activations(pooled).notes)


def test_constant() -> None:
    assert Configurations.from_activations(np.ones((5, 3))).constant
    assert not Configurations.from_activations(np.eye(3)).constant


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.array([[1.0], [np.nan]]), {}, "Got NaN in row 1"),
        (np.array([[1.0], [np.nan]]), {"threshold": "median"}, "Got NaN"),
        (np.ones(4), {}, r"Got activations of shape \(4,\)"),
        (np.ones((0, 4)), {}, r"Got activations of shape \(0, 4\)"),
        (np.ones((3, 4), dtype=complex), {}, "complex128"),
        (np.ones((3, 4)), {"pool": "avg"}, "expected maps"),
        (np.ones((3, 4)), {"pool": "sum"}, "pool='sum'"),
        (np.ones((3, 4)), {"threshold": np.zeros(3)}, "Got 3 thresholds for 4 neurons"),
        (np.ones((3, 4)), {"threshold": float("nan")}, "threshold of NaN"),
        (np.ones((3, 4)), {"threshold": "mean"}, "threshold='mean'"),
        (np.ones((3, 4)), {"threshold": "quantile:2"}, "threshold='quantile:2'"),
    ],
)
def test_refused(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Configurations.from_activations(values, **options)


@pytest.mark.parametrize("bits", [np.array([[0, 2]]), np.zeros((0, 3)), np.zeros(3)])
def test_bits_refused(bits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Got states"):
        Configurations.from_bits(bits)
