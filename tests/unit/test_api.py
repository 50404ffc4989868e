"""The door for Python: records in, answers out, the same street as the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rdxcli as rdx
from rdxcli.artifacts import Artifact
from rdxcli.errors import ArtifactError, InputError, UsageError

ROOT = Path(__file__).resolve().parents[2]
X = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((60, 4)).astype(np.float32)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, rdxcli; print(sorted({'numpy', 'torch', 'pydantic', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in rdx.__all__ if name != "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rdx, name) is not None
    assert name in dir(rdx)


def test_arrays_tensors_and_frames_are_the_same_values() -> None:
    class Frame:
        """What a data frame of numbers offers."""

        columns = ("f0", "f1", "f2", "f3", "f4")
        dtypes = (np.dtype("f4"),) * 5
        index = tuple(f"s{i}" for i in range(60))

        def to_numpy(self) -> np.ndarray:
            return X

    forms = [rdx.representation(form, name="x") for form in (X, torch.tensor(X), Frame())]
    assert len({form.source["sha256"] for form in forms}) == 1
    assert forms[0].sample_ids is None
    assert forms[2].sample_ids is not None
    assert list(forms[2].sample_ids[:2]) == ["s0", "s1"]
    half = rdx.representation(torch.tensor(X).bfloat16())
    assert half.values.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array(["a", "b"]), "expected numbers"),
        (np.zeros(3), "expected numbers of shape"),
        (np.full((3, 2), np.nan), "hold NaN or infinity"),
    ],
)
def test_what_is_no_representation_is_refused(values: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        rdx.representation(values)


def test_a_comparison_is_an_artifact_that_can_be_saved(tmp_path: Path) -> None:
    found = rdx.compare(X, Y, k=2, test=False, bootstraps=0, gamma=0.2)
    assert found.verdict == found.difference["verdict"] == "not tested"
    assert found.parameters["gamma"] == 0.2
    assert {"concepts", "scores"} <= set(dir(found))
    place = found.save(tmp_path)
    assert json.loads((place / "concepts.json").read_text())["concepts"] == found.concepts
    assert Artifact.open(place).manifest.fingerprint == found.artifact.manifest.fingerprint
    assert found.save(tmp_path) == place
    other = rdx.compare(X, Y + 1, k=2, test=False, bootstraps=0)
    with pytest.raises(ArtifactError, match="another artifact"):
        other.save(tmp_path)
    assert other.save(tmp_path, force=True) == place


def test_the_command_line_gives_the_same_document(tmp_path: Path) -> None:
    from helpers import rdx_here

    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", Y)
    done = rdx_here("compare", "a.npy", "b.npy", "--k", 2, "--no-test", "--bootstraps", 0, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    typed = json.loads(done.stdout)
    found = rdx.compare(X, Y, k=2, test=False, bootstraps=0)
    assert [c["samples"] for c in found.concepts] == [c["samples"] for c in typed["concepts"]]
    assert found.scores == typed["scores"]


def test_explanations_and_their_look(tmp_path: Path) -> None:
    labels = np.where(X[:, 0] > 0, "<b>up</b>", "down")
    found = rdx.explain(rdx.representation(X, labels=labels), method="rdr", target="3", n_neighbors=5)
    assert found.regions[0]["target"] == 3
    assert found.parameters["n_neighbors"] == 5
    look = found._repr_html_()
    assert "<table>" in look
    assert "<b>up" not in look
    page = rdx.report(found, to=tmp_path / "page.html")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(UsageError, match="exists already"):
        rdx.report(found, to=page)
    assert rdx.report(found, to=page, force=True) == page


def test_two_answers_in_one_session_do_not_meet() -> None:
    first, second = (rdx.explain(values, method="pca", n_directions=2) for values in (X, X + 1))
    assert first.path != second.path


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rdx.compare(X, Y, gama=1), "has no parameter `gama`"),
        (lambda: rdx.explain(X, method="rdr", n_neighbors="many"), "n_neighbors=many: expected a whole number"),
        (lambda: rdx.compare(X, Y, k=3, n_clusters=4), "contradict each other"),
        (lambda: rdx.representation("digits-cnn", datset="digits"), "has no option `datset`"),
        (lambda: rdx.explain(X, method="prc"), "unknown method"),
    ],
)
def test_misuse_is_one_sentence(call: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()  # type: ignore[operator]


def test_an_unknown_attribute_names_near_ones() -> None:
    found = rdx.explain(X, method="pca", n_directions=2)
    with pytest.raises(AttributeError, match="did you mean `directions`"):
        _ = found.direction


def test_explanations_are_scored_where_they_were_made() -> None:
    source = rdx.representation(np.abs(X), labels=np.where(X[:, 0] > 0, "up", "down"))
    made = rdx.explain(source, method="le-label")
    scored = rdx.simulate(made, source)
    assert scored.kind == "simulation"
    assert [entry["method"] for entry in scored.methods] == ["le-label"]
    other = rdx.representation(np.abs(X[::-1].copy()), labels=np.where(X[:, 0] > 0, "up", "down"))
    with pytest.raises(rdx.RdxError):
        rdx.simulate(made, other)


def test_sentences_are_whole_in_a_notebook() -> None:
    from rdxcli.report.page import brief
    from rdxcli.report.summary import Summary

    long = "accuracy " * 40 + "ends here."
    assert long in brief(Summary("comparison", "rdx", "", "title", "", [], said=[long]))
