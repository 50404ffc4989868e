"""The planted difference of the golden digits, from fitting to verdict."""

from __future__ import annotations

import numpy as np
import pytest
from golden import rdx_checks

from rdxcli.methods.difference.rdx import RDX
from rdxcli.methods.difference.scores import score_grids
from rdxcli.methods.difference.significance import concept_stability, difference_test


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    given = rdx_checks.case("digits.npz", "inputs")
    rows = np.random.default_rng(0).permutation(len(given.inputs["labels"]))[:700]
    return {"merged": np.array(given.params["merged_digits"])} | {k: v[rows] for k, v in given.inputs.items()}


def test_three_seeds_find_the_merged_digits(digits):
    for seed in range(3):
        rdx = RDX(3, random_state=seed).fit(digits["R0"], digits["R1"])
        grids = {direction: result.samples[1:] for direction, result in rdx.directions_.items()}
        for concept in rdx.directions_["01"].concepts:
            shown = digits["labels"][concept.samples]
            assert np.isin(shown, digits["merged"]).sum() >= 8
            assert set(digits["merged"]) <= set(shown)
        scores = score_grids(digits["R0"], digits["R1"], grids["01"], grids["10"])
        assert scores.mean_bsr > 0.85


def test_verdict_and_trust(digits):
    pair = digits["R0"], digits["R1"]
    rdx = RDX(3, twins=0.15).fit(*pair)  # parts of the merged digits are one concept, as in `rdx compare`
    test = difference_test(*pair, estimator=rdx, replicates=39)
    assert test.verdict == "difference found"
    assert test.strength.value > test.strength.null.max()
    assert test.score.value > test.score.null.mean()
    trust = concept_stability(rdx, *pair, test=test, bootstraps=8)
    assert all(one["p_value"] <= 0.05 for one in trust["01"].values())
    assert np.mean([one["stability"] for one in trust["01"].values()]) > 0.5
    rng = np.random.default_rng(0)
    for R in pair:
        rotation = np.linalg.qr(rng.normal(size=(R.shape[1],) * 2))[0]
        copy = 3 * R @ rotation + 1
        copy += 0.05 * copy.std() * rng.normal(size=copy.shape)
        assert difference_test(R, copy, replicates=39).verdict == "no difference found"
