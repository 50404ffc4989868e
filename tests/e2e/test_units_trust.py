"""What an explanation of units was made from, and that nothing else is scored or reused; what is checked first."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here, whole_page
from PIL import Image
from processes import Forked, rdx_forked
from scipy import sparse

from rdxcli.artifacts import find_artifacts
from rdxcli.concepts import labels as labels_room
from rdxcli.concepts.labels import label_matrix
from rdxcli.concepts.options import ConceptOptions
from rdxcli.datasets.selection import ArrayOptions
from rdxcli.errors import InputError
from rdxcli.records import Representation
from rdxcli.services.simulate import ablation as ablation_room
from rdxcli.services.simulate.options import SimulateOptions
from rdxcli.services.simulate.simulate import SimulateAnalysis

LABELS = ["dog", "cat", "car", "tree"]
CONCEPTS = ["--concepts", "c.npy", "--concept-names", "names.txt"]


def write(folder: Path, seed: int, n: int = 240, shift: float = 0.0) -> None:
    """Four classes, three units: one per class for two classes, one of noise; a concept matrix of the classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    one_hot = np.eye(4)[y]
    acts = np.c_[3 * one_hot[:, 0], 2 * one_hot[:, 1] + one_hot[:, 2], np.zeros(n)] + rng.normal(size=(n, 3)) + shift
    folder.mkdir(exist_ok=True, parents=True)
    np.save(folder / "acts.npy", acts)
    np.save(folder / "c.npy", one_hot)
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in LABELS))
    (folder / "y.txt").write_text("".join(f"{LABELS[k]}\n" for k in y))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write(tmp_path, 0)
    return tmp_path


def explain(cwd: Path, *more: object, method: str = "le-label", ok: bool = True) -> dict:
    done = rdx_here("explain", "--method", method, "--activations", "acts.npy", "--json", *more, cwd=cwd)
    assert (done.returncode == 0) == ok, done.stderr
    return json.loads(done.stdout) if ok else {"error": " ".join(done.stderr.split())}


def simulate(cwd: Path, *more: object, ok: bool = True) -> dict:
    done = rdx_here("simulate", "--activations", "acts.npy", "--json", *more, cwd=cwd)
    assert (done.returncode == 0) == ok, done.stderr
    return json.loads(done.stdout) if ok else {"error": " ".join(done.stderr.split())}


# ---------------------------------------------------------------- what is scored


def test_another_data_sets_explanations_are_never_scored(here: Path) -> None:
    """Two arrays of one name: the run of the first is refused for the second, by name, path, file and `all`."""
    explain(here, *CONCEPTS)
    assert simulate(here, *CONCEPTS, "--method", "le-label")["summary"]["mean"] > 0.3
    write(here, 5, shift=1.0)  # other samples under the same file name
    artifact = next(str(one.path) for one in find_artifacts(here / "outputs", "explanations"))
    for how in (
        ["--method", "le-label"],
        ["--explanations", artifact],
        ["--explanations", f"{artifact}/explanations.csv"],
    ):
        said = simulate(here, *CONCEPTS, *how, ok=False)["error"]
        assert "explains something else" in said
        assert "content of the array" in said
    np.save(here / "acts.npy", np.load(here / "acts.npy")[:200])
    np.save(here / "c.npy", np.load(here / "c.npy")[:200])
    assert "shape of the array: " in simulate(here, *CONCEPTS, "--method", "all", ok=False)["error"]
    # somebody else's table is scored on anything, and that is said
    copy = here / "copy.csv"
    copy.write_bytes((Path(artifact) / "explanations.csv").read_bytes())
    notes = simulate(here, *CONCEPTS, "--explanations", copy)["notes"]
    assert any("not known which images" in note for note in notes)


def test_a_run_on_other_images_of_the_same_model_is_refused(tmp_path: Path) -> None:
    base = ["--model", "digits-cnn", "--outputs", tmp_path, "--units", "0-3", "--json"]
    assert rdx_here("explain", "--method", "le-label", *base, "--limit", "300").returncode == 0
    assert rdx_here("explain", "--method", "le-label", *base, "--limit", "400").returncode == 0
    scored = rdx_here("simulate", "--method", "le-label", *base, "--limit", "300")
    assert json.loads(scored.stdout)["model"]["n"] == 300
    other = rdx_here("simulate", "--method", "le-label", *base, "--limit", "350")
    assert other.returncode == 1
    said = " ".join(other.stderr.split())
    assert "2 runs `le-label` explain something else" in said
    assert "digits@limit-300 there" in said
    assert "digits@limit-400 there" in said
    layer = rdx_here("simulate", "--method", "le-label", *base, "--limit", "300", "--layer", "conv1")
    assert "no explanation run" in layer.stderr


