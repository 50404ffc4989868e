"""Tables as other tools write them: features, ids and labels are told apart, and text stays text."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch

from rdxcli.datasets.arrays import load_concepts, load_representation
from rdxcli.datasets.selection import Choice
from rdxcli.datasets.tables import begins_with, read_columns, read_values
from rdxcli.datasets.words import apart, escaped, find, names_in, texts_of
from rdxcli.errors import InputError

N, D = 12, 4
VALUES = np.round(np.random.default_rng(3).normal(size=(N, D)), 4)
IDS = [f"img_{i:03d}.png" for i in range(N)]
SHUFFLED = np.random.default_rng(0).permutation(N)

HARD = ["007", "1e5", "2024-01-02", "true", "1152921504606846977", "0.10", "-0", "NaN", "é", "👩‍🔬", "a, b", "None"]
"""Text that some reader somewhere takes for a number, a date, a truth or a gap."""


def frame(columns: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array(list(column)) for name, column in columns.items()})


def feature_columns() -> dict[str, Any]:
    return {f"f{i}": VALUES[:, i] for i in range(D)}


def to_csv(path: Path, columns: dict[str, Any], separator: str = ",", decimal: str = ".") -> None:
    def cell(value: Any) -> str:
        text = str(value).replace(".", decimal) if isinstance(value, float) else str(value)
        return f'"{text}"' if separator in text else text

    rows = [
        separator.join(map(str, columns)),
        *(separator.join(map(cell, row)) for row in zip(*columns.values(), strict=True)),
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write(path: Path, columns: dict[str, Any], as_text: bool = False) -> Path:
    match path.suffix:
        case ".csv":
            to_csv(path, columns)
        case ".tsv":
            to_csv(path, columns, "\t")
        case ".parquet":
            pq.write_table(frame(columns), path)
        case ".feather":
            pyarrow.feather.write_feather(frame(columns), str(path))
        case ".json":
            path.write_text(json.dumps({k: np.asarray(v).tolist() for k, v in columns.items()}))
        case ".jsonl":
            rows = zip(*(np.asarray(v).tolist() for v in columns.values()), strict=True)
            path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return path


TABLES = [".csv", ".tsv", ".parquet", ".feather", ".json", ".jsonl"]

BOOKKEEPING: dict[str, tuple[Callable[[], dict[str, Any]], str | None, str | None]] = {
    # what stands beside the features -> (columns, ids, labels)
    "index in order": (lambda: {"Unnamed: 0": np.arange(N)}, None, None),
    "index without a name": (lambda: {"": np.arange(N)}, None, None),
    "index counted from 1": (lambda: {"X": np.arange(1, N + 1)}, None, None),
    "index of a shuffled frame": (lambda: {"index": SHUFFLED}, "index", None),
    "any name, counts the rows": (lambda: {"whatever": np.arange(N)}, None, None),
    "paths": (lambda: {"image_path": IDS}, "image_path", None),
    "numbers as ids": (lambda: {"image_id": SHUFFLED * 7 + 1000}, "image_id", None),
    "labels and split": (lambda: {"Label": np.arange(N) % 3, "split": np.arange(N) % 2}, None, "Label"),
    "scores": (lambda: {"confidence": VALUES[:, 0] * 10, "score": VALUES[:, 1]}, None, None),
    "words": (lambda: {"name": IDS, "class_name": ["a", "b"] * (N // 2)}, "name", "class_name"),
    "two levels of an index": (lambda: {"level_0": np.arange(N), "level_1": np.zeros(N, int)}, None, None),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("what", BOOKKEEPING)
@pytest.mark.parametrize("where", ["before", "after"])
def test_bookkeeping_is_no_feature(tmp_path: Path, kind: str, what: str, where: str) -> None:
    make, ids, labels = BOOKKEEPING[what]
    extra = make()
    columns = {**extra, **feature_columns()} if where == "before" else {**feature_columns(), **extra}
    record = load_representation(str(write(tmp_path / f"t{kind}", columns)))
    np.testing.assert_allclose(record.values, VALUES, rtol=1e-6)
    assert (record.sample_ids is None) == (ids is None)
    if ids is not None and record.sample_ids is not None:
        assert record.sample_ids.tolist() == [str(v) for v in extra[ids]]
    assert (record.labels is None) == (labels is None)
    seen = record.source["seen"]
    assert (seen["ids"], seen["labels"], seen["n_features"]) == (ids, labels, D)
    assert set(seen["left_out"]) == set(extra) - {ids, labels}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    ("doubtful", "message"),
    [
        (SHUFFLED * 3 + 5, "`odd` a feature\\? it holds whole numbers that are all different"),
        (np.arange(N) % 4, "`odd` a feature\\? it holds 4 different whole numbers"),
    ],
)
def test_doubt_is_an_error_that_shows_how_to_choose(
    tmp_path: Path, kind: str, doubtful: np.ndarray, message: str
) -> None:
    path = str(write(tmp_path / f"t{kind}", {**feature_columns(), "odd": doubtful}))
    with pytest.raises(InputError, match=message) as caught:
        load_representation(path)
    assert "--feature-columns" in (caught.value.hint or "")
    for choice in (Choice(features="f*"), Choice(features="!odd"), Choice(labels="odd")):
        np.testing.assert_allclose(load_representation(path, choice=choice).values, VALUES, rtol=1e-6)
    whole = load_representation(path, choice=Choice(features="all"))
    np.testing.assert_allclose(whole.values, np.column_stack([VALUES, doubtful]), rtol=1e-6)
    named = load_representation(path, choice=Choice(labels="nothing,odd")).labels
    assert named is not None
    assert named.tolist() == [str(v) for v in doubtful]
    with pytest.raises(InputError, match="no column `g\\*`"):
        load_representation(path, choice=Choice(features="g*"))


def test_a_feature_may_hold_whole_numbers(tmp_path: Path) -> None:
    columns = feature_columns() | {"f4": np.arange(N) % 3, "f5": np.zeros(N)}
    assert load_representation(str(write(tmp_path / "t.csv", columns))).d == D + 2
    pixels = {f"pixel{i}": np.random.default_rng(i).integers(0, 256, N) for i in range(5)}
    assert load_representation(str(write(tmp_path / "p.csv", pixels))).d == 5
    assert load_representation(str(write(tmp_path / "xy.csv", {"x": VALUES[:, 0], "y": VALUES[:, 1]}))).d == 2


def test_a_frame_of_pandas(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    data = pd.DataFrame(VALUES, columns=[f"f{i}" for i in range(D)])
    cases = {
        "range": (data, None),
        "shuffled": (data.set_index(pd.Index(SHUFFLED)), [str(i) for i in SHUFFLED]),
        "named": (data.set_index(pd.Index(IDS, name="photo")), IDS),
        "numbers": (data.set_index(pd.Index(np.arange(N) + 0.0)), None),
        "concatenated": (data.set_index(pd.Index([*range(N // 2)] * 2)), None),
        "levels": (data.set_index(pd.MultiIndex.from_arrays([IDS, range(N)], names=["filename", "frame"])), IDS),
    }
    for name, (table, ids) in cases.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
        record = load_representation(str(tmp_path / f"{name}.parquet"))
        np.testing.assert_allclose(record.values, VALUES, err_msg=name)
        assert (record.sample_ids.tolist() if record.sample_ids is not None else None) == ids, name
    for index in (True, False):  # columns called 0, 1, 2 ... are a header, not a row
        pd.DataFrame(VALUES).to_csv(tmp_path / "numbered.csv", index=index)
        np.testing.assert_allclose(load_representation(str(tmp_path / "numbered.csv")).values, VALUES)
    np.save(tmp_path / "records.npy", data.to_records())
    np.testing.assert_allclose(load_representation(str(tmp_path / "records.npy")).values, VALUES)
    data.assign(label=pd.Categorical(["b", "a"] * (N // 2))).to_parquet(tmp_path / "category.parquet")
    labels = load_representation(str(tmp_path / "category.parquet")).labels
    assert labels is not None
    assert labels[:2].tolist() == ["b", "a"]
    vectors = pd.DataFrame({"filename": IDS, "embedding": [v.tolist() for v in VALUES]})
    vectors.to_csv(tmp_path / "vectors.csv", index=False)
    record = load_representation(str(tmp_path / "vectors.csv"))
    np.testing.assert_allclose(record.values, VALUES)
    assert record.sample_ids is not None


@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("content", [np.arange(N), np.arange(1, N + 1), SHUFFLED * 1000 + 17])
def test_bookkeeping_in_an_array_without_names(tmp_path: Path, column: int, content: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", np.insert(VALUES, column, content, axis=1))
    with pytest.raises(InputError, match=f"is column {column} a feature"):
        load_representation(str(tmp_path / "a.npy"))
    record = load_representation(str(tmp_path / "a.npy"), choice=Choice(features=f"!{column}"))
    np.testing.assert_array_equal(record.values, VALUES)
    assert load_representation(str(tmp_path / "a.npy"), choice=Choice(features="all")).d == D + 1
    with pytest.raises(InputError, match="have no names"):
        load_representation(str(tmp_path / "a.npy"), choice=Choice(features="0-99"))


@pytest.mark.parametrize("extra", ["accuracy_of_b", "noted", "taken"])
def test_a_stranger_among_numbered_columns_is_asked_about(tmp_path: Path, extra: str) -> None:
    path = str(write(tmp_path / "t.csv", {**feature_columns(), extra: VALUES[:, 0] * 1e5 + 0.5}))
    with pytest.raises(InputError, match=f"`{extra}` a feature\\? its name is unlike the others"):
        load_representation(path)
    assert load_representation(path, choice=Choice(features=f"!{extra}")).d == D


def test_labels_in_an_array_without_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.column_stack([VALUES, np.arange(N) % 3]))
    with pytest.raises(InputError, match="column 4 a feature\\? it holds 3 different whole numbers"):
        load_representation(str(tmp_path / "a.npy"))


def test_concept_tables(tmp_path: Path) -> None:
    scores = {"red": VALUES[:, 0], "path": VALUES[:, 1], "striped": np.arange(N) % 2}
    for extra in ({"Unnamed: 0": np.arange(N)}, {"image_id": SHUFFLED + 50}, {"split": np.arange(N) % 2}):
        matrix = load_concepts(str(write(tmp_path / "c.csv", {**extra, **scores})))
        assert list(matrix.names) == list(scores)
        assert (matrix.sample_ids is not None) == ("image_id" in extra)


def test_what_was_taken_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rdxcli")
    columns = {"Unnamed: 0": np.arange(N), "file": IDS, **feature_columns(), "label": ["a"] * N, "loss": VALUES[:, 0]}
    load_representation(str(write(tmp_path / "t.csv", columns)))
    assert (
        "t.csv: 12 rows, 4 features (f0, f1, f2, f3); ids from `file`; labels from `label`; "
        "left out: `Unnamed: 0` (counts the rows), `loss` (bookkeeping)"
    ) in caplog.text


class TestText:
    @pytest.mark.parametrize("kind", TABLES)
    @pytest.mark.parametrize("part", ["ids", "labels"])
    def test_ids_and_labels_come_through_unchanged(self, tmp_path: Path, kind: str, part: str) -> None:
        words = [unicodedata.normalize("NFC", word) for word in HARD]
        name = "sample_id" if part == "ids" else "label"
        record = load_representation(str(write(tmp_path / f"t{kind}", {name: words, **feature_columns()})))
        found = record.sample_ids if part == "ids" else record.labels
        assert found is not None
        assert found.tolist() == words
        assert read_columns(write(tmp_path / f"l{kind}", {name: words, "z": words}))[name] == words
        assert read_values(write(tmp_path / f"m{kind}", {name: words}), (name,), part) == words

    def test_numbers_that_a_format_stores_as_numbers(self, tmp_path: Path) -> None:
        big = 2**60 + 1
        assert texts_of(np.array([1, big])) == ["1", str(big)]
        assert texts_of(np.array([1.0, np.nan, 3.0])) == ["1", "", "3"]
        assert texts_of(np.array([0.5, 1.0])) == ["0.5", "1.0"]
        assert texts_of([True, False]) == ["true", "false"]
        assert texts_of(np.array([b"a", b"bc"])) == ["a", "bc"]
        np.savez(tmp_path / "a.npz", features=VALUES, labels=np.arange(N, dtype=float), ids=np.arange(N) + big)
        record = load_representation(str(tmp_path / "a.npz"))
        assert record.labels is not None
        assert record.sample_ids is not None
        assert record.labels[3] == "3"
        assert record.sample_ids[0] == str(big)
        torch.save({"features": torch.tensor(VALUES), "paths": IDS, "labels": torch.arange(N)}, tmp_path / "a.pt")
        record = load_representation(str(tmp_path / "a.pt"))
        assert record.sample_ids is not None
        assert record.sample_ids.tolist() == IDS

    def test_forms_of_one_name(self) -> None:
        composed, decomposed = "café.png", unicodedata.normalize("NFD", "café.png")
        places, note = find([decomposed, "x", composed], [composed, "x"])
        assert (places.tolist(), note) == ([-1, 1, 0], "")
        places, note = find([decomposed, "x"], ["x", composed])
        assert (places.tolist(), note) == ([1, 0], "1 id differs in its spelling")
        assert apart(composed, decomposed) == ["caf\\xe9.png", "cafe\\u0301.png"]
        assert apart("a", "b") == ["a", "b"]
        assert apart("a", "a ") == ["a", "a "]
        assert escaped("caf\udce9.png") == "caf\\xe9.png"

    @pytest.mark.parametrize(
        ("wanted", "known", "places", "how"),
        [
            (["a/1.jpg", "a/2.jpg"], ["/data/a/2.jpg", "/data/a/1.jpg"], [1, 0], "folder"),
            (["/data/a/2.jpg", "/data/a/1.jpg"], ["a/1.jpg", "a/2.jpg"], [1, 0], "folder"),
            (["1", "2"], ["2.png", "1.jpg"], [1, 0], "ending"),
            (["a/1", "a/2"], ["x/a/2.png", "x/a/1.png"], [1, 0], "folder and ending"),
            ([r"a\1.jpg", "./a/2.jpg"], ["a/2.jpg", "a/1.jpg"], [1, 0], "spelling"),
            (["b/1.jpg", "c/2.jpg"], ["a/1.jpg", "a/2.jpg"], [-1, -1], ""),  # other images of the same names
            (["1.jpg"], ["a/1.jpg", "b/1.jpg"], [-1], ""),
            (["a/1.jpg", "b/1.jpg"], ["1.jpg"], [-1, -1], ""),
            (["1.png", "1.jpg"], ["1", "1.jpg"], [0, 1], "ending"),  # a row found by its own name is not given away
            (["v1", "v2"], ["v1.5", "v2.5"], [-1, -1], ""),
            (["1.jpg", "1.jpg"], ["a/1.jpg"], [0, 0], "folder"),
            (["a/1", "a/2"], ["2.png", "1.png"], [1, 0], "folder and ending"),
            (["2.png", "1.png"], ["b/a/1", "b/a/2"], [1, 0], "folder and ending"),
            (["b/a/1"], ["a/1.png", "c/1.png"], [0], "folder and ending"),
            (["a/1", "b/1"], ["1.png"], [-1, -1], ""),
            (["a/1"], ["1.png", "1.jpg"], [-1], ""),
            (["a/1.png", "1.png"], ["1.jpg", "b/1"], [-1, 1], "folder and ending"),
        ],
    )
    def test_folders_and_endings(self, wanted: list[str], known: list[str], places: list[int], how: str) -> None:
        found, note = find(wanted, known)
        assert found.tolist() == places
        assert note.endswith(how)
        assert bool(note) == bool(how)

    def test_lists_of_names(self) -> None:
        known = ["cat, domestic", "dog", "cat", "café"]
        assert names_in("cat, domestic,dog", known) == ["cat, domestic", "dog"]
        assert names_in('"cat",dog , nope', known) == ["cat", "dog", "nope"]
        assert names_in(unicodedata.normalize("NFD", "café"), known) == ["café"]


def test_separators_and_headers(tmp_path: Path) -> None:
    columns = {"id": IDS, **feature_columns()}
    path = tmp_path / "t.csv"

    def check(ids: bool = True) -> None:
        record = load_representation(str(path))
        np.testing.assert_allclose(record.values, VALUES, rtol=1e-6)
        assert (record.sample_ids is not None) == ids

    to_csv(path, columns, ";")
    check()
    to_csv(path, columns, ";", ",")
    check()
    to_csv(path, feature_columns(), ";", ",")
    check(ids=False)
    to_csv(path, columns, "\t")
    check()
    to_csv(path, columns, "|")
    check()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check()
    path.write_bytes(path.read_text("utf-8-sig").encode("utf-16"))
    check()
    for delimiter in (",", " ", ";", "\t"):
        for header in ("", delimiter.join(feature_columns())):
            np.savetxt(path, VALUES, delimiter=delimiter, header=header)
            check(ids=False)
    lines = [
        "\t".join(feature_columns()),
        *(f"{i}\t" + "\t".join(map(str, v)) for i, v in zip(IDS, VALUES, strict=True)),
    ]
    path.write_text("\n".join(lines))  # R's write.table
    check()
    path.write_text("\n".join(",".join([i, *map(str, v)]) for i, v in zip(IDS, VALUES, strict=True)))  # no header
    check()


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n4,5\n")
    with pytest.raises(InputError, match="row 3 has 2 cells, the header has 3"):
        load_representation(str(tmp_path / "t.csv"))


def test_lines_of_path_and_label(tmp_path: Path) -> None:
    ids = [f"a b/{i}.jpg" for i in range(N)]
    (tmp_path / "l.txt").write_text("".join(f"{name} golden retriever {i % 2}\n" for i, name in enumerate(ids)))
    (tmp_path / "ids.txt").write_text("\n".join(reversed(ids)))
    np.save(tmp_path / "a.npy", VALUES)
    record = load_representation(str(tmp_path / "a.npy"), labels=tmp_path / "l.txt", sample_ids=tmp_path / "ids.txt")
    assert record.labels is not None
    assert record.labels.tolist() == [f"golden retriever {(N - 1 - i) % 2}" for i in range(N)]
    assert read_values(tmp_path / "l.txt", ("path",), "ids") == ids


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    assert not begins_with(tmp_path / "a.npy", b"x")
    assert not begins_with(Path("/dev/zero"), b"\0")
