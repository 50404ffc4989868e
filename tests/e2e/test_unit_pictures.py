"""Activation masks on the pictures of units: the right place, from models, from maps, and none where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import rdx_here, whole_page
from PIL import Image
from safetensors.torch import save_file

from rdxcli.models import load
from rdxcli.models.preprocessing import Preprocessing, seen_part
from rdxcli.representations.unit_pictures import over_square, shown_pictures


def test_masks_of_a_model_are_its_maps(tmp_path: Path) -> None:
    done = rdx_here(
        *("explain", "--method", "le-label", "--model", "digits-cnn", "--layer", "conv1", "--units", "3,5"),
        *("--limit", "200", "--param", "min_top=0.1", "--outputs", tmp_path, "--json"),
    )
    assert done.returncode == 0, done.stderr
    from rdxcli.datasets.registry import open_dataset

    model, dataset = load("digits-cnn", "cpu"), open_dataset("digits")
    for entry in json.loads(done.stdout)["units"]:
        pictures = shown_pictures(entry)
        assert len(pictures) == 8 + 2 + 2
        for picture in pictures:
            place = int(dataset.locate([picture["sample_id"]])[0])
            with model.tap(["conv1"], "none") as tap:
                own = next(iter(tap(model.transform(dataset.image(place))[None]).values()))[0, entry["unit"]].numpy()
            assert picture["activation"] == pytest.approx(own.mean(), abs=1e-4)
            low = max(own.min(), 0.0)
            wanted = np.clip((own - low) / (own.max() - low), 0, 1)
            np.testing.assert_allclose(picture["map"], wanted, atol=6e-4)
    page = Path(rdx_here("visualize", json.loads(done.stdout)["artifact"], "--outputs", tmp_path).stdout.strip())
    text = whole_page(page)
    assert text.count('class="heat"') == 24
    assert "ranks 5 to 50" in text


def test_masks_from_maps_and_none_from_vectors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    P = (rng.random((60, 2)) < 0.5).astype(float)
    maps = np.zeros((60, 2, 3, 3), np.float32)
    maps[:, 0, 0, 2] = 9 * P[:, 0] + 0.1 * rng.random(60)  # unit 0 sits in the upper right corner
    maps[:, 1] = P[:, 1, None, None] + 0.01 * rng.random((60, 1, 1))  # unit 1 everywhere alike
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "vectors.npy", maps.mean(axis=(2, 3)))
    np.save(tmp_path / "c.npy", P)
    (tmp_path / "n.txt").write_text("a\nb\n")
    masks = {}
    for name in ("maps", "vectors"):
        done = rdx_here(
            *("explain", "--method", "le-label", "--activations", f"{name}.npy", "--concepts", "c.npy", "--json"),
            *("--concept-names", "n.txt", "--outputs", tmp_path, "-v"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(f"{name}.npy: 60 rows") == 1  # read once
        units = json.loads(done.stdout)["units"]
        assert [unit["concepts"][0]["concept"] for unit in units] == ["a", "b"]
        masks[name] = [[picture.get("map") for picture in shown_pictures(unit)] for unit in units]
    assert masks["maps"][0][0] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert masks["vectors"] == [[None] * len(part) for part in masks["vectors"]]
    assert set(map(str, masks["maps"][1])) == {"None"}


def test_the_class_token_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        (tmp_path / "images" / str(i % 2)).mkdir(exist_ok=True)
        picture.save(tmp_path / "images" / str(i % 2) / f"{i:02}.png")
    options = {"img_size": 32, "patch_size": 8, "depth": 1, "num_classes": 2}
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", **options)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    name = "file:vit.safetensors?arch=timm:vit_tiny_patch16_224&" + "&".join(f"{k}={v}" for k, v in options.items())
    masks = {}
    for pool in ("first", "avg"):
        done = rdx_here(
            *("explain", "--method", "le-label", "--layer", "blocks.0", "--pool", pool, "--units", "0", "--json"),
            *("--model", name, "--dataset", "folder:images", "--param", "min_top=0.1", "--outputs", tmp_path / pool),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        masks[pool] = [picture.get("map") for picture in json.loads(done.stdout)["units"][0]["strongest"]]
    assert masks["first"] == [None] * 8
    assert np.shape(masks["avg"]) == (8, 4, 4)


def test_a_mask_lies_over_what_the_network_saw() -> None:
    one = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(over_square(one), one)
    # a picture twice as wide as high, all of it seen: the page shows the middle
    np.testing.assert_array_equal(over_square(one, None, (100, 200)), one[:, 1:3])
    crop = Preprocessing(input_size=(224, 224), resize="shortest", resize_to=(448, 448))
    assert seen_part(crop, 600, 300) == pytest.approx((0.375, 0.25, 0.625, 0.75))
    seen = over_square(one, seen_part(crop, 300, 300), (300, 300))
    assert seen.shape == (8, 8)
    np.testing.assert_array_equal(seen[2:6, 2:6], one)
    assert np.isnan(seen[:2]).all()
    assert np.isnan(seen[:, 6:]).all()
    squash = Preprocessing(input_size=(224, 224), resize="squash", resize_to=(224, 224))
    assert seen_part(squash, 600, 300) == (0, 0, 1, 1)
    padded = Preprocessing(input_size=(200, 200), resize="longest", resize_to=(200, 200))
    assert seen_part(padded, 100, 50) == pytest.approx((0, -0.5, 1, 1.5))
    fine = np.zeros((28, 28))
    fine[5, 5] = 1.0
    assert over_square(fine).max() == 0.25
    assert over_square(fine, peak=True).max() == 1.0
    assert over_square(fine).shape == (14, 14)