def test_training_rows_are_never_tested_on(here: Path) -> None:
    rows = np.random.default_rng(3).permutation(240)
    np.savez(here / "s.npz", train=rows[:100], val=rows[100:140], test=rows[140:])
    np.savez(here / "other.npz", train=rows[140:], val=rows[100:140], test=rows[:100])
    made = explain(here, *CONCEPTS, "--splits", "s.npz")
    expected = [unit["scores"]["test correlation"] for unit in made["units"]]
    for more in ([], ["--seed", "9"], ["--splits", "s.npz"]):
        found = simulate(here, *CONCEPTS, "--method", "le-label", *more, "--run", "-".join(map(str, more)) or "plain")
        assert [unit["score"] for unit in found["methods"][0]["units"]] == pytest.approx(expected, abs=1e-9)
    said = simulate(here, *CONCEPTS, "--method", "le-label", "--splits", "other.npz", ok=False)["error"]
    assert "100 of its 100 test rows were used in the fit" in said
    explain(here, *CONCEPTS, "--seed", "4", "--run", "seed4")
    assert "no rows are unseen by both" in simulate(here, *CONCEPTS, "--method", "all", ok=False)["error"]
    seeded = explain(here, *CONCEPTS, "--seed", "4", "--run", "seed4")
    again = simulate(here, *CONCEPTS, "--method", "seed4")  # another seed than the explanation's
    assert [unit["score"] for unit in again["methods"][0]["units"]] == pytest.approx(
        [unit["scores"]["test correlation"] for unit in seeded["units"]], abs=1e-9
    )


def test_the_split_goes_by_ids_when_there_are_any(here: Path) -> None:
    ids = [f"im{i}" for i in range(240)]
    (here / "ids.txt").write_text("".join(f"{one}\n" for one in ids))
    made = explain(here, *CONCEPTS, "--sample-ids", "ids.txt")
    split = np.load(Path(made["artifact"]) / "splits.npz", allow_pickle=False)
    assert split["sample_ids"].tolist() == ids
    assert len(split["test"]) == 48


def test_tables_of_one_stem_get_names_and_layers(here: Path) -> None:
    for name, concept in (("a", "dog"), ("b", "tree")):
        (here / name).mkdir()
        (here / name / "t.csv").write_text(f"layer,unit,description\nx,0,{concept}\nx,1,cat\ny,0,cat\ny,1,cat\n")
    both = ["--explanations", "a/t.csv", "--explanations", "b/t.csv", "--layer", "x"]
    assert "NAME=FILE" in simulate(here, *CONCEPTS, *both, ok=False)["error"]
    named = ["--explanations", "ours=a/t.csv", "--explanations", "theirs=b/t.csv"]
    found = simulate(here, *CONCEPTS, *named, "--layer", "x")
    assert [entry["method"] for entry in found["methods"]] == ["ours", "theirs"]
    assert found["methods"][0]["units"][0]["score"] > 0.6
    assert found["pairs"][0]["first"] == "ours"
    assert "layers x, y" in simulate(here, *CONCEPTS, *named, ok=False)["error"]
    other = simulate(here, *CONCEPTS, *named, "--layer", "y", "--run", "y")
    assert other["methods"][0]["units"][0]["score"] < 0.2


def test_means_are_over_common_units_and_runs_tell_simulators_apart(here: Path) -> None:
    (here / "many.csv").write_text("unit,description\n0,dog\n1,cat\n2,car\n")
    (here / "few.csv").write_text("unit,description\n0,dog\n1,tree\n")
    tables = ["--explanations", "many.csv", "--explanations", "few.csv"]
    found = simulate(here, *CONCEPTS, *tables)
    assert [entry["summary"]["count"] for entry in found["methods"]] == [3, 2]
    assert [entry["common"]["count"] for entry in found["methods"]] == [2, 2]
    assert any("over the 2 units that all tables explain (units: many 3, few 2)" in note for note in found["notes"])
    rng = np.random.default_rng(1)
    np.save(here / "noisy.npy", np.load(here / "c.npy") + 0.5 * rng.normal(size=(240, 4)))
    second = simulate(here, "--concepts", "noisy.npy", "--concept-names", "names.txt", *tables)
    assert second["artifact"] != found["artifact"]
    assert second["methods"][0]["units"][0]["score"] < found["methods"][0]["units"][0]["score"]


# ---------------------------------------------------------------- what is reused


