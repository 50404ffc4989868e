"""``rdx compare`` as a user runs it: good input, bad input, pipes, gates, reuse."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import browse, rdx_here
from processes import rdx_forked

from rdxcli.artifacts import find_artifacts


@pytest.fixture(scope="module")
def digits_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of the golden planted pair as plain files: a.npy, b.npy, y.npy."""
    golden = Path(os.environ.get("RDX_GOLDEN", Path(__file__).parents[1] / "golden" / "data"))
    arrays = np.load(golden / "rdx" / "digits.npz")
    folder = tmp_path_factory.mktemp("pair")
    for name, key in (("a", "inputs__R0"), ("b", "inputs__R1"), ("y", "inputs__labels")):
        np.save(folder / f"{name}.npy", arrays[key])
    return folder


def _mixed(document: dict, side: str) -> list[dict]:
    """Concepts of one side that hold 3s and 5s and little else."""
    return [
        concept
        for concept in document["concepts"]
        if concept["closer_in"] == side
        and min(concept["labels"].get("3", 0), concept["labels"].get("5", 0)) > 0.15
        and concept["labels"].get("3", 0) + concept["labels"].get("5", 0) > 0.85
    ]


def test_the_embedded_models_give_the_known_answer(tmp_path: Path) -> None:
    for seed in (0, 1):
        out = ["--outputs", str(tmp_path / "outputs"), "--run", f"seed{seed}", "--seed", str(seed)]
        quick = (
            ["--no-test", "--bootstraps", "0"] if seed else ["--bootstraps", "2"]
        )  # one test of significance is enough
        done = rdx_here("compare", "digits-cnn-m35", "digits-cnn", "--k", "3", "--json", *quick, *out)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["difference"]["verdict"] == ("not tested" if seed else "difference found")
        assert sum(concept["size"] for concept in _mixed(document, "a")) > 250  # of 365 3s and 5s
        assert not _mixed(document, "b")[2:]
        assert "3 " in done.stderr
    path = rdx_here("visualize", "--outputs", str(tmp_path / "outputs")).stdout.strip()
    assert Path(path).read_text("utf-8").count('<img src="data:image/png') >= 9 * len(document["concepts"])


