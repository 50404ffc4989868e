"""Regions of real networks on real images: stages of a CIFAR ResNet-20, MobileNetV2 on ImageNet pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import document_of, page_of, rdx_here

pytestmark = pytest.mark.shared


def run(*arguments: object) -> dict[str, Any]:
    return document_of(*arguments, "--device", "cpu")


def cifar(shared: Path) -> list[object]:
    return [
        *(
            "explain",
            "--method",
            "rdr",
            "--model",
            f"file:{shared}/data/weights/cifar10_resnet20.th?arch=cifar_resnet20",
        ),
        *("--dataset", f"folder:{shared}/data/cifar10_test"),
    ]


def mobilenet(shared: Path) -> list[object]:
    weights = shared / "data" / "weights" / "mobilenet_v2_imagenet1k.safetensors"
    return [
        *("explain", "--method", "rdr", "--model", f"file:{weights}?arch=torchvision:mobilenet_v2"),
        *("--dataset", f"images:{shared / 'data' / 'imagenet_sample' / 'index.csv'}"),
    ]


def test_stages_of_a_cifar_network(shared: Path, tmp_path: Path) -> None:
    base = [*cifar(shared), "--sample", 500, "--outputs", tmp_path]
    horses = run(*base, "--layer", "layer3", "--target", "class:horse", "--param", "use=subclasses")
    groups = [region["subclass"] for region in horses["regions"] if len(region["merged_targets"]) > 1]
    assert len(groups) >= 2
    # nobody told it what a horse is; one in ten images is one
    assert np.mean([group["purity"] for group in groups]) > 0.6
    stages = run(
        *base, "--layer", "layer3", "--target", "3,90,160,260,340,430",
        *("--param", "against=layer1,layer2", "--run", "stages"),
    )  # fmt: skip
    pairs = {(pair["a"], pair["b"]): pair for pair in stages["comparison"]["pairs"]}
    assert set(pairs) == {("layer3", "layer1"), ("layer3", "layer2"), ("layer1", "layer2")}
    purity = {
        name: np.mean(
            [
                one["purity"]
                for side in stages["comparison"]["sides"]
                for one in side["regions"]
                if one["source"] == name
            ]
        )
        for name in ("layer1", "layer2", "layer3")
    }
    assert purity["layer3"] > purity["layer1"]  # classes form late
    text = page_of(stages, tmp_path)
    assert text.count("<figure") >= 6 * 4
    assert 'class="unitmap"' in text


def test_errors_of_a_cifar_network_and_what_its_units_do(shared: Path, tmp_path: Path) -> None:
    base = [*cifar(shared), "--layer", "layer3", "--outputs", tmp_path]
    causes = run(*base, "--target", "misclassified:cat", "--param", "use=causes")
    assert len(causes["regions"]) >= 10
    for region in causes["regions"]:
        assert region["cause"]["label"] == "cat" != region["cause"]["prediction"]
    # a cat taken for something sits among more of that than chance has (a tenth)
    lifts = [region["cause"]["lift"] for region in causes["regions"] if region["cause"]["lift"] is not None]
    assert np.median(lifts) > 1.5
    ablated = run(*base, "--target", "ship/0003.jpg,ship/0041.jpg", "--param", "ablate=flip", "--run", "ablated")
    effects = [region["scores"]["ablation"] for region in ablated["regions"] if "ablation" in region["scores"]]
    assert effects
    assert all(0 < effect["p_value"] <= 1 for effect in effects)


def test_mobilenet_groups_birds(shared: Path, tmp_path: Path) -> None:
    with open(shared / "data" / "imagenet_sample" / "index.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    group = {row["file"]: row["group"] for row in rows}
    found = run(
        *mobilenet(shared), "--layer", "features.17", "--sample", 160, "--target", "all", "--outputs", tmp_path,
        *("--param", "merge_overlap=1.0"),
    )  # fmt: skip
    shares = [
        np.mean([group[sample] == "bird" for sample in region["sample_ids"][1:8]])
        for region in found["regions"]
        if group[region["target_id"]] == "bird"
    ]
    birds = sum(group[sample] == "bird" for region in found["regions"] for sample in region["sample_ids"][:1])
    assert np.mean(shares) > birds / len(found["regions"]) + 0.15
    stored = run(
        *mobilenet(shared), "--apply", found["artifact"], "--layer", "features.17", "--limit", 40, "--run", "applied",
        *("--outputs", tmp_path),
    )  # fmt: skip
    assert len(stored["regions"]) == len(found["regions"])
    wrong = rdx_here(*mobilenet(shared), "--apply", found["artifact"], "--limit", 8, "--layer", "features.16")
    assert "is about layer `features.17`" in " ".join(wrong.stderr.split())
