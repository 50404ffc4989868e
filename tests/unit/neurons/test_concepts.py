"""Concept sets, label concepts, calibrated similarities, pooling and splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from rdxcli.methods.neurons.concepts import (
    CALIBRATION,
    LazyCosines,
    active_concepts,
    calibrate_sigmoid,
    clean_concepts,
    fit_sigmoid,
    label_concepts,
    superclass_table,
    text_lines,
)
from rdxcli.methods.neurons.preparation import check_split, pool_outputs, random_split, standardise
from rdxcli.numerics.moments import column_statistics


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_survive_every_end_of_line(end: str) -> None:
    text = "\ufeff" + end.join(["null", "nan", "NA", "", "caf\u00e9", "a\u2028b", "", ""])
    assert text_lines(text) == ["null", "nan", "NA", "", "caf\u00e9", "a\u2028b"]


def test_cleaning_keeps_words_and_says_what_it_left_out() -> None:
    cleaned = clean_concepts(["cat", " dog ", "", "null", "cat", "   ", "nan", "Cat", "None"])
    assert cleaned.names == ("cat", "dog", "null", "nan", "Cat", "None")
    assert cleaned.notes == ["left out 2 empty lines of the concept set", "left out 1 repeated concept"]
    assert clean_concepts(["a"]).notes == []
    with pytest.raises(ValueError, match="without any concept"):
        clean_concepts(["", " "])


def test_label_concepts() -> None:
    matrix, names = label_concepts([0, 2, 1, 2], ["cat", "dog", "car"], {"living_thing": [0, 1], "all": [0, 1, 2, 2]})
    assert names == ("cat", "dog", "car", "living thing", "all")
    assert matrix.toarray().tolist() == [[1, 0, 0, 1, 1], [0, 0, 1, 0, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("targets", "classes", "superclasses", "message"),
    [
        ([0, 3], None, None, "class id 3"),
        ([-1], None, None, "class id -1"),
        ([0.0], None, None, "integers"),
        ([[0]], None, None, "shape"),
        ([0], 5, None, "class names for 5"),
        ([0], None, {"far": [7]}, "superclass 'far'"),
    ],
)
def test_bad_labels(targets: list, classes: int | None, superclasses: dict | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_concepts(targets, ["a", "b", "c"], superclasses, classes=classes)


def test_superclasses() -> None:
    graph = {
        "entity.n.01": [],
        "animal.n.01": ["entity.n.01"],
        "big_cat.n.01": ["animal.n.01"],
        "bar.n.01": ["entity.n.01"],
    }
    graph["bar.n.02"] = ["animal.n.01"]
    parents = {3: ["big_cat.n.01"], 1: ["bar.n.01"], 2: ["bar.n.02", "big_cat.n.01"]}
    table = superclass_table(parents, graph, drop=["entity"])
    assert list(table.items()) == [("animal", [2, 3]), ("big cat", [2, 3]), ("bar", [1, 2])]
    assert set(superclass_table(parents, graph, min_classes=3)) == {"entity"}
    with pytest.raises(ValueError, match="does not hold"):
        superclass_table({0: ["missing.n.01"]}, graph)


def test_activity_filter() -> None:
    P = np.zeros((100, 5))
    P[:3, 0] = 1.0  # mean of the five largest: 0.6
    P[:2, 1] = 1.0  # 0.4
    P[:, 2] = 1.0  # constant
    P[:, 3] = np.linspace(0, 0.49, 100)
    P[:, 4] = np.linspace(0, 1, 100)
    assert active_concepts(column_statistics(P)).tolist() == [True, False, False, False, True]


def test_similarities_are_computed_when_asked_for() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(20, 6)), rng.normal(size=(4, 6))
    cosines = (images / np.linalg.norm(images, axis=1)[:, None]) @ (texts / np.linalg.norm(texts, axis=1)[:, None]).T
    a, b = CALIBRATION["ViT-L-16-SigLIP-384"]
    plain, calibrated = LazyCosines(images, texts), LazyCosines(images, texts, a=a, b=b)
    assert plain.shape == (20, 4)
    np.testing.assert_allclose(plain[np.array([3, 1])], cosines[[3, 1]])
    np.testing.assert_allclose(calibrated[2:5], expit(60 * (cosines[2:5] - 0.09)))
    extreme = LazyCosines(np.eye(2), np.array([[1.0, 0.0], [-1.0, 0.0]]), a=1e5, b=0.0)
    assert extreme[:].tolist() == [[1.0, 0.0], [0.5, 0.5]]
    with pytest.raises(ValueError, match="the same model"):
        LazyCosines(images, texts[:, :5])
    with pytest.raises(ValueError, match="both or none"):
        LazyCosines(images, texts, a=1.0)
    with pytest.raises(ValueError, match="NaN"):
        LazyCosines(np.full((1, 6), np.nan), texts)


def test_calibration_finds_the_sigmoid_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.normal(0.1, 0.1, size=(400, 30))
    labels = (rng.random(cosines.shape) < expit(40 * (cosines - 0.2))).astype(float)
    a, b, loss = fit_sigmoid(cosines, labels)
    assert a == pytest.approx(40, rel=0.1)
    assert b == pytest.approx(-0.2, abs=0.02)
    p = expit(a * (cosines + b))
    assert loss == pytest.approx(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())
    grid = calibrate_sigmoid(cosines, labels, a_grid=[30, 40, 50], b_grid=[-0.3, -0.2, -0.1])
    assert grid[:2] == (40.0, -0.2)
    assert grid[2] >= loss
    for da, db in ((1, 0), (-1, 0), (0, 0.005), (0, -0.005)):
        assert calibrate_sigmoid(cosines, labels, a_grid=[a + da], b_grid=[b + db])[2] > loss


def test_calibration_that_cannot_work() -> None:
    cosines = np.array([[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(ValueError, match="perfectly"):
        fit_sigmoid(cosines, (cosines > 0.25).astype(float))
    with pytest.raises(ValueError, match="perfectly"):
        fit_sigmoid(cosines, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="less similar"):
        fit_sigmoid(cosines, np.array([[1.0, 1.0], [1.0, 0.0]]) * np.array([[1, 0], [1, 0]]))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        calibrate_sigmoid(cosines, cosines)
    with pytest.raises(ValueError, match="the same shape"):
        calibrate_sigmoid(cosines, np.zeros((2, 3)))


def test_pooling() -> None:
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    assert pool_outputs(x, "avg", [2])[:, 0].tolist() == [9.5, 21.5]
    tokens = np.arange(12.0).reshape(2, 3, 2)
    assert pool_outputs(tokens, "first").tolist() == [[0, 1], [6, 7]]
    view = np.zeros((2, 3))
    pooled = pool_outputs(view, "avg")
    view += 1  # a later operation in place must not change the record
    assert not pooled.any()
    for bad in ((x, "first"), (view, "first"), (np.zeros(3), "avg"), (x, "mean")):
        with pytest.raises(ValueError, match="Got"):
            pool_outputs(*bad)


def test_splits_are_disjoint_and_repeatable() -> None:
    split = random_split(101, seed=4)
    assert [len(part) for part in (split.train, split.val, split.test)] == [70, 10, 21]
    assert sorted(np.concatenate([split.train, split.val, split.test]).tolist()) == list(range(101))
    assert random_split(101, seed=4).train.tolist() == split.train.tolist()
    with pytest.raises(ValueError, match="too few"):
        random_split(3)


def test_overlapping_parts() -> None:
    with pytest.raises(ValueError, match="both in train and in val"):
        check_split([0, 1, 2], [2, 3], None, 10)
    with pytest.raises(ValueError, match="both in val and in test"):
        check_split([0, 1, 2], [4, 3], [3], 10)
    with pytest.raises(ValueError, match="at least 2"):
        check_split([0, 1, 2], [4], None, 10)


def test_standardisation_by_the_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    P, A = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    out = standardise(P, A, np.arange(20), np.arange(20, 25))
    np.testing.assert_allclose(out.train_y.std(axis=0, ddof=1), 1.0)
    changed = A.copy()
    changed[25:] += 100  # test rows
    np.testing.assert_array_equal(standardise(P, changed, np.arange(20), np.arange(20, 25)).train_y, out.train_y)
    P[:, 1] = 1.0
    with pytest.raises(ValueError, match="1 constant concept"):
        standardise(P, A, np.arange(20), np.arange(20, 25))


@pytest.mark.shared
def test_published_concept_sets(shared: Path) -> None:
    folder = shared / "reference" / "linear_explanations" / "concept_sets"

    def lines(name: str) -> list[str]:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return text_lines(file.read())

    sizes = {
        "imagenet_labels_clean.txt": 1000,
        "places365_labels_clean.txt": 365,
        "cifar100_labels_clean.txt": 100,
        "broden_labels_clean.txt": 1197,
        "nouns.txt": 6801,
        "20k.txt": 20_000,
        "combined_concepts_imagenet.txt": 8438,
    }
    assert {name: len(lines(name)) for name in sizes} == sizes
    assert {"null", "nan"} <= set(clean_concepts(lines("20k.txt")).names)
    superclasses = json.loads((folder / "imagenet_superclass_to_ids.json").read_text(encoding="utf-8"))
    parts = ["imagenet_labels_clean.txt", None, "broden_labels_clean.txt", "nouns.txt"]
    joined = [line for part in parts for line in (lines(part) if part else [k.replace("_", " ") for k in superclasses])]
    assert list(dict.fromkeys(joined)) == lines("combined_concepts_imagenet.txt")
    assert clean_concepts(lines("imagenet_labels_clean.txt")).duplicates == 2
