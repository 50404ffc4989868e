"""``rdx explain`` and ``rdx simulate`` as a user runs them, from arrays and from the embedded model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here, whole_page

from rdxcli.artifacts import find_artifacts


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units that are known sums of concepts: unit 0 = 2 dog + null, unit 1 = sky, unit 2 is dead, unit 3 is noise."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("planted")
    P = (rng.random((400, 6)) < 0.4).astype(float)
    A = np.zeros((400, 4))
    A[:, 0] = 2 * P[:, 2] + P[:, 0] + 0.1 * rng.normal(size=400)
    A[:, 1] = P[:, 5] + 0.1 * rng.normal(size=400)
    A[:, 3] = rng.normal(size=400)
    np.save(folder / "acts.npy", A)
    np.save(folder / "c.npy", P)
    (folder / "names.txt").write_text("null\nnan\ndog\ncat\ntree\nsky\n")
    return folder


CONCEPTS = ["--concepts", "c.npy", "--concept-names", "names.txt"]


def test_units_from_arrays_and_their_simulation(planted: Path, tmp_path: Path) -> None:
    out = ["--outputs", str(tmp_path)]
    arguments = ["explain", "--method", "le-label", "--activations", "acts.npy", *CONCEPTS, *out]
    done = rdx_here(*arguments, "--json", cwd=planted)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = {unit["unit"]: {c["concept"]: c["weight"] for c in unit["concepts"]} for unit in document["units"]}
    assert found[0] == pytest.approx({"dog": 2.0, "null": 1.0}, abs=0.05)
    assert found[1] == pytest.approx({"sky": 1.0}, abs=0.05)
    assert found[2] == {}
    table = Path(document["artifact"]) / "explanations.csv"
    with open(table, newline="") as stream:
        head, *rows = list(csv.reader(stream))
    assert head[:5] == ["layer", "unit", "val correlation", "weight0", "concept0"]
    assert rows[0][4] == "dog"
    assert "reusing" in rdx_here(*arguments, cwd=planted).stderr
    scored = rdx_here(
        *("simulate", "--explanations", str(table), "--activations", "acts.npy", *CONCEPTS, "--json", *out), cwd=planted
    )
    assert scored.returncode == 0, scored.stderr
    units = {unit["unit"]: unit["score"] for unit in json.loads(scored.stdout)["methods"][0]["units"]}
    assert units[0] > 0.95
    assert units[1] > 0.9
    assert units[2] is None  # a dead unit has no correlation, and no NaN
    page = rdx_here("visualize", str(table.parent), *out)
    assert "Unit 0" in whole_page(page.stdout.strip())


def test_results_do_not_depend_on_grouping(planted: Path, tmp_path: Path) -> None:
    base = [
        "explain",
        "--method",
        "le-label",
        "--activations",
        "acts.npy",
        *CONCEPTS,
        "--json",
        "--outputs",
        str(tmp_path),
    ]
    together = json.loads(rdx_here(*base, cwd=planted).stdout)["units"]
    alone = json.loads(rdx_here(*base, "--units", "3", "--run", "three", cwd=planted).stdout)["units"]
    one, other = alone[0], together[3]
    for unit in (one, other):
        unit["scores"].pop("q value")  # corrected over the units that were asked for
    for part in ("concepts", "scores", "bias", "strongest"):  # sums may differ in the last bit with the width
        assert _numbers(one[part]) == pytest.approx(_numbers(other[part]), abs=1e-9)
    assert [c["concept"] for c in one["concepts"]] == [c["concept"] for c in other["concepts"]]
    assert one["status"] == other["status"]


def _numbers(value: object) -> list[float]:
    """Every number in a document, in order."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in _numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_embedded_model_by_labels(tmp_path: Path) -> None:
    out = ["--outputs", str(tmp_path)]
    classes = tmp_path / "super.json"
    classes.write_text('{"round": ["0", "6", "8", "9"], "straight": [1, 4, 7]}')
    done = rdx_here(
        *("explain", "--method", "le-label", "--model", "digits-cnn", "--units", "0-7", "--json"),
        *("--file", f"superclasses={classes}", *out),
    )
    assert done.returncode == 0, done.stderr
    units = json.loads(done.stdout)["units"]
    assert len(units) == 8
    assert all(unit["scores"]["test correlation"] > 0.6 for unit in units)
    known = {str(i) for i in range(10)} | {"round", "straight"}
    assert {c["concept"] for unit in units for c in unit["concepts"]} <= known
    compared = rdx_here(
        *("simulate", "--method", "all", "--model", "digits-cnn", "--file", f"superclasses={classes}", "--json", *out)
    )
    assert json.loads(compared.stdout)["methods"][0]["summary"]["mean"] > 0.7