def test_a_model_against_itself(tmp_path: Path) -> None:
    done = rdx_here("compare", "digits-cnn", "digits-cnn", "--sample", "600", "--json", "--outputs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["difference"]["verdict"] == "no difference found"
    assert document["difference"]["score"] == 0


def test_arrays_need_no_model(digits_pair: Path, tmp_path: Path) -> None:
    quick = ["--no-test", "--bootstraps", "0"]
    arguments = ["compare", "a.npy", "b.npy", "--k", "3", "--labels", "y.npy", *quick, "--outputs", str(tmp_path)]
    done = rdx_forked(*arguments, "--json", cwd=digits_pair)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "comparison"
    assert sum(concept["size"] for concept in _mixed(document, "a")) > 250
    folder = Path(document["artifact"])
    assert json.loads((folder / "concepts.json").read_text()) == document
    arrays = np.load(folder / "arrays.npz")
    for concept in document["concepts"]:
        members = arrays[f"labels_{concept['closer_in']}"] == concept["index"]
        assert members.sum() == concept["size"]
        assert members[concept["samples"]].all()
    assert set(arrays["shown"]) == {row for concept in document["concepts"] for row in concept["samples"]}
    for side in "ab":
        values = np.load(digits_pair / f"{side}.npy").astype(np.float64)
        far = np.linalg.norm(values[arrays["shown"]][:, None] - values, axis=2)
        kept = np.take_along_axis(far, arrays[f"neighbours_{side}"].astype(int), axis=1)
        assert (arrays[f"neighbours_{side}"] != arrays["shown"][:, None]).all()
        assert kept == pytest.approx(np.sort(far, axis=1)[:, 1:7], abs=1e-4)
    again = rdx_here(*arguments, cwd=digits_pair)
    assert again.stdout.strip() == str(folder)
    assert "reusing" in again.stderr
    other = rdx_here(*arguments, "--gamma", "0.05", cwd=digits_pair)
    assert other.returncode == 1
    assert "parameters.gamma: 0.1 -> 0.05" in other.stderr
    assert "--run" in other.stderr
    (tmp_path / "said").write_text(str(folder))
    piped = rdx_forked("visualize", "-", "--outputs", str(tmp_path), stdin=tmp_path / "said", cwd=digits_pair)
    assert Path(piped.stdout.strip()).is_file()


def test_rows_are_joined_by_id(digits_pair: Path, tmp_path: Path) -> None:
    a, b = np.load(digits_pair / "a.npy")[:200], np.load(digits_pair / "b.npy")[:200]
    ids = np.array([f"img{i:03d}" for i in range(200)])
    order = np.random.default_rng(0).permutation(190)
    np.savez(tmp_path / "a.npz", values=a, sample_ids=ids)
    np.savez(tmp_path / "b.npz", values=b[order], sample_ids=ids[order])
    np.save(tmp_path / "a190.npy", a[:190])
    np.save(tmp_path / "b190.npy", b[:190])
    common = ["--no-test", "--json", "--outputs", str(tmp_path / "outputs")]
    shuffled = rdx_here("compare", "a.npz:values", "b.npz:values", *common, cwd=tmp_path)
    assert shuffled.returncode == 0, shuffled.stderr
    assert "10 of 200 samples" in shuffled.stderr
    ordered = json.loads(rdx_here("compare", "a190.npy", "b190.npy", *common, cwd=tmp_path).stdout)
    found = json.loads(shuffled.stdout)
    assert found["samples"]["missing_in_b"] == 10
    assert [c["samples"] for c in found["concepts"]] == [c["samples"] for c in ordered["concepts"]]
    assert found["concepts"][0]["sample_ids"][0].startswith("img")


def test_gate(digits_pair: Path, tmp_path: Path) -> None:
    arguments = ["compare", "a.npy", "b.npy", "--bootstraps", "0", "--sample", "500", "--outputs", str(tmp_path)]
    assert rdx_here(*arguments, "--fail-above", "0.99", cwd=digits_pair).returncode == 0
    done = rdx_here(*arguments, "--fail-above", "0.1", cwd=digits_pair)
    assert done.returncode == 3
    assert "is above 0.1" in done.stderr
    assert done.stdout.strip()  # the result is printed all the same
    assert rdx_here(*arguments, "--no-test", "--fail-above", "0.1", "--run", "x", cwd=digits_pair).returncode == 2


def test_dry_run_touches_nothing(digits_pair: Path, tmp_path: Path) -> None:
    done = rdx_here("compare", "a.npy", "b.npy", "--dry-run", "--outputs", str(tmp_path / "outputs"), cwd=digits_pair)
    assert done.returncode == 0, done.stderr
    assert "1797" in done.stdout
    assert "peak memory" in done.stdout
    assert "approximate:" not in done.stdout
    assert not (tmp_path / "outputs").exists()
    models = rdx_here(
        "compare", "digits-cnn", "digits-cnn-m49", "--dry-run", "--json", "--outputs", str(tmp_path / "outputs")
    )
    assert json.loads(models.stdout)["images"] == 1797
    assert not (tmp_path / "outputs").exists()


def test_an_approximate_comparison_says_so(digits_pair: Path, tmp_path: Path) -> None:
    arguments = [
        "compare",
        "a.npy",
        "b.npy",
        "--labels",
        "y.npy",
        "--approximate",
        "always",
        "--param",
        "landmarks=800",
    ]
    planned = rdx_here(*arguments, "--dry-run", "--outputs", str(tmp_path), cwd=digits_pair)
    assert "approximate: yes" in planned.stdout
    quick = ["--no-test", "--bootstraps", "2", "--json", "--outputs", str(tmp_path)]
    done = rdx_here(*arguments, *quick, cwd=digits_pair)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert sum(concept["size"] for concept in _mixed(document, "a")) > 250
    for text in ("800 of 1,797 images are landmarks", "agreement with the exact method on all 1,797 images"):
        assert any(text in note for note in document["notes"])
        assert text in " ".join(done.stderr.split())
    assert 0.5 < document["scores"]["approximation_rand_a"] <= 1.0
    assert {"approximation_shown_b", "approximation_angle_b"} <= set(document["scores"])


def test_concepts_that_landmarks_do_not_find_are_denied_wherever_they_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, 20))
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", values + rng.normal(size=values.shape))
    quick = ["--approximate", "always", "--landmarks", "60", "--k", "4", "--no-test", "--bootstraps", "0"]
    done = rdx_here("compare", "a.npy", "b.npy", *quick, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    weak = {side: one for side, one in document["reliability"].items() if not one["reliable"]}
    assert weak
    said = " ".join(done.stderr.split())
    for side, one in weak.items():
        assert one["agreement"] == document["scores"][f"approximation_rand_{side}"] < 0.7
        assert one["reason"].startswith(f"concepts of {side}: not reliable at this size")
        assert "use --landmarks 120" in one["reason"]
        assert one["reason"] in said
        assert not any(one["reason"] in note for note in document["notes"])  # once
    layers = rdx_here(
        *("compare", "a.npy", "b.npy", "a.npy", "--pairs", "1", *quick, "--json", "--run", "many"), cwd=tmp_path
    )
    assert layers.returncode == 0, layers.stderr
    [pair] = json.loads(layers.stdout)["pairs"]
    assert any(
        one["reason"] and one["reason"] in " ".join(layers.stderr.split()) for one in pair["reliability"].values()
    )


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        ("good.npy", "good.npy", ["--approximate", "perhaps"], "approximate `perhaps`"),
        ("good.npy", "good.npy", ["--method", "pca", "--approximate", "always"], "no parameter `approximate`"),
        ("nowhere.npy", "good.npy", [], "nowhere.npy"),
        ("nan.npy", "good.npy", [], "row"),
        ("short.npy", "good.npy", [], "rows"),
        ("good.npy", "good.npy", ["--k", "40"], "--k 40"),
        ("constant.npy", "good.npy", [], "constant"),
        ("one.npy", "one.npy", [], "row"),
        ("flat.npy", "good.npy", [], "shape"),
        ("text.npy", "good.npy", [], "text.npy"),
        ("object.npy", "good.npy", [], "object.npy"),
        ("digits-cmn", "digits-cnn", [], "digits-cnn"),
        ("digits-cnn", "digits-cnn", ["--layer-a", "conv3"], "conv2"),
        ("good.npy", "good.npy", ["--labels", "short.npy"], "labels"),
        ("good.npy", "good.npy", ["--method", "rdxx"], "`rdx`"),
        ("good.npy", "good.npy", ["--param", "gama=1"], "gamma"),
        ("good.npy", "good.npy", ["--param", "gamma"], "NAME=VALUE"),
        ("good.npy", "good.npy", ["--gamma", "-1"], "gamma"),
        ("good.npy", "good.npy", ["--guidance", "labels"], "--labels"),
        ("good.npy", "good.npy", ["--guidance", "maybe"], "guidance"),
        ("good.npy", "good.npy", ["--device", "cuda:99"], "cuda"),
        ("timm:resnet18_nothing", "good.npy", ["--dataset", "digits"], "resnet18"),
        ("good.npz:b", "good.npy", [], "keys are: a"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, a: str, b: str, options: list[str], words: str) -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(size=(30, 4))
    broken = good.copy()
    broken[[3, 7], 1] = np.nan
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "nan.npy", broken)
    np.save(tmp_path / "short.npy", good[:20])
    np.save(tmp_path / "constant.npy", np.ones((30, 4)))
    np.save(tmp_path / "one.npy", good[:1])
    np.save(tmp_path / "flat.npy", good[0])
    np.savez(tmp_path / "good.npz", a=good)
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "object.npy", np.array([{"a": 1}] * 30, dtype=object), allow_pickle=True)
    done = rdx_here("compare", a, b, *options, "--outputs", "outputs", cwd=tmp_path)
    assert done.returncode in (1, 2), done.stdout
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert words in " ".join(done.stderr.split())
    assert not find_artifacts(tmp_path / "outputs", "comparison")
    assert not list(tmp_path.rglob("*.partial"))