READ = ("c.npy", "names.txt", "acts.npy", "y.txt", "ids.txt")


@pytest.mark.parametrize(
    ("method", "changed"),
    [*(("le-label", name) for name in (*READ, "s.npz", "super.json")), *(("clip-dissect", name) for name in READ)],
)
def test_no_stale_result_is_reused(here: Path, method: str, changed: str) -> None:
    """Any input file that changes makes another request."""
    rows = np.random.default_rng(3).permutation(240)
    np.savez(here / "s.npz", train=rows[:100], val=rows[100:140], test=rows[140:])
    (here / "ids.txt").write_text("".join(f"im{i}\n" for i in range(240)))
    (here / "super.json").write_text('{"animal": ["dog", "cat"]}')
    more: list[str] = ["--sample-ids", "ids.txt", "--labels", "y.txt"]
    if changed != "super.json":
        more += CONCEPTS
    else:
        more += ["--file", "superclasses=super.json"]
    if method == "le-label":
        more += ["--splits", "s.npz"]
    explain(here, *more, method=method)
    assert explain(here, *more, method=method)  # unchanged: reused
    path = here / changed
    if changed.endswith(".npy"):
        values = np.load(path)
        values[0, 0] += 0.25
        np.save(path, values)
    elif changed == "s.npz":
        np.savez(path, train=rows[:101], val=rows[101:140], test=rows[140:])
    elif changed == "super.json":
        path.write_text('{"animal": ["dog", "car"]}')
    else:
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{one}\n" for one in ["zebra", *lines[1:]]))
    assert "made with other parameters or inputs" in explain(here, *more, method=method, ok=False)["error"]
    assert explain(here, *more, "--force", method=method)


def test_changed_masks_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    np.save(tmp_path / "maps.npy", rng.random((20, 2, 4, 4)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"s{i}\n" for i in range(20)))
    (tmp_path / "names.txt").write_text("left\nright\n")
    for i in range(20):
        mask = np.zeros((8, 8), np.uint8)
        mask[:, 3 + i % 3 :] = 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"s{i}.png")
    arguments = [
        *("explain", "--method", "network-dissection", "--activations", "maps.npy", "--sample-ids", "ids.txt"),
        *("--file", "masks=masks", "--param", "quantile=0.2", "--concept-names", "names.txt"),
    ]
    assert rdx_here(*arguments, cwd=tmp_path).returncode == 0
    assert "reusing" in rdx_here(*arguments, cwd=tmp_path).stderr
    one = rdx_here(*arguments, "--units", "1", "--run", "one", "--json", cwd=tmp_path)
    (said,) = [note for note in json.loads(one.stdout)["notes"] if "chance" in note]
    assert " of 1 explanation beat" in said  # not of all units of the layer
    mask[0, 0] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "s19.png")
    done = rdx_here(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "made with other parameters or inputs" in done.stderr


def test_a_simulation_is_not_reused_when_table_labels_or_concepts_change(here: Path) -> None:
    (here / "t.csv").write_text("unit,description\n0,dog\n1,cat\n")
    base = ["--explanations", "t.csv", "--labels", "y.txt"]
    simulate(here, *base)
    simulate(here, *base)
    (here / "t.csv").write_text("unit,description\n0,cat\n1,cat\n")
    assert "made with other" in simulate(here, *base, ok=False)["error"]
    simulate(here, *base, "--force")
    lines = (here / "y.txt").read_text().splitlines()
    (here / "y.txt").write_text("".join(f"{one}\n" for one in [*lines[:-1], "dog" if lines[-1] != "dog" else "cat"]))
    assert "made with other" in simulate(here, *base, ok=False)["error"]


# ---------------------------------------------------------------- what is checked first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--file", "superclas=x.json"], "did you mean `superclasses`"),
        (["--units", "3-a"], "0-63,70"),
        (["--splits", "bad.npz"], "both in train and in val"),
        (["--splits", "half.npz"], "has no `test`"),
        (["--param", "max_length=abc"], "max_length"),
        (["--param", "lam=-1"], "lam"),
    ],
)
def test_usage_errors_come_before_the_work(tmp_path: Path, arguments: list[str], words: str) -> None:
    """Nothing is extracted from a model for an option that is wrong whatever the activations are."""
    np.savez(tmp_path / "bad.npz", train=[0, 1, 2], val=[2, 3], test=[4, 5])
    np.savez(tmp_path / "half.npz", train=[0, 1, 2], val=[3, 4])
    base = ["--method", "le-label", "--model", "digits-cnn", "--outputs", tmp_path / "outputs"]
    done = rdx_here("explain", *base, *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stderr.split())
    assert not find_artifacts(tmp_path / "outputs")
    planned = rdx_here("explain", *base, *arguments, "--dry-run", cwd=tmp_path)
    assert planned.returncode in (1, 2)


