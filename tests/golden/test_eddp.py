"""EDDP against its golden vectors: every formula to 1e-6, and recovery of known directions on every case."""

from __future__ import annotations

import functools
import json
import operator
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rdxcli.methods.directions import losses
from rdxcli.methods.directions.alignment import (
    HeadOnShift,
    PooledLinearHead,
    constrained_shift,
    move,
    prediction_entropy,
    unconstrained_shift,
)
from rdxcli.methods.directions.base import Directions, closed_form_signals
from rdxcli.methods.directions.eddp import EDDP
from rdxcli.methods.directions.features import positions
from rdxcli.methods.directions.influence import sensitivity
from rdxcli.methods.directions.labelling import label_by_masks
from rdxcli.methods.directions.recovery import Recovery, recovery
from rdxcli.methods.directions.signals import pattern_cav

ROOT = Path(os.environ.get("RDX_GOLDEN", Path(__file__).parent / "data")) / "eddp"
MANIFEST = json.loads((ROOT / "manifest.json").read_text()) if (ROOT / "manifest.json").is_file() else {"cases": []}
CASES = {Path(case["file"]).stem: case for case in MANIFEST["cases"]}
COMPARE = {">=": operator.ge, "<=": operator.le}

# The constants that the manifest states in words.
GAMMA, TAU, RHO, SHARPNESS = 1.1, 1.0, 0.3, 4.0


def test_the_golden_set_is_there():
    assert CASES, f"no cases in {ROOT}"


# ---------------------------------------------------------------------------------------------------- formulas


@functools.cache
def fixture() -> tuple[dict, dict[str, np.ndarray]]:
    named = MANIFEST["formula_fixture"]
    with np.load(ROOT / named["arrays"], allow_pickle=False) as arrays:
        return json.loads((ROOT / named["expected"]).read_text()), {name: arrays[name] for name in arrays.files}


@functools.cache
def inputs() -> dict[str, torch.Tensor]:
    _, arrays = fixture()
    X = torch.as_tensor(arrays["X"]).double()
    W, b, M, S = (torch.as_tensor(arrays[name]) for name in ("W", "b", "M", "S"))
    x = positions(X).T.contiguous()
    return {"X": X, "x": x, "W": W.T, "b": b, "M": M, "S": S.T, "z": losses.scores(W.T, b, M, x)}


def power() -> torch.Tensor:
    return losses.PositionTerms.of(inputs()["z"]).mean_power(GAMMA)


def alignment(kind: str, kappa: float) -> tuple[float, float]:
    """Negative mean entropy (nats) after the move, and the largest residual left."""
    _, arrays = fixture()
    given = inputs()
    W = given["W"]
    shift = unconstrained_shift(W) if kind == "uur" else constrained_shift(W, given["S"])
    r = W @ given["x"] - given["b"][:, None]
    head = PooledLinearHead(arrays["head_W"], arrays["head_b"], dtype=torch.float64)
    on_shift = HeadOnShift(head, given["X"], torch.eye(W.shape[1], dtype=torch.float64))
    value = -prediction_entropy(on_shift.logits(shift[None], kappa * r[None])).mean()
    left = W @ move(given["x"], shift, r, 1.0) - given["b"][:, None]
    return float(value), float(left.abs().max())


@functools.cache
def labels():
    _, arrays = fixture()
    given = inputs()
    responses = (given["W"] @ given["x"] - given["b"][:, None]).T.numpy()
    N, _, H, W = arrays["X"].shape
    maps = responses.reshape(N, H, W, -1).transpose(0, 3, 1, 2)
    return label_by_masks(maps, arrays["concept"], arrays["split"] == 0)


def rcav() -> np.ndarray:
    _, arrays = fixture()
    head = PooledLinearHead(arrays["head_W"], arrays["head_b"])
    return sensitivity(head, arrays["X"], arrays["S"].T, arrays["y"].astype(int), alpha=5.0)[0]


