"""The gate of ``rdx compare`` in a nightly job, and what a comparison knows of its inputs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here

from rdxcli.artifacts import find_artifacts
from rdxcli.representations.resolve import is_model

QUICK = ("--bootstraps", "0", "--json", "--outputs", "outputs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network's features, its rounded copy, an edit, and another network."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 6, 160)
    hidden = 2 * rng.normal(size=(6, 12))[label] + rng.normal(size=(160, 12))
    features = np.maximum(hidden @ rng.normal(size=(12, 32)) / np.sqrt(12), 0)
    np.save(tmp_path / "old.npy", features)
    np.save(tmp_path / "half.npy", features.astype(np.float16))
    np.save(tmp_path / "edit.npy", np.round(features / features.max() * 7) / 7)
    np.save(tmp_path / "other.npy", np.maximum(hidden @ rng.normal(size=(12, 32)) / 3, 0) ** 2)
    np.save(tmp_path / "y.npy", label)
    return tmp_path


@pytest.mark.parametrize(
    ("b", "gate", "fails", "why"),
    [
        ("half.npy", "verdict", False, ""),
        ("edit.npy", "verdict", True, "the verdict is: difference found (changed at all)"),
        ("edit.npy", "p<0.05", True, "p-value"),
        ("edit.npy", "score>90%", False, ""),
        ("other.npy", "strength>0.01", True, "strength of the strongest group"),
        ("edit.npy", "score<0.9", True, "below 0.9"),
    ],
)
def test_what_a_gate_says_is_what_the_document_says(folder: Path, b: str, gate: str, fails: bool, why: str) -> None:
    done = rdx_here("compare", "old.npy", b, *QUICK, "--fail-on", gate, cwd=folder)
    assert done.returncode == (3 if fails else 0), done.stderr
    assert why in " ".join(done.stderr.split())
    document = json.loads(done.stdout)
    if gate == "verdict":
        assert (document["difference"]["verdict"] != "no difference found") == fails
    for sentence in document["difference"]["sentences"]:
        assert sentence in " ".join(done.stderr.split())


def test_a_nightly_job_passes_over_new_files_of_the_same_name(folder: Path) -> None:
    arguments = ("compare", "old.npy", "new.npy", *QUICK, "--no-test")
    gated = (*arguments[:-1], "--fail-on", "verdict")
    runs = []
    for night, name in enumerate(("half", "edit", "edit")):
        np.save(folder / "new.npy", np.load(folder / f"{name}.npy"))
        done = rdx_here(*gated, cwd=folder)
        assert done.returncode == (3 if night else 0), done.stderr
        runs.append(json.loads(done.stdout)["artifact"])
    assert runs[0] != runs[1] == runs[2]  # a new run beside the old one, then the same one again
    assert rdx_here(*arguments, cwd=folder).returncode == 1  # without a gate it is an error, as before
    replaced = rdx_here(*gated, "--on-change", "replace", "--seed", "5", cwd=folder)
    assert replaced.returncode == 3
    assert json.loads(replaced.stdout)["artifact"] == runs[0]
    assert len(find_artifacts(folder / "outputs", "comparison")) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fail-on", "verdit"], "did you mean `verdict`"),
        (["--fail-on", "score>2"], "between 0 and 1"),
        (["--fail-on", "score"], "expected a limit above zero for `score`"),
        (["--fail-on", "score>-1"], "such as `score>0.1`"),
        (["--fail-on", "flips>100%"], "no comparison fails this gate"),
        (["--fail-on", "p<=1"], "every comparison fails this gate"),
        (["--fail-on", "strength<0"], "no comparison fails this gate"),
        (["--fail-on", "p<1e-3"], "may be 0.01, so this gate would let them pass"),
        (["--fail-on", "flips>1%"], "--predictions-a"),
        (["--predictions-a", "y.npy"], "--predictions-b is missing"),
        (["--classes-a", "none.txt"], "--classes-a: no such file: none.txt"),
        (["--classes-b", "y.npy"], "name the outputs of two classifiers that have different ones"),
        (["--fail-on", "reference"], "--reference"),
        (["--fail-on", "strength>1", "--no-test"], "--no-test"),
        (["--k", "3", "--param", "n_clusters=5"], "--k 3 and --param n_clusters=5 contradict"),
        (["--k", "160"], "--k 160: 160 groups and one of all others need as many images, there are 160"),
        (["--gamma", "0.1", "--param", "gamma=0.2"], "contradict"),
        (["--param", "random_state=3"], "--seed"),
        (["--param", "n_clusters=two"], "whole number"),
        (["--on-change", "keep"], "--on-change keep"),
        (["--yardstick", "halves", "--no-test"], "--yardstick is compared by the test"),
        (["--reference", "old.npy", "half.npy", "--no-test"], "--reference is compared by the test"),
        (["--reference", "old.npy", "--json", "--bootstraps", "0"], "--reference takes two models or arrays"),
        (["--reference", "halves", "jitter"], "--yardstick jitter|halves|seeds"),
        (["--yardstick", "thirds"], "jitter, halves, seeds"),
        (["--unpaired", "--no-test"], "--paired is compared by the test"),
        (["--paired", "--drop-b", "0-7"], "--paired: old has 32 dimensions, edit-without-0-7 24"),
        (["--yardstick", "halves", "--reference", "old.npy", "half.npy"], "two reference pairs"),
    ],
)
def test_nonsense_is_refused_before_the_work(folder: Path, options: list[str], words: str) -> None:
    done = rdx_here("compare", "old.npy", "edit.npy", *QUICK, *options, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert not (folder / "outputs").exists()


def test_whatever_was_read_is_in_the_request(folder: Path) -> None:
    """Each file that a comparison reads is changed in turn: never is the old result given back."""
    from PIL import Image

    rng = np.random.default_rng(1)
    (folder / "words.txt").write_text("\n".join(f"word{i}" for i in range(8)))
    np.save(folder / "images.npy", rng.normal(size=(160, 8)))
    np.save(folder / "texts.npy", rng.normal(size=(8, 8)))
    np.save(folder / "ids.npy", np.array([f"i{i:03d}" for i in range(160)]))
    Image.new("L", (2, 2)).save(folder / "unused.png")
    arguments = (
        *("compare", "old.npy", "edit.npy", "--no-test", *QUICK, "--labels", "y.npy", "--sample-ids", "ids.npy"),
        *("--labels-b", "yb.npy", "--concept-set", "words.txt"),
        *("--file", "image_embeddings=images.npy", "--file", "text_embeddings=texts.npy"),
    )
    np.save(folder / "yb.npy", np.load(folder / "y.npy"))
    assert rdx_here(*arguments, cwd=folder).returncode == 0
    again = rdx_here(*arguments, cwd=folder)
    assert again.returncode == 0
    assert "reusing" in again.stderr
    changes = {
        "old.npy": lambda values: values + rng.normal(size=values.shape),
        "edit.npy": lambda values: values[::-1],
        "y.npy": lambda values: values[::-1],
        "yb.npy": lambda values: (values + 1) % 6,
        "images.npy": lambda values: values[::-1],
        "texts.npy": lambda values: values[::-1],
        "ids.npy": lambda values: np.char.add("x", values),
    }
    for name, change in changes.items():
        before = np.load(folder / name)
        np.save(folder / name, change(before))
        done = rdx_here(*arguments, cwd=folder)
        assert done.returncode == 1, name
        assert "other parameters or inputs" in done.stderr, name
        np.save(folder / name, before)
    text = (folder / "words.txt").read_text()
    (folder / "words.txt").write_text(text.replace("word3", "other"))
    assert rdx_here(*arguments, cwd=folder).returncode == 1


def test_sides_have_labels_and_ids_of_their_own(folder: Path) -> None:
    values, label = np.load(folder / "old.npy"), np.load(folder / "y.npy")
    order = np.random.default_rng(3).permutation(160)
    ids = np.array([f"i{i:03d}" for i in range(160)])
    for name, content in {"b": values[order], "ids_a": ids, "ids_b": ids[order], "y_b": label[order]}.items():
        np.save(folder / f"{name}.npy", content)
    sides = ("--sample-ids-a", "ids_a.npy", "--sample-ids-b", "ids_b.npy")
    done = rdx_here("compare", "old.npy", "b.npy", *QUICK, *sides, "--labels", "y.npy", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["difference"]["score"] == 0
    assert not any("samples differ" in note for note in document["notes"])
    assert any("labels are those of the rows of old" in note for note in document["notes"])
    own = ("--labels-a", "y.npy", "--labels-b", "y_b.npy", "--run", "own")
    done = rdx_here("compare", "old.npy", "b.npy", *QUICK, *sides, *own, "--no-test", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["notes"] == [
        "the two representations agree on every pair: there is no difference to explain"
    ]


@pytest.mark.parametrize("name", ["seeds", "jitter"])
def test_a_yardstick_is_a_reference_pair(folder: Path, name: str) -> None:
    done = rdx_here("compare", "old.npy", "other.npy", *QUICK, "--yardstick", name, cwd=folder)
    assert done.returncode == 0, done.stderr
    reference = json.loads(done.stdout)["difference"]["reference"]
    assert 0.0 < reference["score"] < 1.0
    assert reference["a"]["name"].startswith("old")
    scale = json.loads(done.stdout)["difference"]["scale"]
    assert scale["jitter"] < scale["seeds"]
    assert scale[name] == pytest.approx(reference["score"], abs=0.05)  # from at most 250 images
    gated = rdx_here(
        *("compare", "old.npy", "other.npy", *QUICK, "--yardstick", name, "--fail-on", "reference"), cwd=folder
    )
    assert (gated.returncode == 3) == reference["exceeded"]


@pytest.mark.parametrize(
    ("b", "given", "question"),
    [
        ("edit.npy", "--unpaired", "more than two read-outs"),
        ("other.npy", "--paired", "changed at all"),
        ("half.npy", "--paired", "changed at all"),
    ],
)
def test_the_question_can_be_chosen(folder: Path, b: str, given: str, question: str) -> None:
    done = rdx_here("compare", "old.npy", b, *QUICK, given, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["difference"]["question"] == question
    again = rdx_here("compare", "old.npy", b, *QUICK, cwd=folder)
    assert again.returncode == 1  # the answer to another question is no answer to this one
    assert "other parameters" in again.stderr


def test_a_checkpoint_is_a_model_and_a_file_of_arrays_is_none() -> None:
    for text in ("file:weights.safetensors", "file:a/b.pt?arch=timm:x", "timm:resnet.npy"):
        assert is_model(text, Path("nowhere"))
    for text in ("weights.safetensors", "x.npy", "a.h5:features", "b.mat", "c.txt"):
        assert not is_model(text, Path("nowhere"))


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("x/dino", "x/clip", "y/dino"):
        (tmp_path / place).mkdir(parents=True)
        np.save(tmp_path / place / "features.npy", rng.normal(size=(40, 4)))
    pairs = [("x/dino", "x/clip", "dino", "clip"), ("x/dino", "y/dino", "x/dino", "y/dino")]
    for a, b, first, second in pairs:
        files = (f"{a}/features.npy", f"{b}/features.npy")
        done = rdx_here("compare", *files, "--k", "2", "--no-test", *QUICK, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["a"]["name"] == f"{first}/features"
        assert document["b"]["name"] == f"{second}/features"
    (tmp_path / "z").mkdir()
    np.save(tmp_path / "z" / "features.npy", rng.normal(size=(40, 4)))
    three = rdx_here("compare", *files, "z/features.npy", "--no-test", "--json", cwd=tmp_path)
    rows = [row["name"] for row in json.loads(three.stdout)["rows"]]
    assert rows == ["x/dino/features", "y/dino/features", "z/features"]  # each by as much as it needs
    itself = rdx_here("compare", files[0], files[0], "--k", "2", "--no-test", *QUICK, cwd=tmp_path)
    assert json.loads(itself.stdout)["a"]["name"] == "features"


def test_predictions_beside_representations(folder: Path) -> None:
    """Given as logits and as a table of ids in another order; flips by concept; the gate on flips."""
    label = np.load(folder / "y.npy")
    ids = np.array([f"i{i:03d}" for i in range(160)])
    np.save(folder / "ids.npy", ids)
    logits = np.eye(6)[label] + 0.1
    wrong = label.copy()
    wrong[label == 2] = 3
    order = np.random.default_rng(0).permutation(160)
    np.save(folder / "pa.npy", logits)
    lines = [f"{ids[i]},{wrong[i]}" for i in order]
    (folder / "pb.csv").write_text("\n".join(["id,prediction", *lines]))
    given = ("--sample-ids", "ids.npy", "--labels", "y.npy", "--predictions-a", "pa.npy", "--predictions-b", "pb.csv")
    done = rdx_here("compare", "old.npy", "edit.npy", "--no-test", *QUICK, *given, "--fail-on", "flips>1%", cwd=folder)
    assert done.returncode == 3, done.stderr
    assert "share of changed predictions" in done.stderr
    found = json.loads(done.stdout)["predictions"]
    share = float((label == 2).mean())
    assert found["churn"]["value"] == found["negative_flips"]["value"] == pytest.approx(share)
    assert found["accuracy_a"]["value"] == 1.0
    assert found["classes"]["2"]["negative_flips"]["value"] == 1.0
    assert set(found["groups"]) <= {"a1", "a2", "a3", "b1", "b2", "b3"}
    assert "from right to wrong" in done.stderr
    arrays = np.load(folder / json.loads(done.stdout)["artifact"] / "arrays.npz")
    assert (arrays["predictions_b"] == wrong.astype(str)).all()
    probe = rdx_here(
        *("compare", "old.npy", "edit.npy", "--no-test", *QUICK, "--labels", "y.npy", "--run", "probe"),
        *("--fail-on", "negative-flips>90%"),
        cwd=folder,
    )
    assert probe.returncode == 0, probe.stderr
    assert json.loads(probe.stdout)["predictions"]["source"] == "linear probe, 5-fold"


def test_the_heads_of_two_models_are_read_with_their_features(tmp_path: Path) -> None:
    quick = ("--no-test", *QUICK, "--sample", "300")
    done = rdx_here("compare", "digits-cnn-m35", "digits-cnn", *quick, "--fail-on", "flips>1%", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    found = document["predictions"]
    assert found["source"].startswith("of the models' own heads")
    assert found["accuracy_b"]["value"] > 0.99
    assert found["positive_flips"]["count"] == found["churn"]["count"] > 20  # every 5 was called a 3
    assert -0.1 < found["confidence_shift"]["value"] < 0.1
    mixed = max(found["groups"].values(), key=lambda group: group["positive_flips"]["value"])
    assert mixed["tests"]["positive_flips"]["p_corrected"] < 1e-6
    assert "went from wrong to right" in " ".join(done.stderr.split())
    assert done.stderr.count("extracting conv2, output of") == 2  # one pass each
    with open(tmp_path / document["artifact"] / "images.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 300
    moved = [float(row["common_neighbours"]) for row in rows]
    assert moved == sorted(moved)
    assert sum(row["a is"] == "wrong" and row["b is"] == "right" for row in rows) == found["churn"]["count"]
    for concept in document["concepts"]:
        assert sum(row[f"concept_{concept['closer_in']}"] == str(concept["index"]) for row in rows) == concept["size"]
        assert concept["elsewhere"]["own"] > concept["elsewhere"]["chance"]
    given = ("--predictions-a", "p.txt", "--predictions-b", "p.txt")
    (tmp_path / "p.txt").write_text("0\n" * 300)
    told = rdx_here("compare", "digits-cnn-m35", "digits-cnn", *quick, "--run", "given", *given, cwd=tmp_path)
    assert json.loads(told.stdout)["predictions"]["source"] == "given"


def test_half_precision_is_no_change_and_lives_beside_full(tmp_path: Path) -> None:
    quick = ("--no-test", *QUICK, "--sample", "100", "--run", "x", "--on-change", "new")
    runs = []
    for options in ((), ("--dtype", "bfloat16"), ()):
        done = rdx_here("compare", "digits-cnn-m35", "digits-cnn", *quick, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout)["artifact"])
    assert runs[0] == runs[2] != runs[1]
    wrong = rdx_here("compare", "digits-cnn-m35", "digits-cnn", "--dtype", "float8", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "bfloat16" in wrong.stderr


def test_new_weights_under_the_old_name_are_read_again(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from rdxcli.models import load

    model = "file:new.safetensors?arch=mnist_cnn&input_size=8&scale=255&mean=0.5&std=0.5"
    state = {name: value.numpy() for name, value in load("digits-cnn").module.state_dict().items()}
    arguments = ("compare", "digits-cnn", model, "--dataset", "digits", "--sample", "200", "--no-test", *QUICK)
    scores = []
    for night, change in enumerate((0.0, 0.3)):
        rng = np.random.default_rng(0)
        noise = {name: change * rng.normal(size=value.shape) * (value.ndim > 1) for name, value in state.items()}
        noisy = {name: torch.tensor(value * (1 + noise[name]), dtype=torch.float32) for name, value in state.items()}
        save_file(noisy, tmp_path / "new.safetensors")
        done = rdx_here(*arguments, "--fail-on", "flips>1%", cwd=tmp_path)
        assert done.returncode == (3 if night else 0), done.stderr
        scores.append(json.loads(done.stdout)["scores"]["mutual_knn"])
    assert scores[0] == 1.0 > scores[1]
    done = rdx_here(*arguments, "--run", "again", cwd=tmp_path)  # the same weights, without a gate
    assert done.returncode == 0, done.stderr


def test_the_number_of_concepts_can_be_left_to_the_data(folder: Path) -> None:
    quick = ("--no-test", *QUICK, "--run", "auto")
    done = rdx_here("compare", "old.npy", "other.npy", "--k", "auto", *quick, cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["notes"][0].startswith(f"--k auto: {document['k']} concept")
    assert len([one for one in document["concepts"] if one["closer_in"] == "a"]) <= document["k"]
    again = rdx_here("compare", "old.npy", "other.npy", "--param", "n_clusters=auto", *quick, cwd=folder)
    assert "reusing" in again.stderr
    for wrong in ("0", "many", "2.5"):
        refused = rdx_here("compare", "old.npy", "other.npy", "--k", wrong, cwd=folder)
        assert refused.returncode == 2
        assert "or auto" in refused.stderr


def test_labels_of_models_are_those_of_their_images(tmp_path: Path) -> None:
    """A file of labels was ignored where both sides are models; now it is joined by id, and counts for the request."""
    from rdxcli.datasets.digits import digit_arrays

    table, runs = tmp_path / "parity.csv", []
    rows = [f"{i:04d},{'even' if label % 2 == 0 else 'odd'}" for i, label in enumerate(digit_arrays()[1])]
    arguments = ("compare", "digits-cnn-m35", "digits-cnn", "--no-test", *QUICK, "--sample", "100")
    for lines in (rows[::-1], [row.replace("odd", "uneven") for row in rows]):
        table.write_text("\n".join(["id,label", *lines]))
        done = rdx_here(*arguments, "--labels", table, "--on-change", "new", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout))
    assert "even" in runs[0]["concepts"][0]["labels"] or "odd" in runs[0]["concepts"][0]["labels"]
    assert runs[0]["artifact"] != runs[1]["artifact"]
    for option in ("--sample-ids", "--sample-ids-b", "--images"):
        ignored = rdx_here(*arguments, option, tmp_path, cwd=tmp_path)
        assert ignored.returncode == 2
        assert "neither side is one" in ignored.stderr
    table.write_text("id,label\n0000,even\n")
    wrong = rdx_here(*arguments, "--labels", table, cwd=tmp_path)
    assert wrong.returncode == 1
    assert "no label for" in wrong.stderr
