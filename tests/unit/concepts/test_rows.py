"""Concept scores are joined to the rows of the representation by ids or numbers, and never silently by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdxcli.concepts.gather import _rows
from rdxcli.datasets.arrays import load_concepts, load_representation

N = 20


def rows_of(units: Path, concepts: Path) -> tuple[list[int], list[str]]:
    record, matrix = load_representation(str(units)), load_concepts(str(concepts))
    rows, notes = _rows(matrix.sample_ids, N, matrix.source.get("seen"), record, concepts.name)
    return list(range(N)) if rows is None else rows.tolist(), notes


def test_numbers_of_shuffled_tables(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    order = np.random.default_rng(0).permutation(N)
    frame = pandas.DataFrame({"cat": np.arange(N) / N, "dog": np.arange(N) / 3})
    frame.to_csv(tmp_path / "straight.csv")
    frame.iloc[order].to_csv(tmp_path / "shuffled.csv")
    np.save(tmp_path / "plain.npy", frame.to_numpy())
    straight, shuffled, plain = (tmp_path / name for name in ("straight.csv", "shuffled.csv", "plain.npy"))
    assert rows_of(straight, straight) == (list(range(N)), [])
    assert rows_of(straight, shuffled) == (np.argsort(order).tolist(), [])
    assert rows_of(shuffled, straight) == (order.tolist(), [])
    rows, notes = rows_of(plain, shuffled)
    assert rows == list(range(N))
    assert notes == ["plain has no sample ids: its rows are taken to be in the order of shuffled.csv"]
    assert rows_of(plain, straight) == (list(range(N)), [])


def test_folders_in_one_file_only(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in range(N)]
    np.savez(tmp_path / "units.npz", features=np.eye(N), ids=names)
    np.savez(tmp_path / "concepts.npz", features=np.eye(N)[::-1], ids=[f"photos/{name}" for name in names[::-1]])
    rows, notes = rows_of(tmp_path / "units.npz", tmp_path / "concepts.npz")
    assert rows == list(range(N))[::-1]
    assert notes == [f"{N} ids differ in their folder between units and concepts.npz: taken as one"]