def test_k_of_one_works(digits_pair: Path, tmp_path: Path) -> None:
    done = rdx_here(
        "compare", "a.npy", "b.npy", "--k", "1", "--no-test", "--json", "--outputs", str(tmp_path), cwd=digits_pair
    )
    assert done.returncode == 0, done.stderr
    assert [c["index"] for c in json.loads(done.stdout)["concepts"]] == [1, 1]


@pytest.mark.browser
def test_the_report_of_real_digits_in_a_browser(digits_pair: Path, tmp_path: Path) -> None:
    made = rdx_here(
        *(
            "compare",
            "a.npy",
            "b.npy",
            "--dataset",
            "digits",
            "--no-test",
            "-q",
            "--outputs",
            str(tmp_path / "outputs"),
        ),
        cwd=digits_pair,
    )
    assert made.returncode == 0, made.stderr
    report = rdx_here("visualize", made.stdout.strip(), "--outputs", str(tmp_path / "outputs"), cwd=digits_pair)
    dom, _ = browse(Path(report.stdout.strip()), tmp_path)
    drawn = re.search(r'data-images="(\d+)/(\d+)"', dom)
    assert drawn is not None
    concepts = json.loads((tmp_path / made.stdout.strip() / "concepts.json").read_text("utf-8"))["concepts"]
    assert drawn[1] == drawn[2]
    assert 9 * len(concepts) <= int(drawn[2]) + 9  # an image in two grids is drawn once
    assert 'data-maps-drawn="4"' in dom