def test_regions_of_the_embedded_model(tmp_path: Path) -> None:
    out = ["--outputs", str(tmp_path)]
    done = rdx_here("explain", "--method", "rdr", "--model", "digits-cnn", "--target", "class:4", "--json", *out)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["regions"]) == 181
    region = document["regions"][0]
    assert region["target"] in region["members"]
    assert region["sample_ids"][0] == region["target_id"]
    assert 0 < region["scores"]["coverage"] < 1
    one = rdx_here("explain", "--method", "rdr", "--model", "digits-cnn", "--target", "17", "--run", "one", *out)
    page = rdx_here("visualize", one.stdout.strip(), *out)
    text = whole_page(page.stdout.strip())
    assert text.count('<img src="data:image/png') > 5
    assert "unitmap" in text
    causes = rdx_here(
        *("explain", "--method", "rdr", "--model", "digits-cnn-early", "--target", "misclassified", "--run", "causes"),
        *("--param", "use=causes", "--json", *out),
    )
    assert causes.returncode == 0, causes.stderr
    cause = json.loads(causes.stdout)["regions"][0]["cause"]
    assert cause["label"] != cause["prediction"]


def test_regions_from_arrays(planted: Path, tmp_path: Path) -> None:
    done = rdx_here(
        *("explain", "--method", "rdr", "--activations", "acts.npy", "--target", "17", "--json"),
        *("--param", "n_neurons=2", "--outputs", str(tmp_path)),
        cwd=planted,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["regions"][0]["target"] == 17


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "le-lable", "--activations", "acts.npy"], "le-label"),
        (["--method", "le-label"], "--model"),
        (["--method", "le-label", "--activations", "acts.npy"], "labels"),
        (["--method", "le-label", "--activations", "acts.npy", *CONCEPTS, "--units", "9"], "0 to 3"),
        (["--method", "le-label", "--activations", "acts.npy", *CONCEPTS, "--units", "a-b"], "0-63,70"),
        (["--method", "le-label", "--activations", "acts.npy", *CONCEPTS, "--param", "lamda=1"], "lam"),
        (["--method", "le-label", "--activations", "acts.npy", *CONCEPTS, "--splits", "no.npz"], "no.npz"),
        (["--method", "le-label", "--activations", "acts.npy", "--concepts", "short.npy"], "rows"),
        (["--method", "rdr", "--activations", "acts.npy", "--target", "4000"], "no sample"),
        (["--method", "rdr", "--activations", "acts.npy", "--target", "misclassified"], "predictions"),
        (["--method", "rdr", "--activations", "acts.npy", "--target", "1", "--param", "n_neighbors=4000"], "4,000"),
    ],
)
def test_bad_input_is_one_clear_error(planted: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    np.save(planted / "short.npy", np.ones((3, 2)))
    done = rdx_here("explain", *arguments, "--outputs", str(tmp_path), cwd=planted)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "unexpected" not in done.stderr
    assert words in " ".join(done.stderr.split())
    assert not find_artifacts(tmp_path, "explanations")
    assert not find_artifacts(tmp_path, "regions")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--explanations"),
        (["--explanations", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--explanations", "names.txt"], "unit"),
        (["--explanations", "other.csv"], "zebra"),
        (["--method", "le-label"], "rdx explain"),
        (["--explanations", "other.csv", "--part", "tset"], "test"),
        (["--explanations", "other.csv", "--scoring", "guess"], "correlation"),
    ],
)
def test_bad_simulations_are_one_clear_error(planted: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (planted / "other.csv").write_text("unit,description\n0,zebra\n")
    common = ["--activations", "acts.npy", *CONCEPTS, "--outputs", str(tmp_path)]
    done = rdx_here("simulate", *arguments, *common, cwd=planted)
    assert done.returncode in (1, 2)
    assert "unexpected" not in done.stderr
    assert words in " ".join(done.stderr.split())


def test_regions_ablated_compared_and_their_baseline(tmp_path: Path) -> None:
    base = ["explain", "--model", "digits-cnn", "--target", "17", "--json", "--outputs", str(tmp_path)]
    ablated = rdx_here(*base, "--method", "rdr", "--param", "ablate=mean")
    assert ablated.returncode == 0, ablated.stderr
    effect = json.loads(ablated.stdout)["regions"][0]["scores"]["ablation"]
    assert effect["neurons"] == 10
    assert 0 < effect["p_value"] <= 1
    layers = rdx_here(*base, "--method", "rdr", "--param", "against=conv1", "--run", "layers")
    pair = json.loads(layers.stdout)["comparison"]["pairs"][0]
    assert (pair["a"], pair["b"]) == ("conv2", "conv1")
    models = rdx_here(*base, "--method", "rdr", "--file", "against=digits-cnn-m35", "--run", "models")
    assert json.loads(models.stdout)["comparison"]["pairs"][0]["b"] == "digits-cnn-m35"
    baseline = rdx_here(*base, "--method", "representative", "--param", "n_boundaries=5")
    assert baseline.returncode == 0, baseline.stderr
    assert json.loads(baseline.stdout)["regions"][0]["members"][0] == 17
    pooled = rdx_here(*base, "--method", "rdr", "--pool", "avg", "--param", "ablate=mean", "--run", "pooled")
    assert pooled.returncode == 1
    assert "does not determine" in pooled.stderr or "gives" in pooled.stderr


def test_directions_of_the_embedded_model_and_of_known_ones(tmp_path: Path) -> None:
    out = ["--json", "--outputs", str(tmp_path)]
    done = rdx_here(
        *("explain", "--method", "uibe", "--model", "digits-cnn", "--layer", "conv2", "--num-directions", "6"),
        *("--sample", "400", "--param", "n_starts=2", "--param", "steps=60", *out),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["directions"]) == 6
    assert any(one["significant"] for entry in document["directions"] for one in entry["influence"])
    page = rdx_here("visualize", document["artifact"], "--outputs", str(tmp_path))
    assert 'class="heat"' in whole_page(page.stdout.strip())
    from safetensors.numpy import load_file

    arrays = load_file(Path(document["artifact"]) / "directions.safetensors")
    assert arrays["encoding"].shape == arrays["decoding"].shape == (6, 32)
    known = rdx_here(
        "explain", "--method", "pca", "--dataset", "synthetic:four_concepts", "--num-directions", "4", *out
    )
    assert known.returncode == 0, known.stderr
    assert 0 < json.loads(known.stdout)["scores"]["recovery"]["enc"] <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "eddp", "--dataset", "synthetic:paper_tabel"], "paper_table"),
        (["--method", "uibe", "--activations", "acts.npy", "--num-directions", "40"], "40"),
        (["--method", "uibe", "--activations", "acts.npy", "--param", "n_start=2"], "n_starts"),
        (["--method", "representative", "--activations", "acts.npy", "--target", "1"], "--model"),
    ],
)
def test_bad_directions_are_one_clear_error(planted: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = rdx_here("explain", *arguments, "--outputs", str(tmp_path), cwd=planted)
    assert done.returncode in (1, 2)
    assert "unexpected" not in done.stderr
    assert words in " ".join(done.stderr.split())


@pytest.mark.shared
def test_directions_are_labelled_by_masks_and_by_words(shared: Path, tmp_path: Path) -> None:
    frames, masks = shared / "data" / "camvid40" / "images", shared / "data" / "camvid40" / "masks"
    names = tmp_path / "names.txt"
    names.write_text(
        "sky building pole road pavement tree sign fence car pedestrian cyclist unlabelled".replace(" ", "\n")
    )
    weights = shared / "data" / "weights" / "cifar10_resnet20.th"
    few = ("--param", "influence_draws=23")  # influence is not what is looked at
    scores = np.random.default_rng(0).random((40, 4))
    np.save(tmp_path / "scores.npy", scores)
    done = rdx_here(
        *("explain", "--method", "pca", "--model", f"file:{weights}?arch=cifar_resnet20", "--layer", "layer1"),
        *("--dataset", f"images:{frames}", "--num-directions", "6", "--file", f"masks={masks}"),
        *("--concept-names", str(names), *few, "--json", "--outputs", str(tmp_path / "outputs")),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["directions"]
    assert {entry["mask_label"]["concept"] for entry in found} <= set(names.read_text().split())
    assert max(entry["mask_label"]["iou"] for entry in found) > 0.1
    worded = rdx_here(
        *("explain", "--method", "pca", "--model", f"file:{weights}?arch=cifar_resnet20", "--layer", "layer1"),
        *("--dataset", f"images:{frames}", "--num-directions", "3", "--concepts", str(tmp_path / "scores.npy")),
        *("--run", "words", *few, "--json", "--outputs", str(tmp_path / "outputs")),
    )
    assert worded.returncode == 0, worded.stderr
    assert all(0 < entry["words"][0]["p_value"] <= 1 for entry in json.loads(worded.stdout)["directions"])
