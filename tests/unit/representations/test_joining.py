"""Two representations of the same samples: joined by id, never by accident."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdxcli.concepts.options import ConceptOptions
from rdxcli.concepts.predictions import predictions_of, read_predictions
from rdxcli.datasets.arrays import load_representation
from rdxcli.datasets.base import Dataset
from rdxcli.datasets.images import ArrayImages
from rdxcli.datasets.metadata import read_metadata
from rdxcli.errors import InputError, UnknownNameError, UsageError
from rdxcli.records import Representation
from rdxcli.representations.joining import join, select_rows, take
from rdxcli.representations.pairs import check_rows_differ


def record(
    name: str, ids: list[str] | None, labels: list[str] | None = None, n: int = 0, **more: object
) -> Representation:
    """Row values are the numbers in the ids, so that the alignment can be seen."""
    numbers = [float(i.strip("s")) for i in ids] if ids is not None else list(range(n))
    return Representation(
        values=np.array([[v, -v] for v in numbers]),
        sample_ids=np.array(ids) if ids is not None else None,
        name=name,
        labels=np.array(labels) if labels is not None else None,
        **more,  # type: ignore[arg-type]
    )


@given(st.permutations([f"s{i}" for i in range(9)]), st.permutations([f"s{i}" for i in range(4, 14)]))
def test_rows_are_the_samples_that_both_have_in_the_order_of_the_first(a: list[str], b: list[str]) -> None:
    joined = join(record("a", a), record("b", b))
    assert joined.a.sample_ids is not None
    assert joined.a.sample_ids.tolist() == [sample for sample in a if sample in b]
    np.testing.assert_array_equal(joined.a.values, joined.b.values)
    assert sorted(joined.missing_in_b) == ["s0", "s1", "s2", "s3"]
    assert len(joined.missing_in_a) == 5
    assert len(joined.notes) == 2
    assert joined.describe()["joined"] == 5


def test_sides_in_order_are_not_copied() -> None:
    a, b = record("a", ["s1", "s2"]), record("b", ["s1", "s2"])
    joined = join(a, b)
    assert joined.a.values is a.values
    assert joined.b.values is b.values
    assert joined.notes == []


def test_without_ids_by_position() -> None:
    joined = join(record("a", None, n=3), record("b", None, n=3))
    assert joined.by == "position"
    assert joined.notes == []
    half = join(record("a", None, n=3), record("b", ["s0", "s1", "s2"], ["x", "y", "z"], dataset="digits"))
    assert half.a.sample_ids is not None
    assert half.a.sample_ids.tolist() == ["s0", "s1", "s2"]
    assert half.a.labels is not None
    assert half.a.labels.tolist() == ["x", "y", "z"]
    assert half.a.dataset == "digits"
    assert "a has no sample ids" in half.notes[0]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (record("a", None, n=3), record("b", None, n=4), "a has 3 rows and b has 4; without sample ids for a and b"),
        (record("a", ["s1", "s2"]), record("b", None, n=4), "without sample ids for b"),
        (record("a", ["s1", "s2", "s1"]), record("b", ["s1", "s2"]), "a: the sample id `s1` occurs in rows 0 and 2"),
        (record("a", ["s1", "s2"]), record("b", ["s3", "s4"]), "0 samples in common: ids look like `s1` and `s3`"),
        (record("a", ["s1", "s2"]), record("b", ["s2", "s4"]), "1 sample in common"),
    ],
)
def test_what_cannot_be_joined(a: Representation, b: Representation, message: str) -> None:
    with pytest.raises(InputError, match=message):
        join(a, b)


def test_a_side_of_equal_rows_is_refused_by_its_name() -> None:
    good, flat = record("good", None, n=5), Representation(values=np.ones((5, 3)), sample_ids=None, name="flat")
    check_rows_differ(good, good)
    with pytest.raises(InputError, match="flat: all 5 rows are equal"):
        check_rows_differ(good, flat)


def test_remarks_about_labels_and_data_sets() -> None:
    ids = ["s1", "s2", "s3"]
    joined = join(
        record("a", ids, ["x", "y", "z"], dataset="digits"), record("b", ids, ["x", "y", "q"], dataset="mnist")
    )
    assert any("labels of 1 of 3 samples differ" in note for note in joined.notes)
    assert any("digits" in note and "mnist" in note for note in joined.notes)
    only_b = join(record("a", ids), record("b", ids[::-1], ["z", "y", "x"]))
    assert only_b.a.labels is not None
    assert only_b.a.labels.tolist() == ["x", "y", "z"]


def test_the_same_rows_are_drawn_from_a_data_set_and_from_a_shuffled_array() -> None:
    ids = [f"s{i}" for i in range(60)]
    labels = ["x" if i % 3 else "y" for i in range(60)]
    dataset = Dataset("d", "d", ArrayImages(np.zeros((60, 2, 2), np.uint8)), ids, labels)
    array = record("a", ids[::-1], labels[::-1])
    for options in ({"sample": 10, "seed": 3}, {"per_class": 4}, {"classes": "y", "sample": 5}):
        chosen = select_rows(array, **options).sample_ids  # type: ignore[arg-type]
        assert chosen is not None
        assert set(chosen.tolist()) == set(dataset.select(**options).sample_ids)  # type: ignore[arg-type]


def test_selection_mistakes() -> None:
    array = record("a", ["s1", "s2", "s3"])
    with pytest.raises(UsageError, match="has no labels"):
        select_rows(array, classes="x")
    with pytest.raises(UsageError, match="has no labels"):
        select_rows(array, per_class=1)
    with pytest.raises(UnknownNameError, match="unknown class of a: `q`"):
        select_rows(record("a", ["s1", "s2"], ["x", "y"]), classes="q")
    with pytest.raises(InputError, match="1 row is left"):
        select_rows(array, limit=1)
    assert select_rows(array) is array
    assert take(array, np.array([2, 0])).values[:, 0].tolist() == [3.0, 1.0]


def test_classes_of_arrays_go_by_name_or_place() -> None:
    values = np.arange(24.0).reshape(12, 2)
    labels = np.array([str(i % 12) for i in range(12)])
    record = Representation(values, None, "r", labels=np.repeat(labels[[10, 2, 0]], 4))
    for names in (["10"], ["#2"]):  # 0, 2, 10
        assert set(select_rows(record, classes=names).labels.tolist()) == {"10"}
    with pytest.raises(UsageError, match="#3 is not one of the 3 classes of r"):
        select_rows(record, classes=["#3"])
    with pytest.raises(UsageError, match="unknown class of r"):
        select_rows(record, classes=["12"])


@pytest.mark.parametrize("writer", ["csv", "parquet"])
def test_the_index_of_a_shuffled_frame_says_which_row_is_which(tmp_path: Path, writer: str) -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.normal(size=(30, 3)), columns=["f0", "f1", "f2"])
    order = rng.permutation(30)[:25]
    files = {"whole": frame, "part": frame.iloc[order]}
    for name, table in files.items():
        getattr(table, f"to_{writer}")(tmp_path / f"{name}.{writer}")
    frame.to_csv(tmp_path / "whole.csv")
    part = load_representation(str(tmp_path / f"part.{writer}"))
    whole = load_representation(str(tmp_path / "whole.csv"))
    for a, b in ((whole, part), (part, whole)):
        joined = join(a, b)
        assert joined.by == "id"
        assert joined.a.n == 25
        np.testing.assert_allclose(joined.a.values, joined.b.values)


def test_numbered_labels_are_joined_by_their_numbers_or_refused(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    values, classes, order = rng.normal(size=(12, 3)), np.arange(12) % 3, rng.permutation(12)
    np.save(tmp_path / "a.npy", values)
    for name, rows in (("straight", np.arange(12)), ("shuffled", order)):
        pandas.Series(classes).iloc[rows].to_csv(tmp_path / f"{name}.csv")  # columns: nothing, and 0
        pandas.DataFrame({"label": classes}).iloc[rows].to_csv(tmp_path / f"{name}-named.csv")
    for kind in ("", "-named"):
        record = load_representation(str(tmp_path / "a.npy"), labels=tmp_path / f"straight{kind}.csv")
        assert record.labels is not None
        assert record.labels.tolist() == [str(label) for label in classes]
        with pytest.raises(InputError, match="its rows are numbered"):
            load_representation(str(tmp_path / "a.npy"), labels=tmp_path / f"shuffled{kind}.csv")
        pandas.DataFrame(values, columns=["f0", "f1", "f2"]).iloc[order].to_csv(tmp_path / "moved.csv")
        record = load_representation(str(tmp_path / "moved.csv"), labels=tmp_path / f"straight{kind}.csv")
        assert record.labels is not None
        assert record.labels.tolist() == [str(classes[row]) for row in order]


def test_predictions_are_joined_by_ids_in_every_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    ids = [f"{i:02d}.png" for i in range(12)]
    classes, order = np.arange(12) % 3, np.random.default_rng(0).permutation(12)
    moved = [f"photos/{ids[i]}" for i in order]
    pandas.DataFrame({"image": moved, "pred": classes[order]}).to_csv(tmp_path / "p.csv", index=False)
    pandas.DataFrame({"image": moved, "answer": classes[order]}).to_csv(tmp_path / "q.csv", index=False)
    np.savez(tmp_path / "p.npz", logits=np.eye(3)[classes[order]], ids=moved)
    side = Representation(np.eye(12), np.array(ids), "a")
    for name in ("p.csv", "q.csv", "p.npz"):
        found = read_predictions((str(tmp_path / name), str(tmp_path / "p.csv")), side, side)
        assert found is not None
        assert found.a.tolist() == found.b.tolist() == [str(c) for c in classes]
    pandas.DataFrame({"pred": classes}).iloc[order].to_csv(tmp_path / "numbered.csv")
    with pytest.raises(InputError, match="its rows are numbered"):
        read_predictions((str(tmp_path / "numbered.csv"),) * 2, side, side)
    options = ConceptOptions(files={"predictions": str(tmp_path / "p.csv")})
    given = predictions_of(options, side)
    assert given is not None
    assert given.tolist() == [str(c) for c in classes]


def test_metadata_of_numbered_rows(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    order = np.random.default_rng(0).permutation(12)
    pandas.DataFrame({"device": np.arange(12) % 2}).iloc[order].to_csv(tmp_path / "m.csv")
    found = read_metadata(tmp_path / "m.csv", [str(i) for i in range(12)], 12)
    assert found.columns["device"].tolist() == [str(i % 2) for i in range(12)]
    for ids in (None, [f"{i}.png" for i in range(12, 24)]):
        with pytest.raises(InputError, match="its rows are numbered"):
            read_metadata(tmp_path / "m.csv", ids, 12)
