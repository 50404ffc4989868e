"""Directions of real networks: named by street-scene masks, steered, on CIFAR images and ImageNet weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import document_of, page_of

pytestmark = pytest.mark.shared
CAMVID = "sky building pole road pavement tree sign fence car pedestrian cyclist unlabelled"


def run(*arguments: object) -> dict[str, Any]:
    return document_of(*arguments, "--device", "cpu")


@pytest.mark.slow
def test_mobilenet_directions_named_by_masks(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    (tmp_path / "names.txt").write_text(CAMVID.replace(" ", "\n") + "\n")
    weights = data / "weights" / "mobilenet_v2_imagenet1k.safetensors"
    found = run(
        *("explain", "--method", "uibe", "--model", f"file:{weights}?arch=torchvision:mobilenet_v2"),
        *("--layer", "features.13", "--dataset", f"images:{data / 'camvid40' / 'images'}", "--limit", 20),
        *("--num-directions", 8, "--param", "n_starts=1", "--param", "steps=80", "--param", "stability=false"),
        *("--param", "influence_draws=23", "--outputs", tmp_path),  # influence is not what is looked at
        *("--file", f"masks={data / 'camvid40' / 'masks'}", "--concept-names", tmp_path / "names.txt"),
    )
    labels = [entry["mask_label"] for entry in found["directions"]]
    assert {label["concept"] for label in labels} <= set(CAMVID.split())
    assert max(label["iou"] for label in labels) > 0.2  # a direction that is road or sky, found without masks
    assert found["scores"]["masks"]["S1"] == pytest.approx(sum(label["iou"] for label in labels))
    assert found["scores"]["masks"]["published_interpretable"] >= 4
    # with 20 frames chance reaches far; what is called interpretable is above it
    assert found["scores"]["masks"]["interpretable"] <= found["scores"]["masks"]["published_interpretable"]
    assert all(
        label["p_value"] <= 0.05 and label["iou"] > label["random_iou"] for label in labels if label["interpretable"]
    )
    # 224 of 256 pixels are seen: a margin of the picture has no map
    grids = np.array(found["directions"][0]["concept_maps"])
    assert grids.shape[1] == 16
    assert not grids[:, [0, -1]].any()
    assert not grids[:, :, [0, -1]].any()
    assert grids.any()
    text = page_of(found, tmp_path)
    assert "Agreement with the concept masks" in text
    assert 'class="heat"' in text


@pytest.mark.slow
def test_cifar_directions_move_the_classes_they_are_about(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    base = [
        *(
            "explain",
            "--method",
            "uibe",
            "--model",
            f"file:{data / 'weights' / 'cifar10_resnet20.th'}?arch=cifar_resnet20",
        ),
        *("--layer", "layer3", "--dataset", f"folder:{data / 'cifar10_test'}", "--sample", 120, "--outputs", tmp_path),
    ]
    once = ("--param", "n_starts=1", "--param", "steps=80", "--param", "stability=false")
    found = run(*base, "--num-directions", 8, *once)
    # the direction with the largest effect, and the class it speaks for
    best = max(found["directions"], key=lambda entry: entry["influence"][0]["effect"])
    moved = best["influence"][0]
    assert moved["p_value"] < 0.05  # alone; eight directions learned in 80 steps are too few to tell from 120 images
    steered = run(
        *base, "--apply", found["artifact"], "--steer", f"{best['index']}=-1x,1x", "--target", "class:cat",
        *("--run", "steered"),
    )  # fmt: skip
    less, more = steered["steering"]["steps"]
    change = [{one["class"]: one["change"] for one in step["classes"]}[moved["class"]] for step in (less, more)]
    assert change[0] < 0 < change[1]
    assert more["to"].get(moved["class"], 0) > 0.3 * steered["steering"]["images"]
    assert all(image["label"] == "cat" for image in steered["images"])
    assert all(one["contribution"] is not None for image in steered["images"] for one in image["concepts"])