def signals() -> np.ndarray:
    _, arrays = fixture()
    x = positions(torch.as_tensor(arrays["X"])).double().numpy()
    found = closed_form_signals(torch.as_tensor(arrays["X"]), arrays["W"].T, arrays["b"], x.mean(0))
    return found.T


def pattern_cavs() -> np.ndarray:
    """Column i belongs to concept i; NaN where there are fewer concepts than columns."""
    _, arrays = fixture()
    x = positions(torch.as_tensor(arrays["X"])).double().numpy()
    concepts = np.unique(arrays["concept"])
    found = np.full_like(arrays["expected_pattern_cav"], np.nan)
    found[:, concepts] = pattern_cav(x, arrays["concept"].reshape(-1)[:, None] == concepts).T
    return found


FORMULAS = {
    "sparsity": lambda: losses.sparsity(inputs()["z"]),
    "max_activation": lambda: losses.maximum_activation(inputs()["z"]),
    "inactive": lambda: losses.inactive(power(), TAU),
    "excess_active_per_detector": lambda: losses.excess_per_detector(power(), RHO),
    "excess_active": lambda: losses.excessively_active(power(), RHO, SHARPNESS),
    "sparsity_bound": lambda: losses.sparsity_bound(inputs()["z"], SHARPNESS),
    "max_margin": lambda: losses.maximum_margin(inputs()["M"]),
    "filter_signal_orthogonality": lambda: losses.filter_signal_orthogonality(inputs()["W"], inputs()["S"]),
    "uur_kappa1.0": lambda: alignment("uur", 1.0)[0],
    "uur_kappa0.7": lambda: alignment("uur", 0.7)[0],
    "uur_residual": lambda: alignment("uur", 1.0)[1],
    "cur_kappa1.0": lambda: alignment("cur", 1.0)[0],
    "cur_kappa0.7": lambda: alignment("cur", 0.7)[0],
    "cur_residual": lambda: alignment("cur", 1.0)[1],
    "iou_train": lambda: labels().iou_train,
    "iou_val": lambda: labels().iou,
    "labels": lambda: labels().label,
    "S1": lambda: labels().S1,
    "S2": lambda: labels().S2,
    "rcav_alpha5": rcav,
    "expected_signal_closed": signals,
    "expected_pattern_cav": pattern_cavs,
}


def expected_names() -> list[str]:
    if "formula_fixture" not in MANIFEST:
        return []
    values, arrays = fixture()
    return [*values, *(name for name in arrays if name.startswith("expected_"))]


@pytest.mark.parametrize("name", expected_names())
def test_formula(name: str):
    values, arrays = fixture()
    assert name in FORMULAS, f"no formula for `{name}`"
    expected = values[name] if name in values else arrays[name]
    found = np.asarray(FORMULAS[name]())
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- recovery


@pytest.fixture(scope="module")
def recovered(name: str) -> tuple[EDDP, Recovery]:
    """The fit with seed 0; where it misses the acceptance values, the one of three seeds with the best merit.

    The manifest allows three seeds that are chosen without the truth. As a fixture of the module it keeps the tests
    of one case together, so that workers do not fit the same case.
    """
    with np.load(ROOT / CASES[name]["file"], allow_pickle=False) as arrays:
        case = {key: arrays[key] for key in arrays.files}
    head = PooledLinearHead(case["head_W"], case["head_b"])
    is_test = case["split"] == 1
    truth = (case["S"], case["B"], case["W"])

    def fit(seed: int) -> tuple[EDDP, Recovery]:
        found = EDDP(case["S"].shape[1], random_state=seed).fit(case["X"][~is_test], head)
        return found, recovery(found, case["X"], case["alpha"], case["concept"], *truth, is_test)

    first = fit(0)
    if CASES[name]["stress"] or accepted(first[1]):
        return first
    return min((first, fit(1), fit(2)), key=lambda one: one[0].merit_)


