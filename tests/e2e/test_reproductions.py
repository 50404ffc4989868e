"""The published experiments on their embedded twins: RDX comes first, and finds what was planted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import rdxcli as rdx

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BASELINES = ("kmeans", "pca", "nmf")
PLANTED = {"digits": {"3", "5"}, "digits-m49": {"4", "9"}}
"""Labels that the first model of a configuration was taught to mix."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "digits-m49", "digits-358"])
def test_rdx_separates_pairs_better_than_the_baselines(name: str, tmp_path: Path) -> None:
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text("utf-8"))
    a, b, k = (settings[key] for key in ("a", "b", "k"))
    chosen = {"classes": settings["classes"]} if "classes" in settings else {}
    sides = [rdx.representation(side, dataset="digits", sample=500, outputs=tmp_path, **chosen) for side in (a, b)]
    found = {
        method: rdx.compare(*sides, k=k, method=method, test=False, bootstraps=0, **more)
        # every cluster a concept, as published
        for method, more in [
            ("rdx", {"gamma": settings["gamma"], "twins": None}),
            *((other, {}) for other in BASELINES),
        ]
    }
    success = {method: answer.scores["bsr_mean"] for method, answer in found.items()}
    assert max(success, key=lambda method: success[method]) == "rdx", success
    if name in PLANTED:
        groups = [concept["labels"] for concept in found["rdx"].concepts if concept["closer_in"] == "a"]
        mixed = [labels for labels in groups if sum(labels.get(label, 0) for label in PLANTED[name]) > 0.8]
        assert len(mixed) >= 2, groups
