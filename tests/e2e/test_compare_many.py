"""``rdx compare`` of many layers and many models as a user runs it: good input, bad input, pages, Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import browse, document_of, rdx_here

import rdxcli as rdx

N = 120
QUICK = ("--no-test", "--bootstraps", "0")


def _network(merged_at: set[int], seed: int, places: int = 4) -> dict[str, np.ndarray]:
    """Layers of a made-up network for six classes; at some places the last two classes are one."""
    classes, rng = np.repeat(np.arange(6), N // 6), np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(6, 8)) * 3
    layers = {}
    for place in range(places):
        seen = np.where(classes == 5, 4, classes) if place in merged_at else classes
        layers[f"layer{place}"] = (centres[seen] + rng.normal(size=(N, 8))) @ rng.normal(size=(8, 12))
    return layers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    labels = np.repeat(np.arange(6), N // 6)
    np.savez(folder / "a.npz", labels=labels, **_network({0, 1}, 0))
    np.savez(folder / "b.npz", labels=labels, **_network(set(), 1))
    np.save(folder / "y.npy", labels)
    for place, values in enumerate(_network({0, 1}, 2).values()):
        (folder / f"epoch{place}").mkdir()
        np.save(folder / f"epoch{place}" / "features.npy", values)
    for seed in (3, 4, 5):
        np.save(folder / f"seed{seed}.npy", _network(set(), seed)["layer0"])
    return folder


def _run(files: Path, tmp_path: Path, *arguments: object) -> dict:
    return document_of("compare", *arguments, "--outputs", tmp_path, cwd=files)


def test_layers_of_two_files_of_arrays(files: Path, tmp_path: Path) -> None:
    document = _run(files, tmp_path, "a.npz", "b.npz", "--layers", "all", "--pairs", "1", "--bootstraps", "0")
    assert document["kind"] == "similarities"
    assert [row["layer"] for row in document["rows"]] == [f"layer{i}" for i in range(4)]
    assert not document["symmetric"]
    assert set(document["measures"]) == {"cka", "mutual_knn", "rsa", "score"}
    assert np.shape(document["measures"]["cka"]["values"]) == (4, 4)
    [pair] = document["pairs"]
    assert pair["row"] == pair["column"] in (0, 1)  # where the two differ by what was planted
    assert pair["difference"]["verdict"] == "difference found"
    merged = [c for c in pair["concepts"] if c["closer_in"] == "a" and {"4", "5"} == set(list(c["labels"])[:2])]
    assert merged
    repeat = document["parameters"]["repeat"]
    assert (repeat["rows"][2], repeat["by_layer"]) == ("a.npz:layer2", False)
    alone = rdx_here("compare", repeat["rows"][0], repeat["columns"][1], *QUICK, "--outputs", tmp_path, cwd=files)
    assert alone.returncode == 0, alone.stderr
    path = Path(rdx_here("visualize", document["artifact"], "--outputs", tmp_path).stdout.strip())
    text, shot = browse(path, tmp_path)
    assert shot.stat().st_size > 1000
    assert text.count('class="heatmap"') == 4
    assert 'id="pair-0"' in text
    for form in ("png", "svg"):
        drawn = rdx_here("visualize", document["artifact"], "--format", form, "--outputs", tmp_path)
        assert Path(drawn.stdout.strip()).stat().st_size > 5000, drawn.stderr


def test_a_walk_through_the_depth_of_one_model(files: Path, tmp_path: Path) -> None:
    document = _run(files, tmp_path, "a.npz", "--layers", "consecutive")
    assert [(pair["row"], pair["column"]) for pair in document["pairs"]] == [(0, 1), (1, 2), (2, 3)]
    parted = [c for c in document["pairs"][1]["concepts"] if c["closer_in"] == "b" and max(c["labels"].values()) > 0.9]
    assert {next(iter(c["labels"])) for c in parted} & {"4", "5"}  # apart from layer2 on
    apart = [one for one in document["followed"] if one["appears"] == 1]
    assert apart
    for one in document["followed"]:
        assert len(one["togetherness"]) == 4
        assert 0 < one["chance"] < 1
    table = rdx_here("compare", "a.npz", "--layers", "consecutive", "--outputs", tmp_path, cwd=files).stderr
    assert "layer1" in table
    assert "chance" in table
    assert "reusing" in table


def test_checkpoints_and_runs(files: Path, tmp_path: Path) -> None:
    epochs = [f"epoch{i}/features.npy" for i in range(4)]
    document = _run(files, tmp_path, *epochs, "--timeline", "--labels", "y.npy", *QUICK)
    assert [row["name"] for row in document["rows"]] == [f"epoch{i}/features" for i in range(4)]
    assert [pair["why"] for pair in document["pairs"]] == ["neighbours"] * 3
    assert document["followed"]
    runs = [word for seed in (3, 4, 5) for word in ("--reference-runs", f"seed{seed}.npy")]
    document = _run(files, tmp_path, epochs[0], epochs[3], *runs, "--pairs", "0", *QUICK)
    assert document["reference"]["pairs"] == 3
    low, high = (document["reference"]["measures"]["score"][name] for name in ("low", "high"))
    assert 0 < low <= high < 1
    assert len(document["rows"]) == 2
    value = document["measures"]["score"]["values"][0][1]
    assert document["reference"]["exceeded"][0][1] == (value > high)
    assert sorted(document["tree"]["order"]) == [0, 1]
    done = rdx_here("visualize", document["artifact"], "--outputs", tmp_path)
    text = Path(done.stdout.strip()).read_text("utf-8")
    assert "Which models are alike" in text
    assert "beside the runs" in text


def test_layers_of_embedded_models_and_python(tmp_path: Path) -> None:
    found = rdx.compare(
        "digits-cnn", layers="conv2.*,fc", sample=80, pairs=0, device="cpu", outputs=tmp_path, test=False
    )
    assert [row["layer"] for row in found.rows] == ["conv2.0", "conv2.1", "conv2.2", "conv2.3", "fc"]
    assert found.symmetric
    assert found.parameters["repeat"]["by_layer"]
    layers = _network(set(), 6)
    again = rdx.compare(layers, dict(list(layers.items())[:2]), layers="all", pairs=1, test=False, bootstraps=0)
    np.testing.assert_allclose(np.diag(again.measures["cka"]["values"]), 1.0, atol=1e-4)
    assert "pair" in repr(again._repr_html_()) or again.pairs
    many = rdx.compare(*layers.values(), pairs=0, test=False)
    assert many.of == "models"
    assert len(many.rows) == 4


def test_a_dry_run_reads_no_image(files: Path, tmp_path: Path) -> None:
    done = rdx_here("compare", "a.npz", "b.npz", "--layers", "all", "--dry-run", "--outputs", tmp_path, cwd=files)
    assert done.returncode == 0, done.stderr
    assert "16 (4 x 4)" in done.stdout
    done = rdx_here("compare", "digits-cnn", "--layers", "consecutive", "--dry-run", "--outputs", tmp_path)
    assert "9 layers" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.npz",), "which second one"),
        (("a.npz", "b.npz", "--layers", "layer7"), "layer3"),
        (("a.npz", "b.npz", "--layers", "consecutive"), "one model"),
        (("a.npz", "--timeline"), "several models"),
        (("y.npy", "y.npy", "y.npy", "--fail-on", "verdict"), "--fail-on means nothing"),
        (("a.npz", "b.npz", "--layers", "all", "--guidance", "labels"), "--guidance means nothing"),
        (("a.npz", "b.npz", "--layers", "all", "--layer-a", "x"), "contradict"),
        (("a.npz", "b.npz", "--layers", "all", "--method", "all"), "name one method"),
        (("seed3.npy", "seed4.npy", "--reference-runs", "seed5.npy"), "at least two"),
        (("seed3.npy", "--layers", "all"), "one array"),
        (("a.npz:layer0", "--layers", "all"), "one layer"),
        (("a.npz", "b.npz", "a.npz", "--layers", "all"), "one layer each"),
        (("seed3.npy", "seed4.npy", "seed5.npy", "--labels-a", "y.npy"), "--labels for all"),
    ],
)
def test_what_makes_no_sense_is_said(files: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = rdx_here("compare", *arguments, "--outputs", tmp_path, cwd=files)
    assert done.returncode in (1, 2)
    assert said in done.stderr.replace("\n", " "), done.stderr
    assert not done.stdout


def test_columns_of_tables_are_chosen_in_a_comparison(files: Path, tmp_path: Path) -> None:
    values = _network(set(), 7)["layer0"]
    for name, columns in (("a", 5), ("b", 4)):
        lines = ["key,age," + ",".join(f"f{i}" for i in range(columns))]
        lines += [f"s{row},{row}," + ",".join(map(str, values[row, :columns])) for row in range(N)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    chosen = ("--feature-columns", "f*", "--id-column", "key")
    done = rdx_here("compare", "a.csv", "b.csv", *chosen, *QUICK, "--json", "--outputs", tmp_path / "o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["a"]["d"], document["b"]["d"]) == (5, 4)
    assert document["samples"]["by"] == "id"


def test_where_in_the_images(files: Path, tmp_path: Path) -> None:
    arguments = ("digits-cnn-m35", "digits-cnn", "--sample", "120", "--k", "1", "--patches", *QUICK)
    document = _run(files, tmp_path, *arguments, "--device", "cpu")
    sides, concepts = document["patches"]["sides"], document["patches"]["concepts"]
    assert sides["a"]["grid"] == sides["b"]["grid"]
    assert set(concepts) == {f"{c['closer_in']}{c['index']}" for c in document["concepts"]}
    arrays = np.load(Path(document["artifact"]) / "arrays.npz")
    places = concepts["a1"]["images"] * int(np.prod(sides["a"]["grid"]))
    assert arrays["patches_a.a1"].shape == (places, places)
    assert concepts["a1"]["a"]["boxes"][0] == [0, 0, 1, 1]
    path = Path(rdx_here("visualize", document["artifact"], "--outputs", tmp_path).stdout.strip())
    text, _ = browse(path, tmp_path)
    assert text.count('<details class="patches">') == len(concepts)
    flat = rdx_here("compare", *arguments, "--layer-b", "fc", "--outputs", tmp_path / "fresh")
    assert "has no places" in flat.stderr
    assert "extracting" not in flat.stderr  # said before the work
    assert not list((tmp_path / "fresh").rglob("manifest.json"))
    arrays_only = rdx_here("compare", "seed3.npy", "seed4.npy", "--patches", "--outputs", tmp_path, cwd=files)
    assert "is no model" in arrays_only.stderr