def accepted(found: Recovery) -> bool:
    """Whether every acceptance value of the manifest is met."""
    scores = found.as_dict()
    return all(
        COMPARE[rule[:2]](scores[key], float(rule[2:]))
        for key, rule in MANIFEST["accept_non_stress"].items()
        if key in scores
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case["stress"]], scope="module")
class TestRecovery:
    def test_meets_the_acceptance_values(self, name: str, recovered: tuple[EDDP, Recovery]):
        scores = recovered[1].as_dict()
        wanted = {key: rule for key, rule in MANIFEST["accept_non_stress"].items() if key in scores}
        assert len(wanted) >= 5
        for key, rule in wanted.items():
            assert COMPARE[rule[:2]](scores[key], float(rule[2:])), f"{key}: {scores[key]:.4f}, expected {rule}"

    def test_beats_every_unsupervised_baseline(self, name: str, recovered: tuple[EDDP, Recovery]):
        scores = recovered[1].as_dict()
        for baseline, of in CASES[name]["baselines"].items():
            if baseline.startswith(("sup_", "oracle_")):
                continue
            for key in ("enc", "dec", "dec_span", "corr"):
                if key in of:
                    assert scores[key] > of[key], f"{baseline} {key}"

    def test_is_at_least_as_good_as_the_prototype(self, name: str, recovered: tuple[EDDP, Recovery]):
        """The table of SPEC section 12 gives means over seeds in two digits (three for ``corr``)."""
        runs = list(CASES[name].get("prototype", {}).values())
        if not runs:
            pytest.skip("the manifest has no figures of the prototype for this case")
        scores = recovered[1].as_dict()
        for key, digits in {"enc": 2, "dec": 2, "dec_span": 2, "corr": 3, "iou": 2, "rmse": 2}.items():
            table = round(float(np.mean([run[key] for run in runs])), digits)
            better = operator.le if key == "rmse" else operator.ge
            assert better(round(scores[key], digits), table), f"{key}: {scores[key]:.4f}, table {table}"

    def test_pairs_are_consistent(self, recovered: tuple[EDDP, Recovery]):
        found = recovered[0]
        np.testing.assert_allclose(np.linalg.norm(found.decoding_, axis=1), 1.0, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(found.encoding_, axis=1), 1.0, atol=1e-9)
        cosines = found.decoding_ @ found.encoding_.T
        assert (np.diag(cosines) > 0).all()
        assert np.abs(cosines - np.diag(np.diag(cosines))).max() < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["stress"]], scope="module")
def test_stress_cases_are_no_worse_than_the_prototype(name: str, recovered: tuple[EDDP, Recovery]):
    scores = recovered[1].as_dict()
    runs = list(CASES[name].get("prototype", {}).values())
    for key in ("enc", "dec_span", "corr", "iou") if runs else ():
        assert scores[key] >= max(run[key] for run in runs) - 0.02, key
    assert all(np.isfinite(value) for value in scores.values())


def test_true_filters_give_true_signals():
    """The closed form is sound: with the true filters it finds the true encoding directions (SPEC section 12)."""
    for name, case in CASES.items():
        with np.load(ROOT / case["file"], allow_pickle=False) as arrays:
            W, S, mu = arrays["W"].T, arrays["S"], arrays["mu"]
            # The concept that owns a position has the larger interval of signal values.
            threshold = W @ mu + case["spec"]["on"][0]
            found = closed_form_signals(torch.as_tensor(arrays["X"]), W, threshold, mu)
        known = Directions.of(found, W, threshold).encoding_
        # what the reference reaches with the true filters: less in few dimensions or with few positions
        reference = case["baselines"].get("oracle_filter_signal", {}).get("enc", 0.98)
        assert np.abs((known * (S / np.linalg.norm(S, axis=0)).T).sum(1)).mean() >= min(0.98, reference - 0.015), name
