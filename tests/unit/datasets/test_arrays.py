"""A user's arrays: every format, what belongs to the rows, and what each mistake says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from PIL import Image
from safetensors.torch import save_file

from rdxcli.datasets.arrays import bad_rows, check_values, is_array, load_concepts, load_representation
from rdxcli.errors import InputError, MissingDataError

N, D = 12, 5
VALUES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
IDS = [f"img_{i:02d}" for i in range(N)]
LABELS = ["cat" if i % 2 else "dog" for i in range(N)]


def is_mapped(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base  # type: ignore[assignment]
    return False


def write(folder: Path, form: str) -> str:
    match form:
        case "npy":
            np.save(folder / "a.npy", VALUES)
        case "npy-fortran":
            np.save(folder / "a.npy", np.asfortranarray(VALUES))
            return str(folder / "a.npy")
        case "npz":
            np.savez(folder / "a.npz", a=VALUES)
        case "npz-key":
            np.savez(folder / "a.npz", other=VALUES * 2, feats=VALUES, order=np.asfortranarray(VALUES))
            return f"{folder / 'a.npz'}:feats"
        case "npz-fortran":
            np.savez(folder / "a.npz", feats=np.asfortranarray(VALUES))
            return str(folder / "a.npz")
        case "npz-compressed":
            np.savez_compressed(folder / "a.npz", a=VALUES)
            return str(folder / "a.npz")
        case "safetensors":
            save_file({"a": torch.from_numpy(VALUES)}, folder / "a.safetensors")
        case "safetensors-key":
            save_file({"a": torch.zeros(2, 3), "b.c": torch.from_numpy(VALUES)}, folder / "a.safetensors")
            return f"{folder / 'a.safetensors'}:b.c"
        case "parquet":
            pq.write_table(pa.table({f"f{i}": VALUES[:, i] for i in range(D)}), folder / "a.parquet")
        case "parquet-list":
            pq.write_table(
                pa.table({"x": list(VALUES), "label": LABELS, "id": IDS}), folder / "a.parquet", row_group_size=5
            )
            return str(folder / "a.parquet")
        case "parquet-fixed":
            column = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel()), D)
            pq.write_table(pa.table({"x": column, "y": column}), folder / "a.parquet")
            return f"{folder / 'a.parquet'}:y"
        case "parquet-columns":
            pq.write_table(
                pa.table({f"f{i}": VALUES[:, i] for i in range(D)} | {"z": np.zeros(N)}), folder / "a.parquet"
            )
            return f"{folder / 'a.parquet'}:" + ", ".join(f"f{i}" for i in range(D))
        case "csv" | "tsv":
            with open(folder / f"a.{form}", "w", newline="") as stream:
                out = csv.writer(stream, delimiter="," if form == "csv" else "\t")
                out.writerow(["id", *(f"f{i}" for i in range(D)), "label"])
                out.writerows([i, *map(float, v), y] for i, v, y in zip(IDS, VALUES, LABELS, strict=True))
        case "csv-bare":
            np.savetxt(folder / "a.csv", VALUES, delimiter=",", fmt="%.9g")
            return str(folder / "a.csv")
        case "pt":
            torch.save(torch.from_numpy(VALUES), folder / "a.pt")
        case "pt-key":
            torch.save({"a": torch.from_numpy(VALUES), "epoch": 3, "b": torch.zeros(3)}, folder / "a.pt")
            return f"{folder / 'a.pt'}:a"
        case "pt-old":
            torch.save(torch.from_numpy(VALUES), folder / "a.pt", _use_new_zipfile_serialization=False)
            return str(folder / "a.pt")
    return str(folder / f"a.{form}")


FORMS = [
    *("npy", "npy-fortran", "npz", "npz-key", "npz-fortran", "npz-compressed", "safetensors", "safetensors-key"),
    *(
        "parquet",
        "parquet-list",
        "parquet-fixed",
        "parquet-columns",
        "csv",
        "tsv",
        "csv-bare",
        "pt",
        "pt-key",
        "pt-old",
    ),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_values(tmp_path: Path, form: str) -> None:
    record = load_representation(write(tmp_path, form))
    np.testing.assert_allclose(record.values, VALUES, rtol=1e-7)
    assert record.name.startswith("a")
    if form in ("csv", "tsv", "parquet-list"):
        assert record.sample_ids is not None
        assert record.sample_ids.tolist() == IDS
        assert record.labels is not None
        assert record.labels.tolist() == LABELS
    else:
        assert record.sample_ids is None


@pytest.mark.parametrize("form", ["npy", "npy-fortran", "npz", "npz-key", "npz-fortran"])
def test_large_files_are_mapped_not_read(tmp_path: Path, form: str) -> None:
    assert is_mapped(load_representation(write(tmp_path, form)).values)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv", "a.safetensors", "a.pt", "a.h5", "a.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12800\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
    ],
)
def test_what_stands_in_the_place_of_a_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, MissingDataError), match=said):
        load_representation(str(tmp_path / name))


def test_another_format_under_the_name_of_an_array(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    with file.open("wb") as stream:
        np.savez(stream, a=np.eye(3))
    with pytest.raises(InputError, match="holds several arrays"):
        load_representation(str(file))
    file.write_text("1 2 3")
    with pytest.raises(InputError, match="does not begin like a file of NumPy"):
        load_representation(str(file))
    np.save(file, np.array([[1, "a"], [2, "b"]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="pickled objects"):
        load_representation(str(file))


def test_what_was_taken_from_where_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maps = np.random.default_rng(0).normal(size=(5, 3, 2, 4))
    np.savez(tmp_path / "maps.npz", features=maps, ids=list("vwxyz"), labels=list("pqpqp"))
    (tmp_path / "y.txt").write_text("1\n2\n3\n4\n5\n")
    with caplog.at_level("INFO"):
        record = load_representation(str(tmp_path / "maps.npz"), labels=tmp_path / "y.txt", pool="max")
    np.testing.assert_allclose(record.values, maps.max(axis=(2, 3)), rtol=1e-6)
    line = "ids from the file; labels from `y.txt`; the largest of 2 x 4 places of each of 3 channels"
    assert line in caplog.text
    assert record.source["seen"]["labels"] == "another file"  # what is in the request is no name of a file


def test_rows_of_a_json_list(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 3))
    (tmp_path / "a.json").write_text(json.dumps(values.tolist()))
    np.testing.assert_allclose(load_representation(str(tmp_path / "a.json")).values, values)
    (tmp_path / "a.json").write_text("[[1, 2], [3]]")
    with pytest.raises(InputError, match="different lengths"):
        load_representation(str(tmp_path / "a.json"))


def test_ids_and_labels_inside_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", feats=VALUES, sample_ids=np.array(IDS), y=np.arange(N))
    record = load_representation(f"{tmp_path / 'a.npz'}:feats")
    assert record.sample_ids is not None
    assert record.sample_ids.tolist() == IDS
    assert record.labels is not None
    assert record.labels.tolist() == [str(i) for i in range(N)]
    assert record.name == "a:feats"


def test_bfloat16(tmp_path: Path) -> None:
    save_file({"a": torch.from_numpy(VALUES).bfloat16()}, tmp_path / "a.safetensors")
    values = load_representation(str(tmp_path / "a.safetensors")).values
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, VALUES, rtol=1e-2)


def test_a_name_with_a_colon_or_several_dots(tmp_path: Path) -> None:
    np.save(tmp_path / "resnet.npz:x.layer4.npy", VALUES)
    assert load_representation(str(tmp_path / "resnet.npz:x.layer4.npy")).n == N


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.npy", True),
        ("dir.x/a.NPZ:key", True),
        ("a.safetensors:model.layer", True),
        ("a.parquet", True),
        ("digits-cnn", False),
        ("timm:resnet18.a1_in1k", False),
        ("file:weights.safetensors?arch=timm:resnet18", False),
        ("outputs/digits/x", False),
    ],
)
def test_what_is_written_like_an_array(text: str, expected: bool) -> None:
    assert is_array(text) is expected


class TestValues:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.zeros(5), r"shape \(5,\), expected \(n, d\)"),
            (np.zeros((5, 3, 2)), r"shape \(5, 3, 2\), expected \(n, d\)"),
            (np.zeros((1, 3)), "1 row, expected at least 2"),
            (np.zeros((5, 0)), "at least one column"),
            (np.zeros((5, 3), complex), "complex128, expected real numbers"),
            (np.array([["a", "b"], ["c", "d"]]), "expected real numbers"),
        ],
    )
    def test_wrong_arrays(self, tmp_path: Path, values: np.ndarray, message: str) -> None:
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(InputError, match=message):
            load_representation(str(tmp_path / "x.npy"))

    def test_rows_that_are_not_finite_are_named(self, tmp_path: Path) -> None:
        values = VALUES.copy()
        values[3, 1], values[7, 0] = np.nan, np.inf
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(InputError, match="2 of 12 rows hold NaN or infinity: rows 3, 7"):
            load_representation(str(tmp_path / "x.npy"))
        with pytest.raises(InputError, match=r"40 of 40 rows .* and 30 more"):
            check_values(np.full((40, 2), np.nan), "x")

    def test_rows_are_checked_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rdxcli.datasets.arrays._BLOCK", 100)
        values = np.zeros((1000, 7))
        values[[0, 13, 999], [0, 6, 3]] = np.nan
        assert bad_rows(values).tolist() == [0, 13, 999]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_floats_are_not_copied(self, dtype: type) -> None:
        values = np.ones((4, 3), dtype)
        assert check_values(values, "x") is values

    def test_integers_keep_their_value(self) -> None:
        assert check_values(np.array([[1, 2], [3, 4]], np.int64), "x").dtype == np.float32
        big = np.array([[2**24 + 1, 0], [0, 1]], np.int64)
        assert np.array_equal(check_values(big, "x"), big)
        assert check_values(np.eye(3, dtype=bool), "x").tolist() == np.eye(3).tolist()

    def test_foreign_byte_order(self) -> None:
        values = check_values(VALUES.astype(">f4"), "x")
        assert values.dtype == np.float32
        assert values.dtype.isnative
        np.testing.assert_array_equal(values, VALUES)

    @pytest.mark.parametrize(
        ("pool", "reduce"),
        [("auto", lambda x: x.mean((2, 3))), ("max", lambda x: x.max((2, 3))), ("first", lambda x: x[:, :, 0, 0])],
    )
    def test_maps_are_pooled(self, pool: str, reduce: object) -> None:
        maps = np.random.default_rng(1).normal(size=(6, 4, 3, 2)).astype(np.float32)
        np.testing.assert_allclose(check_values(maps, "x", pool=pool), reduce(maps), rtol=1e-5)  # type: ignore[operator]
        assert check_values(maps, "x", spatial=True) is maps
        with pytest.raises(InputError, match=r"expected \(n, d\)"):
            check_values(maps, "x", pool="none")


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        np.save(tmp_path / "features.npy", VALUES)
        with pytest.raises(MissingDataError, match="no such file of arrays") as caught:
            load_representation(str(tmp_path / "feature.npy"))
        assert "features.npy" in (caught.value.hint or "")
        (tmp_path / "d.npy").mkdir()
        with pytest.raises(InputError, match="is a folder"):
            load_representation(str(tmp_path / "d.npy"))

    @pytest.mark.parametrize("ending", ["npy", "npz", "safetensors", "parquet", "pt"])
    @pytest.mark.parametrize("content", [b"", b"garbage" * 40, b"\x93NUMPY\x01\x00v\x00{'descr'"])
    def test_damaged(self, tmp_path: Path, ending: str, content: bytes) -> None:
        (tmp_path / f"x.{ending}").write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read|is empty|pickled"):
            load_representation(str(tmp_path / f"x.{ending}"))

    def test_truncated(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", VALUES)
        content = (tmp_path / "x.npy").read_bytes()
        (tmp_path / "x.npy").write_bytes(content[:-10])
        with pytest.raises(InputError, match="cannot be read"):
            load_representation(str(tmp_path / "x.npy"))

    @pytest.mark.parametrize("ending", ["npy", "npz", "pt"])
    def test_pickles_are_never_loaded(self, tmp_path: Path, ending: str) -> None:
        marker = tmp_path / "ran"

        class Evil:
            def __reduce__(self) -> tuple:
                return (Path.touch, (marker,))

        evil = np.array([Evil(), 1], dtype=object)
        path = tmp_path / f"x.{ending}"
        if ending == "npy":
            np.save(path, evil, allow_pickle=True)
        elif ending == "npz":
            np.savez(path, a=evil)
        else:
            torch.save({"a": Evil()}, path)
        with pytest.raises(InputError, match=r"pickled|cannot be read"):
            load_representation(str(path))
        assert not marker.exists()

    @pytest.mark.parametrize("form", ["npz-key", "safetensors-key", "parquet-fixed"])
    def test_an_unknown_key_lists_the_keys(self, tmp_path: Path, form: str) -> None:
        path = write(tmp_path, form).rpartition(":")[0]
        with pytest.raises(InputError, match=r"no (array|column) `nope`; keys are: "):
            load_representation(f"{path}:nope")

    def test_a_key_is_needed(self, tmp_path: Path) -> None:
        path = write(tmp_path, "npz-key").rpartition(":")[0]
        with pytest.raises(InputError, match="3 arrays; keys are: other, feats, order") as caught:
            load_representation(path)
        assert caught.value.hint == f"write `{path}:KEY`"

    def test_no_key_is_needed(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="has no key `x`"):
            load_representation(write(tmp_path, "npy") + ":x")

    def test_tables_of_text(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"word": ["a", "b"], "other": ["c", "d"]}), tmp_path / "x.parquet")
        with pytest.raises(InputError, match="columns are: word, other"):
            load_representation(str(tmp_path / "x.parquet"))
        with pytest.raises(InputError, match="`word` holds string, expected numbers"):
            load_representation(f"{tmp_path / 'x.parquet'}:word")

    def test_lists_of_different_lengths(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0]]}), tmp_path / "x.parquet")
        with pytest.raises(InputError, match=r"different lengths: \[1, 2\]"):
            load_representation(str(tmp_path / "x.parquet"))
        pq.write_table(pa.table({"x": [[1.0, 2.0], None]}), tmp_path / "x.parquet")
        with pytest.raises(InputError, match="empty in row 1"):
            load_representation(str(tmp_path / "x.parquet"))

    def test_missing_numbers_are_rows_that_are_not_finite(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text("a,b\n1,2\n,3\n4,5\n")
        with pytest.raises(InputError, match="row 1"):
            load_representation(str(tmp_path / "x.csv"))


class TestRows:
    @pytest.mark.parametrize("form", ["npy", "npy-float", "txt", "csv", "csv-bare", "json", "parquet"])
    def test_labels(self, tmp_path: Path, form: str) -> None:
        numbers = [str(i % 3) for i in range(N)]
        path = tmp_path / f"y.{form.partition('-')[0]}"
        match form:
            case "npy":
                np.save(path, np.array(numbers, int))
            case "npy-float":
                np.save(path, np.array(numbers, float)[:, None])
            case "txt" | "csv-bare":
                path.write_text("\n".join(numbers) + "\n")
            case "csv":
                path.write_text("row,label\n" + "".join(f"{i},{y}\n" for i, y in enumerate(numbers)))
            case "json":
                path.write_text(json.dumps([int(y) for y in numbers]))
            case "parquet":
                pq.write_table(pa.table({"Label": numbers, "row": list(range(N))}), path)
        record = load_representation(write(tmp_path, "npy"), labels=path)
        assert record.labels is not None
        assert record.labels.tolist() == numbers

    def test_labels_with_ids_are_matched_by_id(self, tmp_path: Path) -> None:
        (tmp_path / "ids.txt").write_text("\n".join(IDS))
        rows = sorted(zip(IDS, LABELS, strict=True), reverse=True)
        (tmp_path / "y.csv").write_text("id,label\nextra,cow\n" + "".join(f"{i},{y}\n" for i, y in rows))
        record = load_representation(write(tmp_path, "npy"), labels=tmp_path / "y.csv", sample_ids=tmp_path / "ids.txt")
        assert record.labels is not None
        assert record.labels.tolist() == LABELS
        (tmp_path / "y.csv").write_text("id,label\nimg_00,cow\n")
        with pytest.raises(InputError, match="no label for 11 of 12 sample ids of a, for example `img_01`"):
            load_representation(write(tmp_path, "npy"), labels=tmp_path / "y.csv", sample_ids=tmp_path / "ids.txt")

    def test_wrong_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "few.txt").write_text("a\nb\n")
        with pytest.raises(InputError, match="2 labels for the 12 rows"):
            load_representation(write(tmp_path, "npy"), labels=tmp_path / "few.txt")
        with pytest.raises(InputError, match="12 rows but 2 sample ids"):
            load_representation(write(tmp_path, "npy"), sample_ids=tmp_path / "few.txt")
        (tmp_path / "twice.txt").write_text("\n".join([*IDS[:-1], IDS[0]]))
        with pytest.raises(InputError, match="`img_00` occurs in rows 0 and 11"):
            load_representation(write(tmp_path, "npy"), sample_ids=tmp_path / "twice.txt")

    def test_tables_without_the_column(self, tmp_path: Path) -> None:
        (tmp_path / "y.csv").write_text("colour,size\nred,1\n")
        with pytest.raises(InputError, match="no column of labels; columns are: colour, size"):
            load_representation(write(tmp_path, "npy"), labels=tmp_path / "y.csv")

    def test_images_by_id_and_by_order(self, tmp_path: Path) -> None:
        for name in IDS:
            (tmp_path / "images").mkdir(exist_ok=True)
            Image.new("L", (4, 4)).save(tmp_path / "images" / f"{name}.png")
        by_order = load_representation(write(tmp_path, "npy"), images=tmp_path / "images")
        assert by_order.sample_ids is not None
        assert by_order.sample_ids.tolist() == [f"{name}.png" for name in IDS]
        assert by_order.dataset == f"images:{tmp_path / 'images'}"
        (tmp_path / "ids.txt").write_text("\n".join(IDS))
        by_id = load_representation(write(tmp_path, "npy"), images=tmp_path / "images", sample_ids=tmp_path / "ids.txt")
        assert by_id.sample_ids is not None
        assert by_id.sample_ids.tolist() == IDS
        (tmp_path / "images" / f"{IDS[4]}.png").unlink()
        with pytest.raises(InputError, match="no image for 1 of 12 sample ids of a, for example `img_04`"):
            load_representation(write(tmp_path, "npy"), images=tmp_path / "images", sample_ids=tmp_path / "ids.txt")
        with pytest.raises(InputError, match="12 rows without ids but 11 images"):
            load_representation(write(tmp_path, "npy"), images=tmp_path / "images")


class TestConcepts:
    def test_dense_sparse_and_named(self, tmp_path: Path) -> None:
        scores = np.abs(VALUES) * (VALUES > 0)
        np.save(tmp_path / "c.npy", scores)
        sp.save_npz(tmp_path / "c.npz", sp.csr_array(scores))
        (tmp_path / "names.txt").write_text("sky\nroad\ntree\ncar\nsign\n")
        dense = load_concepts(str(tmp_path / "c.npy"), names=tmp_path / "names.txt")
        sparse = load_concepts(str(tmp_path / "c.npz"))
        assert list(dense.names) == ["sky", "road", "tree", "car", "sign"]
        assert sparse.names[1] == "concept1"
        np.testing.assert_array_equal(sparse.values.toarray(), dense.values)  # type: ignore[union-attr]
        pq.write_table(pa.table({"sky": scores[:, 0], "id": IDS}), tmp_path / "c.parquet")
        table = load_concepts(str(tmp_path / "c.parquet"))
        assert list(table.names) == ["sky"]
        assert table.sample_ids is not None
        assert table.sample_ids.tolist() == IDS

    def test_mistakes(self, tmp_path: Path) -> None:
        np.save(tmp_path / "c.npy", VALUES)
        with pytest.raises(InputError, match="5 columns but 2 concept names"):
            load_concepts(str(tmp_path / "c.npy"), names=["a", "b"])
        sp.save_npz(tmp_path / "c.npz", sp.csr_array(np.array([[np.nan, 0.0]])))
        with pytest.raises(InputError, match="NaN"):
            load_concepts(str(tmp_path / "c.npz"))
        with pytest.raises(InputError, match="sparse matrix"):
            load_representation(str(tmp_path / "c.npz"))
