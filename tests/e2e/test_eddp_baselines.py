"""EDDP beside the baselines through the command line, on made-up data with known directions, and bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import document_of
from safetensors.numpy import load_file

from rdxcli.methods.directions import synthetic

SIMPLE = ("pca", "nmf", "ica", "kmeans", "natural")


def explained(method: str, outputs: Path, *more: str) -> dict[str, Any]:
    return document_of(
        *("explain", "--method", method, "--dataset", "synthetic:normal_distractor", "--num-directions", "3"),
        *("--param", "stability=false", "--outputs", outputs, *more),
    )


@pytest.mark.slow
def test_eddp_recovers_known_directions_and_the_baselines_do_not(tmp_path: Path) -> None:
    ours = explained("eddp", tmp_path, "--param", "n_starts=4")["scores"]["recovery"]
    assert ours["enc"] > 0.94
    assert ours["corr"] > 0.98
    for method in SIMPLE:
        theirs = explained(method, tmp_path)["scores"]["recovery"]
        assert all(ours[score] > theirs[score] for score in ("enc", "dec", "dec_span", "corr", "iou")), method


def test_the_truth_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the truth replaced by another one the directions stay the same; only their score changes."""
    generate = synthetic.generate

    def untrue(spec: synthetic.SyntheticSpec) -> synthetic.SyntheticCase:
        case = generate(spec)
        rng = np.random.default_rng(0)
        S, B = (np.linalg.qr(rng.standard_normal(part.shape))[0] for part in (case.S, case.B))
        changed = {"S": S, "B": B, "W": S, "values": rng.permutation(case.values), "owner": 2 - case.owner}
        return dataclasses.replace(case, **changed)

    few = ("--param", "n_starts=2")
    true = explained("uibe", tmp_path / "true", *few)
    monkeypatch.setattr("rdxcli.services.explain.directions.generate", untrue)
    other = explained("uibe", tmp_path / "other", *few)
    a, b = (load_file(Path(one["artifact"]) / "directions.safetensors") for one in (true, other))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert true["scores"]["recovery"] != other["scores"]["recovery"]