def test_a_broken_image_is_left_out_and_said(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / "photos" / ("x" if i % 2 else "y")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    (tmp_path / "photos" / "x" / "zz.png").write_text("broken")
    arguments = ["compare", "digits-cnn", "digits-cnn-m35", "--dataset", f"folder:{tmp_path / 'photos'}", "--no-test"]
    done = rdx_here(*arguments, "--k", "2", "--json", "--outputs", str(tmp_path / "outputs"))
    assert done.returncode == 4, done.stderr
    document = json.loads(done.stdout)
    assert document["n"] == 24
    assert document["samples"]["failed"] == ["x/zz.png"]
    assert "1 image that could not be read" in " ".join(document["notes"])


def test_a_model_without_some_of_its_columns(tmp_path: Path) -> None:
    """Column 0 alone separates two groups: without it they are one group, and only there."""
    rng = np.random.default_rng(0)
    kinds = np.arange(300) % 3
    values = rng.normal(size=(300, 6))
    values[:, 0] += 8 * (kinds == 1)
    values[:, 1] += 8 * (kinds == 2)
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "y.npy", kinds)
    base = ["compare", "x.npy", "x.npy", "--labels", "y.npy", "--k", "1", "--json", "--bootstraps", "0"]
    done = rdx_here(*base, "--drop-a", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["a"]["name"] == "x-without-0"
    assert document["a"]["d"] == 5
    assert document["difference"]["verdict"] == "difference found"
    [merged] = [concept for concept in document["concepts"] if concept["closer_in"] == "a"]
    assert min(merged["labels"]["0"], merged["labels"]["1"]) > 0.3
    assert "x-without-0--x" in document["artifact"]
    for columns, message in (("6", "outside of 0 to 5"), ("0-5", "no column"), ("first", "cannot read")):
        refused = rdx_here(*base, "--drop-b", columns, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "--drop-b" in refused.stderr
