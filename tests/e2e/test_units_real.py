"""Units of real networks: network dissection on street scenes, linear explanations and ablation of real classifiers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here, whole_page
from PIL import Image

CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of two halves; unit 0 is active in the left one, unit 1 nowhere, unit 2 in a corner of the right."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    maps = np.zeros((10, 3, 4, 4), np.float32)
    for i in range(10):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(root / "images" / f"s{i}.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[:, 8:] = 1
        mask[:, 14:] = 255
        Image.fromarray(mask).save(root / "masks" / f"s{i}.png")
        maps[i, 0, :, :2] = 1 + rng.random((4, 2))
        maps[i, 2, :2, 2:] = 1 + rng.random((2, 2))
    np.save(root / "maps.npy", maps)
    (root / "ids.txt").write_text("".join(f"s{i}.png\n" for i in range(10)))
    (root / "names.txt").write_text("left\nright\n")
    return root


def test_network_dissection_of_maps(scenes: Path, tmp_path: Path) -> None:
    base = [
        *("explain", "--method", "network-dissection", "--activations", "maps.npy", "--sample-ids", "ids.txt"),
        *("--file", "masks=masks", "--param", "quantile=0.4", "--outputs", tmp_path, "--json"),
    ]
    arguments = [*base, "--concept-names", "names.txt", "--dataset", "images:images"]
    done = rdx_here(*arguments, cwd=scenes)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    named = [unit["concepts"][0]["concept"] if unit["concepts"] else None for unit in document["units"]]
    assert named == ["left", None, "right"]
    assert document["units"][1]["status"] == "constant"
    assert document["units"][0]["interpretable"]
    with open(Path(document["artifact"]) / "explanations.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["description"] for row in rows] == ["left", "", "right"]
    page = whole_page(rdx_here("visualize", document["artifact"], "--outputs", tmp_path).stdout.strip())
    assert 'class="heat"' in page
    assert "<svg" in page
    unnamed = json.loads(rdx_here(*base, "--run", "unnamed", cwd=scenes).stdout)
    assert unnamed["units"][2]["concepts"][0]["concept"] == "label 1"
    assert any("no names" in note for note in unnamed["notes"])


def test_broden_folders(scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "broden"
    (root / "images" / "masks").mkdir(parents=True)
    (root / "label.csv").write_text(
        "number,name,category\n0,-,\n1,wall,object(5)\n300,pink-c,color(9)\n7,hall,scene(3)\n"
    )
    lines = ["image,split,ih,iw,sh,sw,color,object,part,material,scene,texture"]
    for i in range(10):
        mask = np.zeros((8, 8, 3), np.uint8)
        mask[:, :4, 0] = 1
        Image.fromarray(mask).save(root / "images" / "masks" / f"o{i}.png")
        mask[:] = 0
        mask[:4, 4:] = (300 % 256, 300 // 256, 0)
        Image.fromarray(mask).save(root / "images" / "masks" / f"c{i}.png")
        lines.append(f"s{i}.png,train,16,16,8,8,masks/c{i}.png,masks/o{i}.png,,,{'7' if i == 0 else ''},")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    done = rdx_here(
        *("explain", "--method", "network-dissection", "--activations", "maps.npy", "--sample-ids", "ids.txt"),
        *("--file", f"broden={root}", "--param", "quantile=0.2", "--outputs", tmp_path, "--json"),
        cwd=scenes,
    )
    assert done.returncode == 0, done.stderr
    units = json.loads(done.stdout)["units"]
    assert units[0]["concepts"][0]["concept"] == "wall"
    assert units[2]["concepts"][0]["concept"] == "pink-c"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sample-ids", "ids.txt"], "masks=FOLDER"),
        (["--file", "masks=masks"], "--sample-ids"),
        (["--sample-ids", "ids.txt", "--file", "masks=nowhere"], "nowhere"),
        (["--sample-ids", "other.txt", "--file", "masks=masks"], "`t0.png`"),
        (["--sample-ids", "ids.txt", "--file", "masks=images"], "palette"),
        (["--sample-ids", "ids.txt", "--file", "masks=masks", "--param", "ignore=x"], "ignore"),
        (["--sample-ids", "ids.txt", "--file", "broden=masks"], "index.csv"),
    ],
)
def test_bad_masks_are_one_clear_error(scenes: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (scenes / "other.txt").write_text("".join(f"t{i}.png\n" for i in range(10)))
    base = ["explain", "--method", "network-dissection", "--activations", "maps.npy", "--outputs", tmp_path]
    done = rdx_here(*base, *arguments, cwd=scenes)
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stderr.split())
    assert "unexpected" not in done.stderr


def test_vectors_have_no_maps(tmp_path: Path) -> None:
    np.save(tmp_path / "acts.npy", np.random.default_rng(0).normal(size=(10, 3)))
    done = rdx_here("explain", "--method", "network-dissection", "--activations", "acts.npy", cwd=tmp_path)
    assert done.returncode == 2
    assert "maps" in done.stderr


def test_ablation_of_the_embedded_model(tmp_path: Path) -> None:
    out = ["--outputs", tmp_path, "--limit", "300"]
    common = ["--method", "le-label", "--model", "digits-cnn", "--units", "0-2"]
    assert rdx_here("explain", *common, *out).returncode == 0
    for variant in ("optim", "norm"):
        done = rdx_here("simulate", *common, "--scoring", "ablation", "--variant", variant, "--json", *out)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["method"] == "ablation"
        assert document["ablation"]["judge"] == "the linear classifier behind the layer"
        assert document["ablation"]["temperature"] == 1.1
        scores = [unit["score"] for unit in document["methods"][0]["units"]]
        assert all(0 < score <= 1 for score in scores)
        assert all(unit["low"] < unit["score"] < unit["high"] for unit in document["methods"][0]["units"])
        share = document["importance"]["units"][0]["share"]
        assert share == sorted(share)
        assert 0 <= share[0] <= share[-1] <= 1
    page = whole_page(rdx_here("visualize", document["artifact"], "--outputs", tmp_path).stdout.strip())
    assert "Units by score" in page
    assert "most activating images" in page


def test_ablation_from_arrays(tmp_path: Path) -> None:
    """A unit that the head ignores has no effect; one that is explained exactly scores 1."""
    rng = np.random.default_rng(0)
    P = (rng.random((200, 2)) < 0.5).astype(float)
    A = np.stack([P[:, 0], P[:, 1] + 0.2 * rng.normal(size=200), rng.normal(size=200)], axis=1)
    weight = np.array([[2.0, 0.5, 0.0], [-2.0, -0.5, 0.0]])
    np.save(tmp_path / "acts.npy", A)
    np.save(tmp_path / "c.npy", P)
    np.savez(tmp_path / "head.npz", weight=weight, bias=np.zeros(2))
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "y.txt").write_text("".join(f"{int(value)}\n" for value in P[:, 0]))
    (tmp_path / "e.csv").write_text("unit,description\n0,a\n1,b\n2,b\n")
    done = rdx_here(
        *(
            "simulate",
            "--explanations",
            "e.csv",
            "--activations",
            "acts.npy",
            "--concepts",
            "c.npy",
            "--labels",
            "y.txt",
        ),
        *("--concept-names", "names.txt", "--scoring", "ablation", "--file", "head=head.npz", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    units = {unit["unit"]: unit["score"] for unit in json.loads(done.stdout)["methods"][0]["units"]}
    assert units[0] == pytest.approx(1.0, abs=1e-6)
    assert 0.5 < units[1] < 1
    assert units[2] is None


def test_ablation_of_an_early_layer_runs_only_what_follows(tmp_path: Path) -> None:
    out = ["--outputs", tmp_path, "--limit", "60"]
    common = ["--method", "le-label", "--model", "digits-cnn", "--layer", "conv1", "--units", "0-1"]
    assert rdx_here("explain", *common, *out, "--param", "min_top=0.1").returncode == 0
    arguments = ["simulate", *common, "--scoring", "ablation", "--param", "steps=5", "--json", *out]
    done = rdx_here(*arguments, "--param", "controls=true")
    assert done.returncode == 0, done.stderr
    assert "a pass of what follows conv1" in done.stderr
    about = json.loads(done.stdout)["ablation"]
    assert about["judge"] == "a forward hook in the network"
    assert about["controls"]["truth"]["mean"] == pytest.approx(1.0, abs=0.1)
    wrong = rdx_here(*arguments, "--param", "controls=2", "--run", "other")
    assert wrong.returncode == 2
    assert "expected true or false" in wrong.stderr


def model_name(shared: Path) -> str:
    weights = shared / "data" / "weights" / "mobilenet_v2_imagenet1k.safetensors"
    return f"file:{weights}?arch=torchvision:mobilenet_v2&preprocess=half&input_size=96"


@pytest.mark.shared
def test_network_dissection_of_street_scenes(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "camvid40"
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in CAMVID))
    name = model_name(shared) + "&crop_mode=squash"
    done = rdx_here(
        *("explain", "--method", "network-dissection", "--model", name, "--layer", "features.6", "--json"),
        *("--dataset", f"images:{data / 'images'}", "--file", f"masks={data / 'masks'}"),
        *("--concept-names", tmp_path / "names.txt", "--outputs", tmp_path, "--param", "quantile=0.02"),
    )
    assert done.returncode == 0, done.stderr
    units = json.loads(done.stdout)["units"]
    assert len(units) == 32
    named = {unit["concepts"][0]["concept"] for unit in units if unit["concepts"]}
    assert named <= set(CAMVID)
    assert len(named) >= 4
    best = max(unit["scores"]["iou"] or 0 for unit in units)
    assert best > 0.04


@pytest.mark.shared
def test_label_explanations_of_mobilenet(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    groups: dict[str, list[str]] = {}
    with open(data / "imagenet_sample" / "index.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            groups.setdefault(row["group"], []).append(row["name"])
    (tmp_path / "super.json").write_text(json.dumps(groups))
    common = [
        *("--model", model_name(shared), "--dataset", f"images:{data / 'imagenet_sample' / 'index.csv'}"),
        *("--units", "0-15", "--file", f"superclasses={tmp_path / 'super.json'}", "--outputs", tmp_path, "--json"),
    ]
    # one image per class: a class name alone cannot be learnt, groups of classes can
    done = rdx_here("explain", "--method", "le-label", *common, "--param", "min_top=0.2")
    assert done.returncode == 0, done.stderr
    units = json.loads(done.stdout)["units"]
    assert len(units) == 16
    assert any(c["concept"] == "bird" for unit in units for c in unit["concepts"])
    found = [unit["scores"]["val correlation"] for unit in units]
    assert float(np.mean(found)) > 0.1


@pytest.mark.shared
def test_label_explanations_and_ablation_of_a_cifar_network(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    weights = data / "weights" / "cifar10_resnet20.th"
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    common = [
        *("--model", f"file:{weights}?arch=cifar_resnet20", "--dataset", f"folder:{data / 'cifar10_test'}"),
        *("--outputs", tmp_path, "--json"),
    ]
    done = rdx_here("explain", "--method", "le-label", *common)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["units"]) == 64
    assert document["summary"]["test correlation"]["mean"] > 0.6
    assert {c["concept"] for unit in document["units"] for c in unit["concepts"]} == set(names)
    scored = rdx_here(
        *("simulate", "--method", "le-label", "--scoring", "ablation", "--variant", "norm", "--units", "0-15"),
        *("--file", f"classes={tmp_path / 'classes.txt'}", *common),
    )
    assert scored.returncode == 0, scored.stderr
    ablated = json.loads(scored.stdout)
    scores = [unit["score"] for unit in ablated["methods"][0]["units"]]
    assert len(scores) == 16
    assert all(score <= 1 for score in scores)
    assert max(scores) > 0.1
    about = ablated["ablation"]
    assert about["judge"] == "the linear classifier behind the layer"
    # the scale is right; labels score low because the wrongly classified images carry the effect
    assert about["controls"]["truth"]["mean"] > 0.7
    assert abs(about["controls"]["shuffled"]["mean"]) < 0.05
    assert 0.15 < about["wrong_images"] < 0.25
    shares = [unit["wrong_share"] for unit in ablated["methods"][0]["units"]]
    assert float(np.mean(shares)) > 0.7
    of_right = float(np.mean([unit["score_right"] for unit in ablated["methods"][0]["units"]]))
    assert of_right > float(np.mean(scores))
    assert any("of the images wrong" in note for note in ablated["notes"])
