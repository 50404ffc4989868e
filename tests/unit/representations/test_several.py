"""Several layers of one thing: arrays of a file in their order, and several records on the samples they share."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from safetensors.numpy import save_file

from rdxcli.datasets.arrayfiles import array_keys
from rdxcli.errors import InputError, RdxError, UsageError
from rdxcli.records import Representation
from rdxcli.representations.joining import join_all
from rdxcli.representations.several import MOST, resolve_layers

LAYERS = {f"layer{i}": np.random.default_rng(i).normal(size=(8, 3)).astype(np.float32) for i in (1, 2, 10)}


def _files(folder: Path) -> list[Path]:
    np.savez(folder / "a.npz", labels=np.arange(8), **LAYERS)
    save_file(LAYERS, folder / "a.safetensors")
    torch.save({name: torch.from_numpy(values) for name, values in LAYERS.items()}, folder / "a.pt")
    scipy.io.savemat(folder / "a.mat", LAYERS)
    with h5py.File(folder / "a.h5", "w") as file:
        for name, values in LAYERS.items():
            file[name] = values
    return [folder / f"a.{ending}" for ending in ("npz", "safetensors", "pt", "mat", "h5")]


def test_every_format_gives_the_layers_in_their_order(tmp_path: Path) -> None:
    for path in _files(tmp_path):
        assert array_keys(str(path)) == list(LAYERS), path
        found = resolve_layers(str(path), "all")
        assert [(record.name, record.layer) for record in found] == [("a", name) for name in LAYERS]
        np.testing.assert_allclose(found[2].values, LAYERS["layer10"])
    labels = resolve_layers(str(tmp_path / "a.npz"), "layer1,layer10")[1].labels
    assert labels is not None
    assert labels.tolist() == [str(i) for i in range(8)]
    assert [record.layer for record in resolve_layers(str(tmp_path / "a.h5"), "layer?")] == ["layer1", "layer2"]


def test_what_is_refused_says_what_there_is(tmp_path: Path) -> None:
    path = _files(tmp_path)[0]
    np.save(tmp_path / "one.npy", LAYERS["layer1"])
    np.savez(tmp_path / "flat.npz", x=np.arange(3))
    np.savez(tmp_path / "many.npz", **{f"l{i}": np.eye(2) for i in range(MOST + 1)})
    for text, layers, said in (
        (str(path), "layer3", "layer1"),
        (str(path), " , ", "no layer is named"),
        (f"{path}:layer1", "all", "one layer"),
        (str(tmp_path / "one.npy"), "all", "one array"),
        (str(tmp_path / "flat.npz"), "all", "no array"),
        (str(tmp_path / "many.npz"), "all", str(MOST)),
        (str(tmp_path / "none.npz"), "all", "none.npz"),
    ):
        with pytest.raises(RdxError) as error:
            resolve_layers(text, layers)
        assert said in f"{error.value.message} {error.value.hint}", (text, layers)


def _record(name: str, ids: list[str], labels: list[str] | None = None) -> Representation:
    values = np.array([[float(sample)] for sample in ids])
    return Representation(values, np.array(ids), name, labels=None if labels is None else np.array(labels))


def test_several_records_are_joined_by_id() -> None:
    a = _record("a", ["3", "1", "2", "4"])
    b = _record("b", ["1", "2", "3", "4"], ["one", "two", "three", "four"])
    c = _record("c", ["4", "5", "3", "2"])
    found, notes = join_all([a, b, c])
    assert [record.values.ravel().tolist() for record in found] == [[3, 2, 4]] * 3
    assert found[0].labels is not None
    assert found[0].labels.tolist() == ["three", "two", "four"]
    assert any("c" in note for note in notes)
    assert join_all([a])[0] == [a]
    with pytest.raises(InputError):
        join_all([a, _record("d", ["7", "8"])])


def test_patterns_of_a_model_are_read_in_one_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from rdxcli.datasets.selection import SelectionOptions

    few = SelectionOptions(limit=6)
    with caplog.at_level("INFO"):
        found = resolve_layers("digits-cnn", "conv1.*,fc", selection=few, outputs=tmp_path, device="cpu")
    assert [record.layer for record in found] == ["conv1.0", "conv1.1", "conv1.2", "conv1.3", "fc"]
    assert sum("extracting" in message for message in caplog.messages) == 1
    again = resolve_layers("digits-cnn", "all", selection=few, outputs=tmp_path, device="cpu")
    assert {record.layer for record in again} > {record.layer for record in found}
    with pytest.raises(UsageError, match="no repeated blocks"):
        resolve_layers("digits-cnn", "blocks", selection=few, outputs=tmp_path, device="cpu")
    assert len(resolve_layers("digits-cnn", "series", selection=few, outputs=tmp_path, device="cpu")) == len(again)
