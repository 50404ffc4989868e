"""Published pickles and tables become safe files with the same numbers."""

from __future__ import annotations

import csv
import io
import json
import pickle  # noqa: TID251  the tests make the files that are converted
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from rdxcli.download import converters
from rdxcli.download.converters import convert, safe_name
from rdxcli.errors import InputError


class Callback:
    """Something that ``weights_only`` refuses."""


def test_names_of_checkpoints() -> None:
    names = ("resnet18_places365.pth.tar", "last.ckpt", "a-7d8c.pt", "x.th", "epoch=1-step=184.ckpt", "plain")
    assert [safe_name(Path(name)).name for name in names] == [
        *("resnet18_places365.safetensors", "last.safetensors", "a-7d8c.safetensors", "x.safetensors"),
        *("epoch=1-step=184.safetensors", "plain.safetensors"),
    ]


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoint_with_prefixes_and_extras(tmp_path: Path, legacy: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    path = tmp_path / "net.pth.tar"
    torch.save(
        {"state_dict": state, "epoch": 90, "best_prec1": 54.2, "arch": "resnet18"},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    assert convert("checkpoint", path) == [tmp_path / "net.safetensors"]
    read = load_file(tmp_path / "net.safetensors")
    assert read.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(read[key], value.numpy())
    with safe_open(tmp_path / "net.safetensors", "np") as opened:
        metadata = opened.metadata()
    assert metadata["source"] == "net.pth.tar"
    assert json.loads(metadata["checkpoint"]) == {"epoch": 90, "best_prec1": 54.2, "arch": "resnet18"}


def test_checkpoint_with_foreign_objects(tmp_path: Path) -> None:
    state = {"conv.weight": torch.randn(2, 3), "conv.bias": torch.zeros(2)}
    path = tmp_path / "last.ckpt"
    torch.save(
        {
            "state_dict": state,
            "callbacks": {"ModelCheckpoint": Callback()},
            "hyper_parameters": {"lr": 1e-3, "batch_size": 128, "loss": Callback()},
            "epoch": 4,
        },
        path,
    )
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        torch.load(path, weights_only=True)
    (written,) = convert("checkpoint", path)
    read = load_file(written)
    for key, value in state.items():
        np.testing.assert_array_equal(read[key], value.numpy())
    with safe_open(written, "np") as opened:
        assert json.loads(opened.metadata()["checkpoint"]) == {"epoch": 4}


def test_shared_tensors_are_written_apart(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    torch.save({"a": weight, "b": weight, "c": weight[::2]}, tmp_path / "x.pt")
    read = load_file(convert("checkpoint", tmp_path / "x.pt")[0])
    np.testing.assert_array_equal(read["c"], [0, 2])
    np.testing.assert_array_equal(read["a"], read["b"])


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(3)])
def test_checkpoint_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError):
        convert("checkpoint", tmp_path / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_checkpoint_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"x\.pt"):
        convert("checkpoint", tmp_path / "x.pt")


def cub_rows(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "img_path": f"/juice/scr/CUB_200_2011/images/00{i}.Bird/Bird_{i}.jpg",
            "class_label": i,
            "attribute_label": [i % 2, 1, 0],
            "attribute_certainty": [3, 4, 1],
            "uncertain_attribute_label": [0.25, 0.5 * i, 1],
        }
        for i in range(count)
    ]


def test_cub_lists(tmp_path: Path) -> None:
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(cub_rows()))
    names = sorted(path.name for path in convert("cub-lists", tmp_path / "train.pkl"))
    assert names == ["train.json", "train.safetensors"]
    rows = json.loads((tmp_path / "train.json").read_text())
    assert rows[2] == {"path": "images/002.Bird/Bird_2.jpg", "class_label": 2}
    arrays = load_file(tmp_path / "train.safetensors")
    np.testing.assert_array_equal(arrays["attribute_label"], [[0, 1, 0], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(arrays["uncertain_attribute_label"][1], np.float32([0.25, 0.5, 1]))


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        [1],
        [{"img_path": "elsewhere/a.jpg", "class_label": 1}],
        [{"img_path": "CUB_200_2011/a", "class_label": "x"}],
    ],
)
def test_cub_lists_of_another_form(tmp_path: Path, content: Any) -> None:
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError):
        convert("cub-lists", tmp_path / "train.pkl")


def test_cifar(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    flat = images.transpose(0, 3, 1, 2).reshape(4, -1)
    content = {b"data": flat, b"fine_labels": [1, 2, 3, 0], b"filenames": [b"a.png", b"b.png", b"c.png", b"d.png"]}
    (tmp_path / "train").write_bytes(pickle.dumps(content, 2))
    convert("cifar", tmp_path / "train")
    np.testing.assert_array_equal(np.load(tmp_path / "train.npy"), images)
    assert json.loads((tmp_path / "train.json").read_text()) == {
        "fine_labels": [1, 2, 3, 0],
        "filenames": ["a.png", "b.png", "c.png", "d.png"],
    }


def test_indices(tmp_path: Path) -> None:
    torch.save(torch.tensor([3, 5, 8]), tmp_path / "train_ids.pt")
    (written,) = convert("indices", tmp_path / "train_ids.pt")
    assert json.loads(written.read_text()) == [3, 5, 8]
    torch.save(torch.rand(3), tmp_path / "x.pt")
    with pytest.raises(InputError, match="row numbers"):
        convert("indices", tmp_path / "x.pt")


def encoded(color: int, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (color, 0, 0)).save(buffer, form)
    return buffer.getvalue()


def test_image_table(tmp_path: Path) -> None:
    bodies = [encoded(9, "PNG"), encoded(8, "JPEG"), encoded(7, "WEBP")]
    table = pa.table({"image": [{"bytes": body, "path": None} for body in bodies], "label": [4, 0, 63]})
    pq.write_table(table, tmp_path / "0000.parquet")
    written = convert("image-table", tmp_path / "0000.parquet")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == [
        *("0000.csv", "0000/000000.png", "0000/000001.jpg", "0000/000002.webp"),
    ]
    with open(tmp_path / "0000.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[2] == {"path": "0000/000002.webp", "label": "63"}
    assert (tmp_path / "0000" / "000001.jpg").read_bytes() == bodies[1]


def test_image_table_without_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": "a"}], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 0 holds no image"):
        convert("image-table", tmp_path / "a.parquet")
    pq.write_table(pa.table({"picture": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no column image or label"):
        convert("image-table", tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable parquet"):
        convert("image-table", tmp_path / "c.parquet")


def test_every_converter_is_tested() -> None:
    assert set(converters.KINDS) == {"checkpoint", "cub-lists", "cifar", "indices", "image-table"}
