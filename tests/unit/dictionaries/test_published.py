"""Dictionaries as other libraries write them: every spelling reconstructs what its own arithmetic does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rdxcli.errors import RdxError
from rdxcli.methods.dictionaries.published import one_form
from rdxcli.methods.dictionaries.sae import SparseAutoencoder
from rdxcli.models.dictionaries import read_dictionary

D, COUNT = 16, 20
rng = np.random.default_rng(0)
ROWS = rng.standard_normal((COUNT, D))
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
ENC = ROWS + 0.02 * rng.standard_normal((COUNT, D))
BIAS, OFFSET = rng.uniform(-0.2, 0, COUNT), rng.standard_normal(D)
X = (rng.random((300, COUNT)) < 0.1) @ (2 * ROWS) + OFFSET


def expected(x: np.ndarray, threshold: float | np.ndarray = 0.0, centred: bool = True) -> np.ndarray:
    pre = (x - OFFSET * centred) @ ENC.T + BIAS
    return np.where(pre > threshold, pre, 0)


def codes(found: SparseAutoencoder, x: np.ndarray) -> np.ndarray:
    return found.activations(x) / np.linalg.norm(found.decoder_, axis=1)


JUMP = rng.uniform(0.1, 0.5, COUNT)
VAR, MEAN, GAIN, SHIFT = (rng.uniform(0.5, 2, COUNT) for _ in range(4))
WRITTEN: dict[str, tuple[dict[str, Any], dict[str, Any], float | np.ndarray, bool]] = {
    "saelens": ({"W_enc": ENC.T, "W_dec": ROWS, "b_enc": BIAS, "b_dec": OFFSET}, {}, 0.0, True),
    "saelens jumprelu": (
        {"W_enc": ENC.T, "W_dec": ROWS, "b_enc": BIAS, "b_dec": OFFSET, "threshold": JUMP},
        {"apply_b_dec_to_input": False, "architecture": "jumprelu"},
        JUMP,
        False,
    ),
    "sparsify": ({"encoder.weight": ENC, "encoder.bias": BIAS, "W_dec": ROWS, "b_dec": OFFSET}, {}, 0.0, True),
    "dictionary_learning": (
        {"encoder.weight": ENC, "encoder.bias": BIAS, "decoder.weight": ROWS.T, "bias": OFFSET},
        {},
        0.0,
        True,
    ),
    "dictionary_learning, later": (
        {"encoder.weight": ENC, "encoder.bias": BIAS, "decoder.weight": ROWS.T, "decoder.bias": OFFSET},
        {},
        0.0,
        False,
    ),
    "batchtopk": (
        {
            **{"encoder.weight": ENC, "encoder.bias": BIAS, "decoder.weight": ROWS.T, "b_dec": OFFSET},
            **{"threshold": np.array(0.3), "k": np.array(2)},
        },
        {"trainer": {"dict_class": "BatchTopKSAE", "k": 2}},
        0.3,
        True,
    ),
    "dictionary_learning jumprelu": (
        {"W_enc": ENC.T, "W_dec": ROWS, "b_enc": BIAS, "b_dec": OFFSET, "threshold": JUMP},
        {"trainer": {"dict_class": "JumpReluAutoEncoder"}},
        JUMP,
        False,
    ),
    "openai": (
        {"encoder.weight": ENC, "latent_bias": BIAS, "decoder.weight": ROWS.T, "pre_bias": OFFSET},
        {},
        0.0,
        True,
    ),
    "two offsets": (
        {"W_enc": ENC.T, "W_dec": ROWS, "b_enc": BIAS, "b_pre": OFFSET, "b_dec": OFFSET + 1},
        {},
        0.0,
        True,
    ),
    "overcomplete": (
        {
            "encoder.final_block.0.weight": ENC * (np.sqrt(VAR + 1e-5) / GAIN)[:, None],
            "encoder.final_block.0.bias": (BIAS - ENC @ OFFSET - SHIFT) * np.sqrt(VAR + 1e-5) / GAIN + MEAN,
            "encoder.final_block.1.weight": GAIN,
            "encoder.final_block.1.bias": SHIFT,
            "encoder.final_block.1.running_mean": MEAN,
            "encoder.final_block.1.running_var": VAR,
            "dictionary._weights": 3 * ROWS,
        },
        {},
        0.0,
        True,
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_spelling_fires_as_its_library_does(name: str, tmp_path: Path) -> None:
    arrays, config, threshold, centred = WRITTEN[name]
    path = tmp_path / "sae_weights.safetensors"
    save_file(
        {key: torch.tensor(np.ascontiguousarray(value), dtype=torch.float32) for key, value in arrays.items()}, path
    )
    (tmp_path / ("config.json" if "trainer" in config else "cfg.json")).write_text(json.dumps(config))
    found = SparseAutoencoder.published(*reversed_arguments(read_dictionary(str(path))))
    np.testing.assert_allclose(codes(found, X), expected(X, threshold, centred), atol=1e-5)
    np.testing.assert_allclose(found.decoder_, ROWS, atol=1e-6)


def reversed_arguments(read: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Any, ...]:
    return read[0], X, None, read[1]


def test_pt_files_and_half_precision(tmp_path: Path) -> None:
    arrays = WRITTEN["batchtopk"][0]
    state = {key: torch.from_numpy(np.array(value)).to(torch.bfloat16) for key, value in arrays.items()}
    torch.save(state, tmp_path / "ae.pt")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "half.safetensors")
    for name in ("ae.pt", "half.safetensors"):
        read, _ = read_dictionary(str(tmp_path / name))
        np.testing.assert_allclose(one_form(read).W_dec, ROWS, atol=0.01)


def test_k_of_the_file_and_a_threshold_that_was_never_set() -> None:
    arrays = {**WRITTEN["batchtopk"][0], "threshold": np.array(-1.0)}
    found = SparseAutoencoder.published(arrays, X)
    assert found.quality_["l0"] == pytest.approx(2, abs=0.05)
    assert SparseAutoencoder.published(arrays, X, k=1).quality_["l0"] == pytest.approx(1, abs=0.05)


def test_where_nothing_says_the_activations_decide() -> None:
    """Without cfg.json: centred by b_dec, or not, by what explains more."""
    arrays = {"W_enc": ROWS.T, "W_dec": ROWS, "b_dec": OFFSET, "threshold": np.full(COUNT, 0.5)}
    centred = SparseAutoencoder.published({**arrays, "b_enc": np.zeros(COUNT)}, X)
    other = SparseAutoencoder.published({**arrays, "b_enc": -ROWS @ OFFSET}, X)
    np.testing.assert_allclose(codes(centred, X), codes(other, X), atol=1e-5)
    assert not any("b_dec" in note for note in centred.notes_)
    assert "b_dec" in other.notes_[0]


def test_scaled_inputs() -> None:
    arrays = {**WRITTEN["saelens"][0], "scale": np.array([4.0])}
    scaled = SparseAutoencoder.published(arrays, X / 4)
    np.testing.assert_allclose(codes(scaled, X / 4), expected(X), atol=1e-5)
    np.testing.assert_allclose(scaled.decoder_, ROWS / 4, atol=1e-6)
    wrong = SparseAutoencoder.published(WRITTEN["saelens"][0], X * 40)
    assert wrong.quality_["explained_variance"] < 1


@pytest.mark.parametrize(
    ("changed", "config", "message"),
    [
        ({"r_mag": np.ones(COUNT)}, {}, "gated"),
        ({}, {"normalize_activations": "layer_norm"}, "expected activations as they are"),
        ({"W_dec": np.ones((3, COUNT, D))}, {}, r"expected \(D, I\)"),
        ({"threshold": np.ones(3)}, {}, "expected one number"),
        ({"b_enc": np.full(COUNT, np.nan)}, {}, "NaN or infinite"),
        ({"scale": np.array(0.0)}, {}, "positive number"),
    ],
)
def test_what_cannot_be_read(changed: dict[str, Any], config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_form({**WRITTEN["saelens"][0], **changed}, config)


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    save_file({"W_enc": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    for wrong in ("[1]", '{"k": "many"}', "{"):
        (tmp_path / "cfg.json").write_text(wrong)
        with pytest.raises(RdxError, match=r"cfg\.json"):
            read_dictionary(str(tmp_path / "a.safetensors"))
    with pytest.raises(RdxError, match="no such file"):
        read_dictionary(str(tmp_path / "none.safetensors"))
