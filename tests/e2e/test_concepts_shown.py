"""Concepts that a person shows (TCAV): from folders of images and from arrays, on the page, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import rdx_here, whole_page
from PIL import Image
from sklearn.datasets import load_digits


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of threes and of zeros in sub-folders, and a folder of four images."""
    folder = tmp_path_factory.mktemp("shown")
    raw = load_digits()
    for name, digit, count in (("threes", 3, 24), ("zeros", 0, 24)):
        (folder / "concepts" / name).mkdir(parents=True)
        for number, row in enumerate(np.flatnonzero(raw.target == digit)[:count]):
            pixels = np.rint(raw.images[row] * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "concepts" / name / f"{number}.png")
    (folder / "few").mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(folder / "few" / f"{number}.png")
    return folder


def explain(*arguments: object, outputs: Path) -> Any:
    return rdx_here("explain", "--method", "tcav", *arguments, "--outputs", outputs, "--json")


MODEL = ("--model", "digits-cnn", "--layer", "conv2", "--sample", 300)


def test_shown_concepts_speak_for_their_class(shown: Path, tmp_path: Path) -> None:
    done = explain(*MODEL, "--concept-images", f"folder:{shown / 'concepts'}", "--steer", "1=1x", outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [entry["concept"]["name"] for entry in found["directions"]] == ["threes", "zeros"]
    assert found["scores"]["influence"]["null"] == "images"
    assert found["scores"]["stability"]["mean"] > found["scores"]["stability"]["chance"]
    for entry, digit in zip(found["directions"], "30", strict=True):
        assert entry["concept"]["accuracy"] > 0.9
        assert next(iter(entry["labels"])) == digit
        moved = {one["class"]: one for one in entry["influence"]}
        assert moved[digit]["effect"] > 0
        assert moved[digit]["significant"]
    raised = max(found["steering"]["steps"][0]["classes"], key=lambda one: one["change"])
    assert raised["class"] == "0"
    page = rdx_here("visualize", found["artifact"], "--outputs", tmp_path)
    text = whole_page(page.stdout.strip())
    assert "Direction 0: threes" in text
    assert "told apart" in text
    # stored directions keep what they are compared with
    again = explain(*MODEL, "--apply", found["artifact"], "--run", "again", outputs=tmp_path)
    assert json.loads(again.stdout)["scores"]["influence"]["null"] == "images"
    # one image less is another question
    (shown / "concepts" / "zeros" / "23.png").unlink()
    changed = explain(*MODEL, "--concept-images", f"folder:{shown / 'concepts'}", "--steer", "1=1x", outputs=tmp_path)
    assert changed.returncode == 1
    assert "was made with other parameters or inputs" in changed.stderr


def test_concepts_from_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "acts.npy", rng.standard_normal((80, 6)))
    np.save(tmp_path / "others.npy", rng.standard_normal((50, 6)))
    np.save(tmp_path / "marked.npy", rng.standard_normal((20, 6)) + 5 * np.eye(6)[2])
    base = ("--activations", tmp_path / "acts.npy", "--concept-images", tmp_path / "marked.npy")
    done = explain(*base, "--random-images", tmp_path / "others.npy", outputs=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["directions"]
    assert entry["concept"]["name"] == "marked"
    assert entry["concept"]["accuracy"] > 0.9 > entry["concept"]["accuracy_chance"]


def test_what_cannot_be_read_is_said_before_work(shown: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "acts.npy", np.zeros((30, 6)))
    np.save(tmp_path / "other.npy", np.ones((30, 5)))
    concepts = f"folder:{shown / 'concepts'}"
    array = ("--activations", tmp_path / "acts.npy")
    for arguments, words in (
        (MODEL, "needs images of concepts"),
        ((*MODEL, "--concept-images", f"images:{shown / 'few'}"), "4 images, expected at least 8"),
        ((*MODEL, "--concept-images", f"folder:{shown / 'nowhere'}"), "nowhere"),
        (
            (*MODEL, "--concept-images", concepts, "--random-images", f"images:{shown / 'few'}"),
            "random images: 4 images",
        ),
        ((*MODEL, "--concept-images", concepts, "--concept-images", concepts), "two concepts are called"),
        ((*MODEL, "--concept-images", concepts, "--steer", "2=1"), "numbered 0 to 1"),
        ((*MODEL, "--concept-images", concepts, "--param", "random_share=2"), "random_share"),
        ((*array, "--concept-images", concepts), "images need a model"),
        ((*array, "--concept-images", tmp_path / "other.npy"), "has 5 channels"),
        (("--method", "pca", *MODEL, "--concept-images", concepts), "takes no images of concepts"),
    ):
        done = explain(*arguments, "--run", "bad", outputs=tmp_path / "out")
        said = " ".join(done.stderr.split())
        assert done.returncode in (1, 2), arguments
        assert words in said, (arguments, said)
        assert "unexpected" not in said
    assert not list((tmp_path / "out").rglob("bad/manifest.json"))


CLASS = ("explain", "--model", "digits-cnn", "--layer", "conv2", "--sample", 300, "--num-directions", 4)


@pytest.mark.parametrize("method", ["craft", "ice"])
def test_concepts_of_one_class(method: str, tmp_path: Path) -> None:
    done = rdx_here(*CLASS, "--method", method, "--target", "class:0", "--outputs", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parameters"]["crop"] == (None if method == "ice" else 0.4)
    total = [entry["importance"]["total"] for entry in found["directions"]]
    assert 0.8 < sum(total) < 1.3  # behind a linear end concepts add up
    assert found["scores"]["fidelity"]["output"] == 0
    # magnified pieces of a digit are no digits to this network, and the result says so
    lost = any("from these concepts alone the network predicts otherwise" in note for note in found["notes"])
    assert lost == (found["scores"]["fidelity"]["same"] < 0.5)
    assert lost == (method == "craft")
    assert found["scores"]["stability"]["mean"] > 0
    assert len(found["images"]) > 10
    page = rdx_here("visualize", found["artifact"], "--outputs", tmp_path)
    assert "importance" in Path(page.stdout.strip()).read_text("utf-8")


def test_classes_that_cannot_be_explained(tmp_path: Path) -> None:
    np.save(tmp_path / "acts.npy", np.random.default_rng(0).random((60, 8)))
    np.savetxt(tmp_path / "labels.txt", np.arange(60) % 2, fmt="%d")
    array = ("explain", "--activations", tmp_path / "acts.npy", "--labels", tmp_path / "labels.txt")
    for arguments, words in (
        ((*CLASS, "--method", "craft"), "explains one class"),
        ((*CLASS, "--method", "ice", "--target", "class:11"), "expected a label that occurs"),
        ((*CLASS, "--method", "craft", "--target", "class:0", "--param", "crop=2"), "crop"),
        ((*CLASS, "--method", "ice", "--target", "class:0", "--num-directions", 99), "expected fewer directions"),
        ((*array, "--method", "craft", "--target", "class:1"), "use --method ice"),
    ):
        done = rdx_here(*arguments, "--outputs", tmp_path / "out", "--run", "bad")
        said = " ".join(done.stderr.split())
        assert done.returncode in (1, 2), arguments
        assert words in said, (arguments, said)
    done = rdx_here(*array, "--method", "ice", "--target", "class:1", "--num-directions", 3, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "importance" not in json.loads(done.stdout)["directions"][0]