def test_missing_scores_and_single_images_are_said_at_once(tmp_path: Path) -> None:
    out = ["--outputs", tmp_path / "outputs"]
    done = rdx_here("explain", "--method", "clip-dissect", "--model", "digits-cnn", *out)
    assert done.returncode == 2
    assert "--vlm NAME --concept-set FILE" in " ".join(done.stderr.split())
    rng = np.random.default_rng(0)
    for i in range(12):
        (tmp_path / "p" / f"class{i}").mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / "p" / f"class{i}" / "a.png")
    done = rdx_here(
        "explain", "--method", "le-label", "--model", "digits-cnn", "--dataset", f"folder:{tmp_path / 'p'}", *out
    )
    assert done.returncode == 1
    assert "the largest class of" in done.stderr
    assert "has 1 image, and a class needs 3" in " ".join(done.stderr.split())
    assert not find_artifacts(tmp_path / "outputs")


def test_dry_run_says_images_memory_and_what_is_missing(tmp_path: Path) -> None:
    done = rdx_here(
        *("explain", "--method", "le-label", "--model", "digits-cnn", "--limit", "300", "--dry-run", "--json"),
        *("--outputs", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    for words in ("300", "memory", "missing", "n_shuffled"):
        assert words in said
    assert not find_artifacts(tmp_path)


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    "what",
    [
        ["explain", "--method", "le-label", "--units", "3,4000"],
        ["explain", "--method", "network-dissection", "--file", "masks=.", "--units", "16-17"],
        ["explain", "--method", "clip-dissect", "--concepts", "c.npy", "--units", "99"],
        ["simulate", "--explanations", "t.csv", "--units", "0-16"],
    ],
    ids=lambda what: what[2],
)
def test_units_that_a_layer_does_not_have_are_refused_before_it_is_extracted(
    tmp_path: Path, what: list[str], more: list[str]
) -> None:
    (tmp_path / "t.csv").write_text("unit,description\n0,3\n")
    np.save(tmp_path / "c.npy", np.eye(5))
    done = rdx_here(*what, *more, "--model", "digits-cnn", "--layer", "conv1", "--limit", "60", cwd=tmp_path)
    assert done.returncode == 2
    assert "is outside of 0 to 15" in " ".join(done.stderr.split())
    assert not any(tmp_path.rglob("*.npz"))
    assert not find_artifacts(tmp_path / "outputs")


def test_empty_names_and_units_that_are_not_there_are_said_with_the_file(here: Path) -> None:
    (here / "blank.txt").write_text("dog\n\ncar\ntree\n")
    said = explain(here, "--concepts", "c.npy", "--concept-names", "blank.txt", ok=False)["error"]
    assert "blank.txt: the concept of column 1 has an empty name" in said
    for units, more in (("7", []), ("0", ["--units", "1"])):
        (here / "t.csv").write_text(f"unit,description\n{units},dog\n")
        assert "error: t: Got" in simulate(here, *CONCEPTS, "--explanations", "t.csv", *more, ok=False)["error"]


def test_a_missing_simulator_is_missed_before_the_layer_is_extracted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("unit,description\n0,dog\n")
    given = (
        "--model",
        "digits-cnn",
        "--limit",
        "60",
        "--vlm",
        f"hf:{tmp_path / 'nowhere'}",
        "--param",
        "calibrate=true",
    )
    done = rdx_here("simulate", "--explanations", "t.csv", *given, cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert not find_artifacts(tmp_path / "outputs")


def test_dry_run_of_every_family_says_rows_memory_and_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "acts.npy", np.zeros((90, 7)))
    np.save(tmp_path / "c.npy", np.zeros((90, 5)))
    planned = ["explain", "--method", "clip-dissect", "--concepts", "c.npy", "--dry-run", "--json"]
    arrays = json.loads(rdx_here(*planned, "--activations", "acts.npy", cwd=tmp_path).stdout)
    assert (arrays["images"], arrays["units of the layer"], arrays["concepts"]) == (90, 7, "5, by c.npy")
    assert arrays["peak_memory_bytes"] > 0
    assert arrays["bytes_on_disk"] > 0
    assert arrays["estimated_seconds"] > 0
    model = ["--model", "digits-cnn", "--layer", "conv1", "--limit", "60"]
    found = json.loads(rdx_here("explain", "--method", "le-label", *model, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert (found["images"], found["units of the layer"], found["concepts"]) == (60, 16, "10, by labels")
    assert found["activations"].startswith("made, ")
    assert "memory at the peak" in found["activations"]


def test_units_all_many_rows_and_noise(tmp_path: Path) -> None:
    """45 units, all but three of noise: the table says that it stops, and that noise is not explained."""
    write(tmp_path, 0, n=400)
    rng = np.random.default_rng(2)
    acts = np.c_[np.load(tmp_path / "acts.npy"), np.exp(rng.normal(size=(400, 42)))]
    np.save(tmp_path / "acts.npy", acts)
    document = explain(tmp_path, *CONCEPTS, "--units", "all")
    assert len(document["units"]) == 45
    status = [unit["status"] for unit in document["units"]]
    assert status[:2] == ["explained", "explained"]
    assert sum(one == "explained" for one in status[2:]) <= 2
    assert "not better than chance" in status
    first = document["units"][0]["scores"]
    assert first["q value"] <= 0.05
    assert first["chance"] < first["test correlation"]
    assert any("explanations beat chance" in note for note in document["notes"])
    shown = rdx_here(
        "explain", "--method", "le-label", "--activations", "acts.npy", *CONCEPTS, "--units", "all", cwd=tmp_path
    )
    assert "40 of 45 units are shown" in " ".join(shown.stderr.split())
    table = Path(document["artifact"]) if Path(document["artifact"]).is_absolute() else tmp_path / document["artifact"]
    header = (table / "explanations.csv").read_text().splitlines()[0]
    assert "sim correlation" not in header
    assert "test correlation" in header
    scored = simulate(tmp_path, *CONCEPTS, "--method", "le-label")
    assert any("same concepts as the explainer" in note for note in scored["notes"])
    better = [unit["q_value"] <= 0.05 for unit in scored["methods"][0]["units"] if unit["q_value"] is not None]
    assert better[:2] == [True, True]
    assert sum(better[2:]) <= 2
    page = rdx_here("visualize", document["artifact"], cwd=tmp_path)
    assert "not better than chance" in whole_page(page.stdout.strip())


def test_the_character_of_units_stands_with_them(tmp_path: Path) -> None:
    """Unit 0 fires for dogs and for trees, unit 1 for cats, unit 2 is unit 1 again, unit 3 is noise."""
    write(tmp_path, 0, n=400)
    rng = np.random.default_rng(2)
    C = np.load(tmp_path / "c.npy")
    base = 0.2 * rng.normal(size=(400, 4))
    acts = np.c_[C[:, 0] + C[:, 3], C[:, 1], C[:, 1], np.zeros(400)] + base
    acts[:, 2] = acts[:, 1] + 0.01 * base[:, 2]
    np.save(tmp_path / "acts.npy", acts)
    np.save(tmp_path / "c.npy", C + 0.1 * rng.random(C.shape))
    (tmp_path / "ids.txt").write_text("".join(f"im{i}\n" for i in range(400)))
    document = explain(tmp_path, *CONCEPTS, "--sample-ids", "ids.txt")
    character = [unit["character"] for unit in document["units"]]
    assert [len(one["groups"]) for one in character[:3]] == [2, 1, 1]
    shown = [{int(C[int(sample[2:])].argmax()) for sample in group} for group in character[0]["groups"]]
    assert sorted(map(sorted, shown)) == [[0], [3]]
    assert character[1]["twin"] == 2
    assert character[3]["clarity_q_value"] > 0.05
    notes = " ".join(document["notes"])
    assert "1 unit with several separable groups of images" in notes
    assert "near duplicates (correlation of at least 0.9): 1 pair of units: 1 and 2" in notes
    page = rdx_here("visualize", document["artifact"], cwd=tmp_path)
    assert "separable groups among" in whole_page(page.stdout.strip())


# ---------------------------------------------------------------- classes and superclasses


def record(labels: list[str], dataset: str | None = None) -> Representation:
    return Representation(np.zeros((len(labels), 2)), None, "x", labels=np.array(labels), dataset=dataset)


def columns(matrix: object) -> dict[str, list[float]]:
    assert sparse.issparse(matrix.values)
    return dict(zip(matrix.names, matrix.values.toarray().T.tolist(), strict=True))


def test_numbers_in_superclasses_count_the_full_class_list(tmp_path: Path) -> None:
    path = tmp_path / "super.json"
    options = ConceptOptions(method="le-label", files={"superclasses": str(path)})
    path.write_text('{"zero_or_one": [0, 1], "odd": [1, "3", 5]}')
    found = columns(label_matrix(options, record(["3", "5", "3"], "digits")))
    assert found["zero or one"] == [0, 0, 0]
    assert found["odd"] == [1, 1, 1]
    assert found["3"] == [1, 0, 1]
    assert len(found) == 12
    with pytest.raises(InputError, match=r"class `0`, which does not exist; numbers need a data set"):
        label_matrix(options, record(["3", "5", "3"]))  # no list of all classes: a number could mean anything
    path.write_text('{"x": ["dgo"]}')
    with pytest.raises(InputError, match="dgo") as raised:
        label_matrix(options, record(["dog", "cat"]))
    assert "`dog`" in str(raised.value.hint)


def test_empty_labels_are_no_class() -> None:
    found = label_matrix(ConceptOptions(method="le-label"), record(["a", "", "b", " "]))
    assert columns(found) == {"a": [1, 0, 0, 0], "b": [0, 0, 1, 0]}
    assert found.notes == ["2 samples have an empty label, which is no class"]
    with pytest.raises(InputError, match="all labels"):
        label_matrix(ConceptOptions(method="le-label"), record(["", ""]))


def published(monkeypatch: pytest.MonkeyPatch, folder: Path | None, classes: list[str]) -> None:
    class Whole:
        class_names = classes

    monkeypatch.setattr(labels_room, "content_folder", lambda *_: folder)
    monkeypatch.setattr(labels_room, "open_dataset", lambda *_, **__: Whole())


def test_published_names_and_superclasses_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = tmp_path / "concept_sets"
    sets.mkdir()
    (sets / "cifar100_labels_clean.txt").write_bytes(b"red apple\rfish\rbaby")
    (sets / "cifar100_superclass_to_ids.json").write_text('{"living_thing": [1, 2]}')
    published(monkeypatch, tmp_path, ["apple", "aquarium_fish", "baby"])
    samples = record(["baby", "apple"], "cifar100")
    found = label_matrix(ConceptOptions(method="le-label"), samples)
    assert columns(found) == {"red apple": [0, 1], "fish": [0, 0], "baby": [1, 0], "living thing": [1, 0]}
    assert "3 published class names and 1 superclass of cifar100" in found.notes[0]
    own = label_matrix(ConceptOptions(method="le-label", parameters={"published": False}), samples)
    assert list(own.names) == ["apple", "aquarium_fish", "baby"]
    assert own.identity() != found.identity()
    published(monkeypatch, None, ["apple", "aquarium_fish", "baby"])
    missing = label_matrix(ConceptOptions(method="le-label"), samples)
    assert list(missing.names) == ["apple", "aquarium_fish", "baby"]
    assert "rdx download linear-explanations" in missing.notes[0]


@pytest.mark.shared
def test_label_concepts_of_the_paper(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """119 concepts for CIFAR-100 and 1,400 for ImageNet, of which the activity filter leaves 1,399."""
    folder = shared / "reference" / "linear_explanations"
    for name, classes, concepts in (("cifar100", 100, 119), ("imagenet", 1000, 1400), ("places365", 365, 365)):
        listed = [f"k{i}" for i in range(classes)]
        published(monkeypatch, folder, listed)
        found = label_matrix(ConceptOptions(method="le-label"), record(listed, name))
        assert found.values.shape == (classes, concepts)


# ---------------------------------------------------------------- what survives a kill


def test_a_killed_run_goes_on_with_its_finished_blocks(tmp_path: Path) -> None:
    """Killed after its first block; the second run takes that block from the disk and ends with the same table."""
    rng = np.random.default_rng(0)
    P = (rng.random((500, 40)) < 0.3).astype(float)
    np.save(tmp_path / "c.npy", P)
    (tmp_path / "names.txt").write_text("".join(f"c{i}\n" for i in range(40)))
    np.save(tmp_path / "acts.npy", P @ rng.normal(size=(40, 40)) + rng.normal(size=(500, 40)))
    held = (
        "import os, time, pathlib, rdxcli.methods.neurons.linear as m\n"
        "m.BLOCK = 10\n"
        "first = m.LinearExplanation._choose\n"
        "def choose(self, *args):\n"
        "    blocks = [path for path in pathlib.Path('o').rglob('blocks/*.npz') if 'tmp' not in path.name]\n"
        "    if 'HOLD' in os.environ and len(blocks) >= 2:\n"
        "        pathlib.Path('held').touch()\n"
        "        time.sleep(600)\n"
        "    return first(self, *args)\n"
        "m.LinearExplanation._choose = choose\n"
    )
    arguments = ["explain", "--method", "le-label", "--activations", "acts.npy", *CONCEPTS, "--outputs"]
    process = Forked(*arguments, "o", cwd=tmp_path, code=held, HOLD="1")
    process.until((tmp_path / "held").exists)
    process.kill()
    blocks = [path for path in tmp_path.glob("o/**/blocks/*.npz") if "tmp" not in path.name]
    kept = {path.name: path.stat().st_mtime_ns for path in blocks}
    done = rdx_forked(*arguments, "o", cwd=tmp_path, code=held)
    assert done.returncode == 0, done.stderr
    assert "continuing the interrupted run" in done.stderr
    assert len(kept) >= 2
    text = (next(tmp_path.glob("o/**/explanations.csv"))).read_text()
    assert not list(tmp_path.glob("o/**/blocks"))
    fresh = rdx_forked(*arguments, "fresh", cwd=tmp_path, code=held)
    assert fresh.returncode == 0, fresh.stderr
    assert next(tmp_path.glob("fresh/**/explanations.csv")).read_text() == text


def test_logical_formulas_from_the_command_to_the_simulation(tmp_path: Path) -> None:
    write(tmp_path, 0, n=400)
    C = np.load(tmp_path / "c.npy")
    rng = np.random.default_rng(1)
    np.save(
        tmp_path / "acts.npy", np.c_[C[:, 0] + C[:, 3], 1 - C[:, 1], np.zeros(400)] + 0.3 * rng.normal(size=(400, 3))
    )
    document = explain(tmp_path, "--labels", "y.txt", method="logical")
    texts = [unit["concepts"][0]["concept"] if unit["concepts"] else None for unit in document["units"]]
    assert texts[0] in ("dog OR tree", "tree OR dog")
    assert document["units"][0]["scores"]["test correlation"] > 0.7
    assert document["units"][0]["scores"]["q value"] <= 0.05
    found = simulate(tmp_path, "--labels", "y.txt", "--method", "logical")
    assert found["methods"][0]["units"][0]["score"] == pytest.approx(
        document["units"][0]["scores"]["test correlation"], abs=1e-6
    )
    explain(tmp_path, "--labels", "y.txt")
    both = simulate(tmp_path, "--labels", "y.txt", "--method", "all")
    assert {entry["method"] for entry in both["methods"]} == {"logical", "le-label"}
    page = rdx_here("visualize", document["artifact"], cwd=tmp_path)
    assert "OR" in whole_page(page.stdout.strip())


def test_all_explainers_of_units_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, 0, n=400)
    rng = np.random.default_rng(2)
    acts = np.c_[np.load(tmp_path / "acts.npy"), np.load(tmp_path / "c.npy")[:, 2:] + 0.3 * rng.normal(size=(400, 2))]
    np.save(tmp_path / "acts.npy", acts)
    arguments = ["explain", "--method", "all", "--activations", "acts.npy", *CONCEPTS]
    done = rdx_here(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "simulation"
    assert [entry["method"] for entry in document["methods"]] == ["le-label", "logical", "clip-dissect"]
    assert {entry["common"]["count"] + entry["common"]["undefined"] for entry in document["methods"]} == {5}
    assert len(document["pairs"]) == 3
    assert any("clip-dissect: the explanations were found on all images" in note for note in document["notes"]), (
        document["notes"]
    )
    again = rdx_here(*arguments, cwd=tmp_path)
    assert "le-label against logical: " in again.stderr
    assert "(Holm)" in again.stderr
    assert again.stderr.count("reusing") >= 4
    page = rdx_here("visualize", document["artifact"], cwd=tmp_path)
    assert "Paired differences" in whole_page(page.stdout.strip())
    shown = Path(page.stdout.strip()).read_text("utf-8")
    assert "Units side by side" in shown
    assert document["methods"][0]["units"][0]["text"] in shown
    named = rdx_here(*arguments, "--run", "mine", "--json", cwd=tmp_path)
    assert named.returncode == 0, named.stderr
    assert Path(json.loads(named.stdout)["artifact"]).name == "mine"
    wrong = rdx_here(*arguments, "--param", "depth=3", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "--param depth: none of le-label, logical, clip-dissect has it" in " ".join(wrong.stderr.split())
    nothing = rdx_here("explain", "--method", "all", "--activations", "acts.npy", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "needs something to explain units with" in " ".join(nothing.stderr.split())
    planned = rdx_here(*arguments, "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr


def test_units_are_found_by_class_and_by_concept(tmp_path: Path) -> None:
    write(tmp_path, 0, n=400)
    found = explain(tmp_path, "--labels", "y.txt", "--param", "query=cat", method="find-units")
    assert found["units"][0]["unit"] == 1
    assert found["units"][0]["scores"]["q value"] <= 0.05
    assert found["units"][2]["status"] == "not better than chance"
    other = explain(tmp_path, *CONCEPTS, "--param", "query=dog", "--run", "dog", method="find-units")
    assert other["units"][0]["unit"] == 0
    assert "respond to `dog` more than chance" in other["notes"][-1]
    said = explain(tmp_path, *CONCEPTS, "--param", "query=dgo", "--run", "x", method="find-units", ok=False)["error"]
    assert "dog" in said
    for more in ([], ["--param", "query=dog", "--file", "image=x.png"], ["--file", "image=x.png"]):
        assert explain(tmp_path, *CONCEPTS, *more, method="find-units", ok=False)["error"]
    explain(tmp_path, *CONCEPTS)
    assert [entry["method"] for entry in simulate(tmp_path, *CONCEPTS, "--method", "all")["methods"]] == ["le-label"]
    assert rdx_here("visualize", found["artifact"], cwd=tmp_path).returncode == 0


def test_explanations_are_judged_by_images_of_their_concepts(tmp_path: Path) -> None:
    """Images of three digits in folders; units of the embedded model, explained by labels, on other digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for digit in (0, 3, 7):
        (tmp_path / "shown" / str(digit)).mkdir(parents=True)
        for i in np.flatnonzero(labels == digit)[-12:]:
            pixels = (images[i].reshape(8, 8) / 16 * 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shown" / str(digit) / f"{i}.png")
    base = ["--model", "digits-cnn", "--limit", "600", "--outputs", tmp_path / "o", "--json"]
    assert rdx_here("explain", "--method", "le-label", *base).returncode == 0
    arguments = ["simulate", "--method", "le-label", *base, "--scoring", "images"]
    done = rdx_here(*arguments, "--file", f"concept_images={tmp_path / 'shown'}")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    units = document["methods"][0]["units"]
    scored = [unit for unit in units if unit["score"] is not None]
    assert {unit["concept"] for unit in scored} <= {"0", "3", "7"}
    assert float(np.mean([unit["score"] for unit in scored])) > 0.7
    assert all(unit["low"] <= unit["score"] <= unit["high"] for unit in scored)
    assert document["summary"]["undefined"] == len(units) - len(scored)
    assert rdx_here("visualize", document["artifact"], "--outputs", tmp_path / "o").returncode == 0
    missing = rdx_here(*arguments, "--run", "x")
    assert missing.returncode == 2
    assert "concept_images=FOLDER" in " ".join(missing.stderr.split())
    none = rdx_here(*arguments, "--run", "x", "--file", "concept_images=nowhere")
    assert "no such folder" in none.stderr


def test_an_interrupted_ablation_goes_on_with_its_finished_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    np.save(tmp_path / "acts.npy", np.eye(4)[y][:, rng.integers(0, 4, 20)] + 0.3 * rng.normal(size=(200, 20)))
    np.savez(tmp_path / "head.npz", weight=rng.normal(size=(4, 20)), bias=np.zeros(4))
    (tmp_path / "y.txt").write_text("".join(f"{k}\n" for k in y))
    (tmp_path / "t.csv").write_text("unit,description\n" + "".join(f"{k},{k % 4}\n" for k in range(20)))
    options = SimulateOptions(
        explanations=(str(tmp_path / "t.csv"),),
        scoring="ablation",
        bootstraps=0,
        activations=str(tmp_path / "acts.npy"),
        arrays=ArrayOptions(labels=tmp_path / "y.txt"),
        files={"head": str(tmp_path / "head.npz")},
        parameters={"steps": 3},
        outputs=tmp_path / "o",
    )
    whole = SimulateAnalysis(options).run().document["methods"][0]["units"]
    calls: list[int] = []
    real = ablation_room.ablation_scores

    def dies(*args: object, stop: int, **more: object) -> object:
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return real(*args, **more)

    again = replace(options, run="again")
    monkeypatch.setattr(ablation_room, "ablation_scores", partial(dies, stop=2))
    with pytest.raises(KeyboardInterrupt):
        SimulateAnalysis(again).run()
    calls.clear()
    monkeypatch.setattr(ablation_room, "ablation_scores", partial(dies, stop=99))
    found = SimulateAnalysis(again).run().document["methods"][0]["units"]
    assert len(calls) == 1  # of three blocks, two were kept
    assert found == whole
