"""``rdx compare`` with other methods than RDX, and the scoreboard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import printed, rdx_here

from rdxcli.methods.difference.baselines.usae import USAE

QUICK = ["--no-test", "--bootstraps", "0", "--json"]
SMALL = [
    *("--param", "sae.epochs=3", "--param", "topk-sae.epochs=3", "--param", "usae.epochs=3"),
    *("--param", "nlmcd.components=null"),
]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blobs 0 to 3 of 40 images; model a merges 2 and 3, model b does not. Some features are negative."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 40)
    centres = 6.0 * np.eye(4, 6)
    folder = tmp_path_factory.mktemp("blobs")
    np.save(folder / "a.npy", centres[np.where(group == 3, 2, group)] + rng.normal(size=(160, 6)))
    np.save(folder / "b.npy", centres[group] + rng.normal(size=(160, 6)))
    np.save(folder / "y.npy", group)
    return folder


def _run(arrays: Path, out: Path, *arguments: str) -> dict:
    return json.loads(printed("compare", "a.npy", "b.npy", "--outputs", out, *QUICK, *arguments, cwd=arrays))


def test_a_baseline_alone(arrays: Path, tmp_path: Path) -> None:
    document = _run(arrays, tmp_path, "--method", "kmeans", "--labels", "y.npy", "--planted", "2,3")
    assert document["method"] == "kmeans"
    assert all(concept["affinity"] is None for concept in document["concepts"])
    assert [c["index"] for c in document["concepts"]] == [1, 2, 3, 1, 2, 3]
    assert document["scores"]["grids_a"] == 3
    shown = rdx_here("visualize", document["artifact"], "--outputs", str(tmp_path), cwd=arrays)
    assert shown.returncode == 0, shown.stderr


def test_scoreboard(arrays: Path, tmp_path: Path) -> None:
    common = ["--labels", "y.npy", "--planted", "2,3", "--k", "1"]
    options = [*common, *SMALL]
    done = rdx_here(
        "compare", "a.npy", "b.npy", "--method", "all", *options, *QUICK, "--outputs", str(tmp_path), cwd=arrays
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    methods = {one["method"]: one for one in document["methods"]}
    assert next(iter(methods)) == "rdx"
    assert {"kmeans", "pca", "nmf", "cnmf", "snmf", "sae", "topk-sae", "nlmcd", "usae"} < set(methods)
    assert "negative features" in methods["nmf"]["error"]
    assert "scoreboard" in done.stderr.lower()
    assert "cannot run" in done.stderr
    assert methods["rdx"]["scores"]["good_grids_a"] == 1
    assert document["concepts"] == methods["rdx"]["concepts"]
    shared = {"cka", "mutual_knn", "rsa", "probe_accuracy_a", "probe_agreement"}
    assert all(methods["rdx"]["scores"][name] == methods["pca"]["scores"][name] for name in shared)
    # Order and choice of methods change nothing.
    some = _run(arrays, tmp_path, "--method", "snmf,topk-sae,kmeans", *common, "--param", "topk-sae.epochs=3")
    for one in some["methods"]:
        assert one["concepts"] == methods[one["method"]]["concepts"]


def test_align_and_guidance(arrays: Path, tmp_path: Path) -> None:
    document = _run(
        arrays, tmp_path, "--align", "--guidance", "classifier", "--labels", "y.npy", "--k", "1", "--run", "both"
    )
    assert document["parameters"]["align"] is True
    assert document["parameters"]["alignment"]["a_to_b_after"] < 1
    outcome = _run(
        arrays, tmp_path, "--method", "rdx-v2", "--guidance", "outcome", "--labels", "y.npy", "--run", "outcome"
    )
    assert outcome["parameters"]["symmetrize"] == "ranks"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "kmeans", "--align"], "mean nothing to `kmeans`"),
        (["--guidance", "classifier"], "needs labels"),
        (["--guidance", "nonsense", "--labels", "y.npy"], "unknown guidance"),
        (["--planted", "2,3"], "needs labels"),
        (["--planted", "2,x", "--labels", "y.npy"], "no image has the label `x`"),
        (["--planted", "2", "--labels", "y.npy"], "classes that a model merges"),
        (["--method", "pca,pca"], "twice"),
        (["--method", "pca,rdx", "--param", "nothing=1"], "has the parameter nothing"),
        (["--method", "kmeans", "--gamma", "0.1"], "no parameter `gamma`"),
    ],
)
def test_wrong_usage(arrays: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = rdx_here("compare", "a.npy", "b.npy", "--outputs", str(tmp_path), *QUICK, *arguments, cwd=arrays)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_concepts_of_a_scoreboard_have_p_values(arrays: Path, tmp_path: Path) -> None:
    done = rdx_here(
        *("compare", "a.npy", "b.npy", "--method", "rdx,pca", "--bootstraps", "2", "--json"),
        *("--outputs", str(tmp_path)),
        cwd=arrays,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    first, second = document["methods"]
    assert all(concept["p_value"] is not None and concept["stability"] is not None for concept in first["concepts"])
    assert all(concept["p_value"] is None for concept in second["concepts"])
    assert first["difference"] == second["difference"] == document["difference"]


def test_a_method_that_takes_too_long_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(80, 6)))
    slow = ("--param", "sae.epochs=1000000", "--param", "usae.epochs=100000", "--param", "usae.tolerance=0")
    arguments = ("compare", "a.npy", "b.npy", "--no-test", "--bootstraps", "0", "--method", "rdx,sae,usae,pca", *slow)
    done = rdx_here(*arguments, "--budget", "0.3s", "--json", "--outputs", "outputs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    methods = {one["method"]: one for one in json.loads(done.stdout)["methods"]}
    assert "took longer than" in methods["sae"]["error"]
    assert all(methods[name]["error"] is None for name in ("rdx", "usae", "pca"))
    assert any("the time was over" in note for note in methods["usae"]["notes"])
    wrong = rdx_here(*arguments, "--budget", "soon", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "write 60s" in wrong.stderr


def test_the_universal_autoencoder_stops_when_its_loss_falls_no_more() -> None:
    values = np.random.default_rng(1).normal(size=(30, 3))
    short = USAE(n_clusters=1, epochs=600, tolerance=0.9, batch_size=30).fit(values, values[:, ::-1] ** 2)
    assert len(short.history_) == 200
    assert "200 of 600 epochs" in short.notes_[-1]
