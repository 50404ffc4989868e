"""Files of arrays and output folders of other tools, each made as its tool makes it."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch

from rdxcli.datasets.arrays import is_array, load_representation
from rdxcli.datasets.selection import Choice
from rdxcli.errors import InputError
from rdxcli.representations.joining import join
from rdxcli.representations.memory import from_memory

N, D = 20, 6
VALUES = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
IDS = [f"photos/{i:02d} é.jpg" for i in range(N)]
LABELS = ["cat" if i % 2 else "dog" for i in range(N)]


class TestRaw:
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<f2", "float64"])
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("ending", ["bin", "dat", "raw", "memmap", "npy"])
    def test_memory_maps_of_any_byte_order(self, tmp_path: Path, dtype: str, order: str, ending: str) -> None:
        (tmp_path / f"a.{ending}").write_bytes(VALUES.astype(dtype).tobytes(order))  # type: ignore[arg-type]
        record = load_representation(f"{tmp_path / f'a.{ending}'}:{dtype},{N}x{D},{order}")
        assert record.values.dtype.isnative
        np.testing.assert_allclose(record.values, VALUES, rtol=1e-2, atol=1e-3)

    def test_what_it_holds_must_be_said(self, tmp_path: Path) -> None:
        VALUES.tofile(tmp_path / "a.bin")
        with pytest.raises(InputError, match="has no header") as caught:
            load_representation(str(tmp_path / "a.bin"))
        assert "float32,1000x64" in (caught.value.hint or "")
        with pytest.raises(InputError, match="has 480 bytes"):
            load_representation(f"{tmp_path / 'a.bin'}:float64,{N}x{D}")
        with pytest.raises(InputError, match="unknown type"):
            load_representation(f"{tmp_path / 'a.bin'}:float33,{N}x{D}")


def test_bfloat16_that_numpy_stored(tmp_path: Path) -> None:
    half = (VALUES.view(np.uint32) >> 16).astype(np.uint16)
    np.save(tmp_path / "a.npy", half.view("V2"))
    np.testing.assert_allclose(load_representation(str(tmp_path / "a.npy")).values, VALUES, rtol=1e-2)


class TestMatlab:
    def test_matrix_names_and_classes(self, tmp_path: Path) -> None:
        cells = np.empty((N, 1), object)
        cells[:, 0] = IDS
        scipy.io.savemat(tmp_path / "a.mat", {"X": VALUES, "filenames": cells, "labels": np.arange(N)[:, None] + 1.0})
        record = load_representation(str(tmp_path / "a.mat"))
        np.testing.assert_array_equal(record.values, VALUES)
        assert record.sample_ids is not None
        assert record.labels is not None
        assert record.sample_ids.tolist() == IDS
        assert record.labels[0] == "1"

    def test_two_matrices_need_a_key(self, tmp_path: Path) -> None:
        scipy.io.savemat(tmp_path / "a.mat", {"X": VALUES, "Y": VALUES * 2})
        with pytest.raises(InputError, match="keys are: X, Y"):
            load_representation(str(tmp_path / "a.mat"))
        np.testing.assert_array_equal(load_representation(f"{tmp_path / 'a.mat'}:Y").values, VALUES * 2)


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["model/features"] = VALUES
        file["model/image_path"] = IDS
        file["label"] = [name.encode() for name in LABELS]
    record = load_representation(str(tmp_path / "a.h5"))
    np.testing.assert_array_equal(record.values, VALUES)
    assert record.sample_ids is not None
    assert record.labels is not None
    assert (record.sample_ids.tolist(), record.labels.tolist()) == (IDS, LABELS)
    (tmp_path / "b.h5").write_bytes(b"garbage" * 20)
    with pytest.raises(InputError, match="cannot be read"):
        load_representation(str(tmp_path / "b.h5"))


def test_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("features", data=VALUES)
    group.create_array("label", data=np.arange(N))
    record = load_representation(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(record.values, VALUES)
    assert record.labels is not None
    zarr.save_array(tmp_path / "b.zarr", VALUES)
    np.testing.assert_array_equal(load_representation(str(tmp_path / "b.zarr")).values, VALUES)


def thingsvision(folder: Path, values: np.ndarray, kind: str) -> None:
    folder.mkdir()
    (folder / "file_names.txt").write_text("".join(f"{name}\n" for name in IDS))
    match kind:
        case "npy":
            np.save(folder / "features.npy", values)
        case "txt":
            np.savetxt(folder / "features.txt", values)
        case "pt":
            torch.save(torch.from_numpy(values), folder / "features.pt")
        case "pieces":
            for i in (0, 7, 14):
                np.save(folder / f"features_{i}-{min(i + 7, N)}.npy", values[i : i + 7])
        case "hdf5":
            h5py = pytest.importorskip("h5py")
            with h5py.File(folder / "features.h5", "w") as file:
                file.create_dataset("features", data=values)
        case "mat":
            scipy.io.savemat(folder / "features.mat", {"features": values})


def dinotool(folder: Path, values: np.ndarray, kind: str) -> None:
    names = [f"feature_{i}" for i in range(D)]
    pandas = json.dumps({"index_columns": ["filename"], "columns": []}).encode()

    def table(rows: slice, ids: list[str], data: np.ndarray, extra: dict[str, list[int]] | None = None) -> pa.Table:
        columns = {**{n: data[rows, i] for i, n in enumerate(names)}, "filename": ids[rows], **(extra or {})}
        return pa.table(columns).replace_schema_metadata({b"pandas": pandas})

    target = folder if kind == "folder" else folder / "out.parquet"
    folder.mkdir()
    target.mkdir(exist_ok=True)
    if kind == "patches":
        data, ids = np.repeat(values, 4, axis=0), [name for name in IDS for _ in range(4)]
        data = data + np.tile([1, -1, 2, -2], N)[:, None].astype(np.float32)
        pq.write_table(table(slice(None), ids, data, {"patch_idx": [*range(4)] * N}), target / "part.0.parquet")
        return
    for part, rows in enumerate((slice(0, 9), slice(9, N))):
        pq.write_table(table(rows, IDS, values), target / f"part.{part}.parquet")


def clip_retrieval(folder: Path, values: np.ndarray, kind: str) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for part, rows in enumerate((slice(0, 9), slice(9, N))):
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", values[rows].astype(np.float16))
        columns = {"image_path": IDS[rows], "caption": ["a, b"] * len(IDS[rows]), "width": [224] * len(IDS[rows])}
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{part}.parquet")


def fiftyone(folder: Path, values: np.ndarray, kind: str) -> None:
    folder.mkdir()

    def packed(row: np.ndarray) -> object:
        if kind == "lists":
            return row.tolist()
        stream = io.BytesIO()
        np.save(stream, row)
        return {"$binary": {"base64": base64.b64encode(zlib.compress(stream.getvalue())).decode(), "subType": "00"}}

    samples = [
        {
            "filepath": f"data/{name}",
            "ground_truth": {"_cls": "Classification", "label": label},
            "embedding": packed(row),
        }
        for name, label, row in zip(IDS, LABELS, values, strict=True)
    ]
    (folder / "samples.json").write_text(json.dumps({"samples": samples}))
    (folder / "metadata.json").write_text("{}")


FOREIGN = [
    *((thingsvision, kind) for kind in ("npy", "txt", "pt", "pieces", "hdf5", "mat")),
    *((dinotool, kind) for kind in ("folder", "inside", "patches")),
    (clip_retrieval, "parts"),
    *((fiftyone, kind) for kind in ("lists", "packed")),
]


@pytest.mark.parametrize(("make", "kind"), FOREIGN)
def test_two_folders_of_a_tool_are_joined(tmp_path: Path, make: Callable[..., None], kind: str) -> None:
    make(tmp_path / "dino_out", VALUES, kind)
    make(tmp_path / "dinov2_out", VALUES * 2, kind)
    sides = []
    for name in ("dino_out", "dinov2_out"):
        assert is_array(str(tmp_path / name))
        sides.append(load_representation(str(tmp_path / name)))
    joined = join(*sides)
    assert (joined.a.n, joined.by) == (N, "id")
    assert joined.a.sample_ids is not None
    assert joined.a.sample_ids.tolist() == IDS
    assert [side.name for side in sides] == ["dino_out", "dinov2_out"]
    np.testing.assert_allclose(joined.a.values, VALUES, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(joined.b.values, VALUES * 2, rtol=1e-2, atol=1e-3)
    assert "written by" in str(sides[0].source["seen"]["notes"])


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    thingsvision(tmp_path / "a", VALUES, "npy")
    (tmp_path / "a" / "file_names.txt").write_text("one\n")
    with pytest.raises(InputError, match="names 1 file, the features have 20 rows"):
        load_representation(str(tmp_path / "a"))
    clip_retrieval(tmp_path / "b", VALUES, "parts")
    pq.write_table(pa.table({"image_path": ["x"]}), tmp_path / "b" / "metadata" / "metadata_0.parquet")
    with pytest.raises(InputError, match="has 1 row"):
        load_representation(str(tmp_path / "b"))
    fiftyone(tmp_path / "c", VALUES, "lists")
    with pytest.raises(InputError, match="1 field holds vectors: embedding"):
        load_representation(f"{tmp_path / 'c'}:clip")


class TestMemory:
    def test_frames(self) -> None:
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame(VALUES, columns=[f"f{i}" for i in range(D)], index=IDS)
        record = from_memory(frame)
        np.testing.assert_array_equal(record.values, VALUES)
        assert record.sample_ids is not None
        assert record.sample_ids.tolist() == IDS
        record = from_memory(pd.DataFrame(VALUES))
        assert record.sample_ids is None
        assert record.values.dtype == np.float32
        record = from_memory(frame.reset_index(names="path").assign(label=LABELS, row=range(N)))
        np.testing.assert_array_equal(record.values, VALUES)
        assert record.labels is not None
        assert record.labels.tolist() == LABELS
        with pytest.raises(InputError, match="`odd` a feature"):
            from_memory(frame.assign(odd=np.arange(N)[::-1] * 3))
        assert from_memory(frame.assign(odd=np.arange(N)[::-1] * 3), choice=Choice(features="f*")).d == D
        assert from_memory(VALUES, labels=pd.Series(LABELS), sample_ids=pd.Series(IDS)).sample_ids is not None

    def test_tables_tensors_and_arrays(self) -> None:
        table = pa.table({"id": IDS, **{f"f{i}": VALUES[:, i] for i in range(D)}})
        record = from_memory(table)
        assert record.sample_ids is not None
        assert record.sample_ids.tolist() == IDS
        for values in (torch.from_numpy(VALUES).requires_grad_(), torch.from_numpy(VALUES).bfloat16(), VALUES.tolist()):
            np.testing.assert_allclose(from_memory(values).values, VALUES, rtol=1e-2)
        labels = from_memory(VALUES, labels=torch.arange(N)).labels
        assert labels is not None
        assert labels[:2].tolist() == ["0", "1"]
        with pytest.raises(InputError, match="column 0 a feature"):
            from_memory(np.column_stack([np.arange(N), VALUES]))


def test_folders_are_compared_from_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from rdxcli.cli.app import app

    dinotool(tmp_path / "dino_out", VALUES, "folder")
    thingsvision(tmp_path / "dinov2_out", VALUES[:, ::-1].copy(), "npy")
    folders = [str(tmp_path / name) for name in ("dino_out", "dinov2_out")]
    result = CliRunner().invoke(
        app,
        ["compare", *folders, "--k", "2", "--no-test", "--bootstraps", "2", "--outputs", str(tmp_path / "o"), "--json"],
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["n"], document["samples"]["by"]) == (N, "id")
    assert (document["a"]["name"], document["b"]["name"]) == ("dino_out", "dinov2_out")
