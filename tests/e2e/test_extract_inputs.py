"""What people type becomes the same record: a model, its artifact, a file of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdxcli.datasets.registry import open_dataset
from rdxcli.errors import ArtifactError, InputError, MissingDataError, UnknownNameError, UsageError
from rdxcli.representations.extract import extract
from rdxcli.representations.joining import join
from rdxcli.representations.options import ExtractOptions
from rdxcli.representations.resolve import (
    ArrayOptions,
    SelectionOptions,
    find_activations,
    resolve_concepts,
    resolve_representation,
)

FEW = SelectionOptions(limit=30)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def test_a_model_its_folder_and_its_file_are_one_record(outputs: Path) -> None:
    model = resolve_representation("digits-cnn", selection=FEW, outputs=outputs)
    folder = outputs / "digits@limit-30" / "digits-cnn" / "conv2" / "activations" / "auto"
    for text in (str(folder), str(folder / "activations.npy"), str(folder.relative_to(outputs))):
        again = resolve_representation(text, outputs=outputs)
        np.testing.assert_array_equal(again.values, model.values)
        assert again.sample_ids is not None
        assert again.sample_ids.tolist() == [f"{i:04d}" for i in range(30)]
        assert (again.name, again.layer, again.dataset) == ("digits-cnn", "conv2", "digits")
        assert again.source == model.source
    assert model.labels is not None
    assert model.labels.tolist() == list(open_dataset("digits").labels or [])[:30]
    assert isinstance(model.values, np.memmap)


def test_an_artifact_is_checked_against_what_is_asked(outputs: Path) -> None:
    (done,) = extract(ExtractOptions("digits-cnn", selection=FEW, outputs=outputs, layers=("last",)))
    resolve_representation(str(done.folder), layer=done.layer, outputs=outputs)
    resolve_representation(str(done.folder), layer="last", outputs=outputs)
    with pytest.raises(UsageError, match=f"holds layer `{done.layer}`, not `conv9`"):
        resolve_representation(str(done.folder), layer="conv9", outputs=outputs)
    with pytest.raises(UsageError, match="holds pool `auto`, not `max`"):
        resolve_representation(str(done.folder), pool="max", outputs=outputs)


def test_an_artifact_of_another_kind(outputs: Path) -> None:
    from rdxcli.artifacts import Request, create

    with create(outputs / "x", Request(kind="comparison")) as draft:
        (draft.path / "concepts.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds comparison, expected activations"):
        find_activations("x", outputs)


def test_an_unfinished_artifact(outputs: Path) -> None:
    (outputs / "digits" / "auto.partial").mkdir(parents=True)
    with pytest.raises(UnknownNameError):
        resolve_representation("digits/auto", outputs=outputs)


class TestArrays:
    @pytest.fixture
    def values(self, tmp_path: Path) -> Path:
        np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(1797, 4)))
        return tmp_path / "a.npy"

    def test_a_data_set_gives_ids_and_labels(self, values: Path, outputs: Path) -> None:
        record = resolve_representation(str(values), selection=SelectionOptions("digits"), outputs=outputs)
        assert record.sample_ids is not None
        assert record.sample_ids[5] == "0005"
        assert record.labels is not None
        assert record.labels.tolist() == open_dataset("digits").labels
        joined = join(record, resolve_representation("digits-cnn", selection=FEW, outputs=outputs))
        assert joined.a.n == 30
        assert joined.by == "id"

    def test_selections_are_those_of_the_data_set(self, values: Path, outputs: Path) -> None:
        selection = SelectionOptions("digits", classes="3,5", sample=40, seed=1)
        record = resolve_representation(str(values), selection=selection, outputs=outputs)
        assert record.sample_ids is not None
        assert record.sample_ids.tolist() == list(selection.open().sample_ids)
        np.testing.assert_array_equal(record.values, np.load(values)[[int(i) for i in record.sample_ids]])
        assert record.source["selection"]["classes"] == "3,5"

    def test_another_selection_is_another_source(self, values: Path, outputs: Path) -> None:
        sources = [
            resolve_representation(str(values), selection=SelectionOptions(limit=limit), outputs=outputs).source
            for limit in (None, 10, 20)
        ]
        assert sources[0] != sources[1] != sources[2]
        assert sources[0]["sha256"] == sources[1]["sha256"]

    def test_a_changed_file_is_another_source(self, values: Path, outputs: Path) -> None:
        before = resolve_representation(str(values), outputs=outputs).source
        changed = np.load(values)
        changed[7, 1] += 1e-9
        np.save(values, changed)
        assert resolve_representation(str(values), outputs=outputs).source != before

    def test_numbers_that_do_not_fit_the_data_set(self, tmp_path: Path, outputs: Path) -> None:
        np.save(tmp_path / "b.npy", np.ones((10, 2)))
        with pytest.raises(InputError, match="b has 10 rows without ids, the data set digits has 1,797 images"):
            resolve_representation(str(tmp_path / "b.npy"), selection=SelectionOptions("digits"), outputs=outputs)
        (tmp_path / "ids.txt").write_text("\n".join(f"x{i}" for i in range(10)))
        with pytest.raises(InputError, match=r"0 of the 10 samples of b are in digits: ids look like `x0` and `0000`"):
            resolve_representation(
                str(tmp_path / "b.npy"),
                selection=SelectionOptions("digits"),
                arrays=ArrayOptions(sample_ids=tmp_path / "ids.txt"),
                outputs=outputs,
            )

    def test_a_split_needs_a_data_set(self, values: Path, outputs: Path) -> None:
        with pytest.raises(UsageError, match="is an array and has no splits"):
            resolve_representation(str(values), selection=SelectionOptions(split="test"), outputs=outputs)

    def test_a_misspelt_file_is_found(self, values: Path, outputs: Path) -> None:
        with pytest.raises(MissingDataError) as caught:
            resolve_representation(str(values.with_name("aa.npy")), outputs=outputs)
        assert str(values) in (caught.value.hint or "")
        with pytest.raises(UnknownNameError) as wrong:
            resolve_representation(str(values.with_name("a.np")), outputs=outputs)
        assert str(values) in (wrong.value.hint or "")

    def test_concepts_know_their_fingerprint(self, values: Path) -> None:
        one, two = (resolve_concepts(str(values)) for _ in range(2))
        assert one.source == two.source
        assert one.source["file"] == "a.npy"
