"""Regions as a user gets them: every use, stored rules on other samples, what the page shows, bad input."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import document_of, page_of, rdx_here
from PIL import Image

from rdxcli.artifacts import find_artifacts

RDR = ("explain", "--method", "rdr")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def stored(outputs: Path) -> dict[str, Any]:
    """Regions of three digits among 900."""
    return document_of(*RDR, "--model", "digits-cnn", "--sample", 900, "--target", "3,40,500", "--outputs", outputs)


def test_stored_regions_on_all_digits(stored: dict[str, Any], outputs: Path) -> None:
    applied = document_of(*RDR, "--apply", stored["artifact"], "--outputs", outputs)
    assert applied["model"]["layer"] == stored["model"]["layer"]
    assert applied["samples"]["n"] == 1797
    folder, before = Path(applied["artifact"]), Path(stored["artifact"])
    with open(folder / "membership.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    # the same numbers from the activations themselves
    values = np.load(folder.parents[1] / "activations" / "none" / "activations.npy")
    bits = values.reshape(len(values), -1) > 0
    for number, (region, old) in enumerate(zip(applied["regions"], stored["regions"], strict=True)):
        expected = np.flatnonzero((bits[:, old["neurons"]] == np.array(old["states"], dtype=bool)).all(axis=1))
        assert sorted(region["members"]) == expected.tolist()
        assert region["member_distances"] == sorted(region["member_distances"])
        listed = [row["sample_id"] for row in rows if row["region"] == str(number)]
        assert len(listed) == len(region["members"])
        assert listed[0] == region["target_id"]  # the target is among all digits, at distance 0
        assert set(old["sample_ids"]) <= set(listed)  # so are the members it had
        assert region["stored"]["size"] == old["scores"]["size"]
    text = page_of(applied, outputs)
    assert "coverage before" in text
    assert "found in 900 images" in text
    assert 'class="target"' not in text  # no sample of this page is a target
    assert before != folder


def test_stored_regions_refuse_what_does_not_fit(stored: dict[str, Any], outputs: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.npy"
    np.save(narrow, np.random.default_rng(0).normal(size=(9, 7)))
    directions = document_of(
        *("explain", "--method", "pca", "--model", "digits-cnn", "--num-directions", 2, "--sample", 100),
        *("--outputs", outputs),
    )
    applied = document_of(*RDR, "--apply", stored["artifact"], "--sample", 50, "--run", "fifty", "--outputs", outputs)
    cases: list[tuple[list[object], str]] = [
        ([*RDR, "--apply", stored["artifact"], "--layer", "conv1"], "is about layer `conv2`"),
        ([*RDR, "--apply", stored["artifact"], "--pool", "avg"], "128 units"),
        ([*RDR, "--apply", stored["artifact"], "--activations", narrow], "another layer, model"),
        ([*RDR, "--apply", stored["artifact"], "--target", "3"], "--target is about finding"),
        ([*RDR, "--apply", stored["artifact"], "--param", "n_neurons=3"], "--param is about finding"),
        ([*RDR, "--apply", stored["artifact"], "--sample", 900], "would replace the regions"),
        ([*RDR, "--apply", applied["artifact"]], "itself the result"),
        ([*RDR, "--apply", "nothing/here"], "no artifact"),
        ([*RDR, "--apply", directions["artifact"]], "holds directions, expected regions"),
        (["explain", "--method", "pca", "--apply", stored["artifact"]], "holds regions, expected directions"),
        (["explain", "--method", "ica", "--apply", directions["artifact"]], "was made by `pca`"),
        (["explain", "--method", "representative", "--apply", stored["artifact"]], "keeps no rule"),
        (["explain", "--method", "le-label", "--model", "digits-cnn", "--apply", "x"], "nothing to apply"),
        ([*RDR, "--model", "digits-cnn", "--steer", "3=2"], "has no directions"),
    ]
    before = {artifact.path for artifact in find_artifacts(outputs)}
    for arguments, words in cases:
        done = rdx_here(*arguments, "--run", "bad" if "900" not in map(str, arguments) else "rdr", "--outputs", outputs)
        said = " ".join(done.stderr.split())
        assert done.returncode in (1, 2), arguments
        assert done.stdout == ""
        assert words in said, (arguments, said)
        assert "unexpected" not in said
    # activations may have been read on the way, nothing else was made
    assert {artifact.kind for artifact in find_artifacts(outputs) if artifact.path not in before} <= {"activations"}


def test_stored_regions_of_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    centre = rng.normal(size=(3, 60))
    group = np.repeat(np.arange(3), 30)
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", centre[group] + 0.4 * rng.normal(size=(90, 60)))
    np.save(tmp_path / "off.npy", -np.ones((5, 60)))
    (tmp_path / "labels.txt").write_text("".join(f"group {g}\n" for g in group))
    found = document_of(*RDR, "--activations", "one.npy", "--target", "5,65", "--outputs", "out", cwd=tmp_path)
    artifact = tmp_path / found["artifact"]
    rest = ["--labels", "labels.txt", "--outputs", "out", "--run", "applied"]
    applied = document_of(*RDR, "--apply", artifact, "--activations", "two.npy", *rest, cwd=tmp_path)
    assert [region["scores"]["label"] for region in applied["regions"]] == ["group 0", "group 2"]
    assert min(region["scores"]["purity"] for region in applied["regions"]) > 0.9
    nobody = document_of(
        *RDR, "--apply", artifact, "--activations", "off.npy", "--outputs", "out", "--run", "nobody", cwd=tmp_path
    )
    assert {region["status"] for region in nobody["regions"]} == {"empty"}
    text = page_of({"artifact": tmp_path / nobody["artifact"]}, tmp_path / "out")
    assert "no image has these states" in text
    missing = rdx_here(*RDR, "--apply", artifact, "--outputs", "out", cwd=tmp_path)
    assert "made from an array" in missing.stderr


def test_subclasses_are_checked_with_finer_labels(tmp_path: Path) -> None:
    from rdxcli.datasets.registry import open_dataset

    digits = open_dataset("digits")
    assert digits.labels is not None
    finer = [str(label) for label in digits.labels]
    coarse = ["low" if int(label) < 5 else "high" for label in finer]
    acts = document_of("extract", "--model", "digits-cnn", "--layer", "conv2", "--pool", "none", "--outputs", tmp_path)
    np.save(tmp_path / "maps.npy", np.load(Path(acts["artifacts"][0]["artifact"]) / "activations.npy"))
    (tmp_path / "coarse.txt").write_text("\n".join(coarse) + "\n")
    (tmp_path / "finer.txt").write_text("\n".join(finer) + "\n")
    base = [*RDR, "--activations", tmp_path / "maps.npy", "--labels", tmp_path / "coarse.txt", "--outputs", tmp_path]
    use = ["--target", "class:low", "--param", "use=subclasses", "--param", "min_support=5"]
    found = document_of(*base, *use, "--file", f"finer={tmp_path / 'finer.txt'}")
    groups = [region["subclass"] for region in found["regions"]]
    assert len(groups) > 10
    # nobody told it the digits, and yet the groups are digits
    shares = [max(group["finer"].values()) / sum(group["finer"].values()) for group in groups]
    assert np.mean(shares) > 0.8
    assert {max(group["finer"], key=group["finer"].get) for group in groups} == set("01234")
    assert "finer labels: " in page_of(found, tmp_path)
    (tmp_path / "short.txt").write_text("1\n2\n")
    for arguments, words in (
        ([*use, "--file", f"finer={tmp_path / 'short.txt'}"], "got 2 finer labels"),
        (["--target", "3", "--file", f"finer={tmp_path / 'finer.txt'}"], "checks subclasses"),
        (["--target", "3", "--param", "use=subclasses"], "give --target class:NAME"),
        (["--target", "class:lwo"], "expected a label that occurs"),
    ):
        done = rdx_here(*base, *arguments, "--run", "bad")
        assert done.returncode in (1, 2)
        assert words in " ".join(done.stderr.split())


def test_causes_show_what_was_said(outputs: Path) -> None:
    found = document_of(
        *RDR, "--model", "digits-cnn-early", "--target", "misclassified:9", "--param", "use=causes",
        *("--run", "causes", "--outputs", outputs),
    )  # fmt: skip
    first = found["regions"][0]
    assert first["cause"]["label"] == "9"
    assert first["cause"]["prediction_share"] > 0.5
    assert first["sample_predictions"][0] == first["cause"]["prediction"] != first["sample_labels"][0]
    text = page_of(found, outputs)
    assert f"9 \u2192 {first['cause']['prediction']}" in text
    assert f"9 taken for {first['cause']['prediction']}" in text
    assert "a 9 taken for" not in text


def test_layers_and_models_side_by_side(outputs: Path) -> None:
    layers = document_of(
        *RDR, "--model", "digits-cnn", "--target", "17,100", "--param", "against=conv1,conv2.0", "--run", "layers",
        *("--outputs", outputs),
    )  # fmt: skip
    comparison = layers["comparison"]
    assert [(pair["a"], pair["b"]) for pair in comparison["pairs"]] == [
        ("conv2", "conv1"), ("conv2", "conv2.0"), ("conv1", "conv2.0"),
    ]  # fmt: skip
    for side, region in zip(comparison["sides"], layers["regions"], strict=True):
        assert [one["source"] for one in side["regions"]] == ["conv2", "conv1", "conv2.0"]
        assert side["regions"][0]["size"] == region["scores"]["size"]
        assert all(one["only_here"] <= one["size"] for one in side["regions"])
    text = page_of(layers, outputs)
    assert "by chance" in text
    assert text.count("<dt>only here</dt>") == 6
    models = document_of(
        *RDR, "--model", "digits-cnn", "--target", "17", "--file", "against=digits-cnn-m35", "--run", "models",
        *("--outputs", outputs),
    )  # fmt: skip
    sides = models["comparison"]["sides"][0]["regions"]
    assert [one["source"] for one in sides] == ["digits-cnn", "digits-cnn-m35"]
    # the regions of one layer compared with itself are the same
    itself = document_of(
        *RDR, "--model", "digits-cnn", "--target", "17", "--file", "against=digits-cnn", "--run", "itself",
        *("--outputs", outputs),
    )  # fmt: skip
    pair = itself["comparison"]["pairs"][0]
    assert pair["overlap"] == pair["agreement"] == 1.0
    assert {one["only_here"] for one in itself["comparison"]["sides"][0]["regions"]} == {0}


def test_catalogue_and_joint_choice(outputs: Path) -> None:
    base = [*RDR, "--model", "digits-cnn", "--sample", 300, "--target", "all", "--outputs", outputs]
    ranked = document_of(*base, "--run", "ranked")
    joint = document_of(*base, "--run", "joint", "--param", "selection=joint", "--param", "min_support=2")
    assert sorted(t for region in ranked["regions"] for t in region["merged_targets"]) == list(range(300))
    assert all(len(region["merged_targets"]) >= 2 for region in joint["regions"])
    units = [np.mean([len(region["neurons"]) for region in found["regions"]]) for found in (ranked, joint)]
    assert units[1] < units[0]
    assert "Concept 1: " in page_of(joint, outputs)


def test_the_baseline_has_a_page(outputs: Path) -> None:
    found = document_of(
        *("explain", "--method", "representative", "--model", "digits-cnn", "--target", "17,100", "--sample", 400),
        *("--param", "n_boundaries=8", "--outputs", outputs),
    )
    for region in found["regions"]:
        assert region["members"][0] == region["target"]
        assert sum(region["labels"].values()) == len(region["members"]) == region["scores"]["size"]
    assert "decision boundary" in page_of(found, outputs)


def test_errors_need_the_names_of_the_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("ape", "bee"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    base = [
        *(*RDR, "--model", "digits-cnn", "--dataset", f"folder:{tmp_path / 'pictures'}", "--target", "misclassified"),
        *("--param", "n_neighbors=3", "--outputs", tmp_path),
    ]
    done = rdx_here(*base)
    assert done.returncode in (1, 2)
    assert "`ape` is none of the model's 10 outputs" in " ".join(done.stderr.split())
    assert "classes=FILE" in done.stderr
    (tmp_path / "names.txt").write_text("ape\nbee\n" + "".join(f"other {i}\n" for i in range(8)))
    found = document_of(*base, "--file", f"classes={tmp_path / 'names.txt'}")
    assert all(region["sample_labels"][0] != region["sample_predictions"][0] for region in found["regions"])
    (tmp_path / "names.txt").write_text("ape\nbee\n")
    done = rdx_here(*base, "--file", f"classes={tmp_path / 'names.txt'}", "--run", "bad")
    assert "has 2 lines, the model has 10 outputs" in " ".join(done.stderr.split())


def test_a_damaged_artifact_is_said_to_be_one(stored: dict[str, Any], outputs: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(stored["artifact"], broken)
    size = (broken / "configurations.npz").stat().st_size
    (broken / "configurations.npz").write_bytes(b"\0" * size)
    done = rdx_here(*RDR, "--apply", broken, "--outputs", outputs, "--run", "bad")
    assert done.returncode == 1
    assert "configurations.npz is damaged" in " ".join(done.stderr.split())
    assert "unexpected" not in done.stderr
    (broken / "configurations.npz").write_bytes(b"\0")
    done = rdx_here(*RDR, "--apply", broken, "--outputs", outputs, "--run", "bad")
    assert "missing or damaged" in " ".join(done.stderr.split())


def test_fewer_samples_than_neighbours_say_the_way_out(tmp_path: Path) -> None:
    np.save(tmp_path / "six.npy", np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32))
    base = ["explain", "--method", "rdr", "--activations", tmp_path / "six.npy", "--target", 1, "--outputs", tmp_path]
    done = rdx_here(*base)
    assert done.returncode == 1
    assert "fewer than the 8 neighbours" in done.stderr
    way = done.stderr.partition("--param ")[2].split(",")[0].split()[0]
    assert rdx_here(*base, "--param", way).returncode == 0
