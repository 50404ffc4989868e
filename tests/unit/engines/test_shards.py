"""The plan of shards, their storage, and their assembly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdxcli.engines.shards import Failure, ShardPlan, ShardResult, ShardStore, assemble
from rdxcli.errors import ArtifactError

IDS = [f"s{i}" for i in range(10)]
PLAN = ShardPlan(10, 4, 2)


def filled(folder: Path, failed: tuple[int, ...] = ()) -> ShardStore:
    store = ShardStore(folder, IDS)
    for shard in range(len(PLAN)):
        rows = PLAN.rows(shard)
        values = np.array([[row, row / 2] for row in rows if row not in failed], np.float32).reshape(-1, 2)
        store.write(shard, rows, ShardResult(values, [Failure(r, IDS[r], "broken") for r in rows if r in failed]))
    return store


@given(n=st.integers(1, 5000), batch=st.integers(1, 600), row_bytes=st.integers(0, 2**24))
def test_plans_cover_every_row_once_with_batches_that_do_not_depend_on_the_shards(
    n: int, batch: int, row_bytes: int
) -> None:
    plan = ShardPlan.of(n, batch, row_bytes)
    batches = [rows for shard in range(len(plan)) for rows in plan.batches(shard)]
    size = min(n, batch)
    assert [row for rows in batches for row in rows] == list(range(n))
    assert [len(rows) for rows in batches] == [size] * (n // size) + ([n % size] if n % size else [])


def test_a_plan_is_settled_once(tmp_path: Path) -> None:
    first = ShardPlan.of(1000, 64).settle(tmp_path / "shards")
    assert ShardPlan.of(1000, 32).settle(tmp_path / "shards") == first
    with pytest.raises(ArtifactError, match="1,000 rows, not 900"):
        ShardPlan.of(900, 64).settle(tmp_path / "shards")
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["plan.json"]


def test_a_shard_counts_only_with_its_marker_and_whole_files(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert all(store.done(shard) for shard in range(3))
    (tmp_path / "00001.done").unlink()
    assert not store.done(1)
    data = tmp_path / "00002.npy"
    data.write_bytes(data.read_bytes()[:-1])
    assert not store.done(2)
    (tmp_path / "00000.done").write_text("{")
    assert not store.done(0)


def test_assembly_aligns_rows_and_puts_failures_last(tmp_path: Path) -> None:
    store = filled(tmp_path / "shards", failed=(1, 9))
    done = assemble(store, PLAN, tmp_path / "a.npy", tmp_path / "s.parquet", {"label": list("abcdefghij"), "no": None})
    values = np.load(tmp_path / "a.npy")
    table = pq.read_table(tmp_path / "s.parquet").to_pydict()
    assert done.rows == 8
    assert done.shape == (8, 2)
    assert [f"s{int(v)}" for v in values[:, 0]] == table["sample_id"][:8]
    assert table["sample_id"][8:] == ["s1", "s9"]
    assert table["status"] == ["ok"] * 8 + ["failed"] * 2
    assert table["error"] == [None] * 8 + ["broken"] * 2
    assert table["label"][8:] == ["b", "j"]
    assert list(table) == ["sample_id", "label", "status", "error"]
    assert [failure.row for failure in done.failures] == [1, 9]


def test_assembly_is_byte_identical(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assemble(filled(tmp_path / name, failed=(3,)), PLAN, tmp_path / f"{name}.npy", tmp_path / f"{name}.parquet")
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_assembly_refuses_unfinished_and_empty_work(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    store._path(1, "done").unlink()
    with pytest.raises(ArtifactError, match="shard 1 is not finished"):
        assemble(store, PLAN, tmp_path / "a.npy", tmp_path / "s.parquet")
    with pytest.raises(ArtifactError, match="all 10 samples failed; the first, s0: broken"):
        assemble(filled(tmp_path / "b", tuple(range(10))), PLAN, tmp_path / "a.npy", tmp_path / "s.parquet")


def test_a_shard_that_failed_completely_may_be_tried_again(tmp_path: Path) -> None:
    store = filled(tmp_path, failed=(4, 5, 6, 7))
    assert store.done(1)
    assert not store.done(1, retry_empty=True)
    assert store.done(0, retry_empty=True)


def test_rows_of_text(tmp_path: Path) -> None:
    store = ShardStore(tmp_path / "shards", IDS)
    for shard in range(len(PLAN)):
        store.write(shard, PLAN.rows(shard), ShardResult([{"caption": f"größe {row}"} for row in PLAN.rows(shard)]))
    assemble(store, PLAN, tmp_path / "captions.jsonl", tmp_path / "s.parquet")
    lines = (tmp_path / "captions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["caption"] for line in lines] == [f"größe {row}" for row in range(10)]


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    filled(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "fault",
    ["data swapped", "shards swapped", "of another run", "table cut", "table swapped", "marker edited", "sizes edited"],
)
def test_shards_that_are_not_what_they_say(tmp_path: Path, fault: str) -> None:
    """Nothing of it reaches the array: a shard counts as unfinished, or its damage is found while it is joined."""
    plan = ShardPlan(6, 2, 2)
    stores = [ShardStore(tmp_path / str(i), [str(i) for i in range(6)], f"request {i}") for i in range(2)]
    for number, store in enumerate(stores):
        store.folder.mkdir()
        for shard in range(3):
            values = np.full((2, 3), 10 * number + shard, np.float32)
            store.write(
                shard, plan.rows(shard), ShardResult(values[:1], [Failure(2 * shard + 1, str(2 * shard + 1), "x")])
            )
    first, other = (store.folder for store in stores)

    def swap(*kinds: str) -> None:
        for kind in kinds:
            one, two = (first / f"0000{i}.{kind}" for i in (0, 1))
            content = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(content)

    marker = first / "00001.done"
    if fault == "data swapped":
        swap("npy")
    elif fault == "shards swapped":
        swap("npy", "parquet", "done")
    elif fault == "of another run":
        for kind in ("npy", "parquet", "done"):
            (first / f"00001.{kind}").write_bytes((other / f"00001.{kind}").read_bytes())
    elif fault == "table cut":
        (first / "00001.parquet").write_bytes((first / "00001.parquet").read_bytes()[:-5])
    elif fault == "table swapped":
        swap("parquet")
    elif fault == "marker edited":
        marker.write_text(marker.read_text().replace('"ok": 1', '"ok": 2'))
    else:  # a file and its size in the marker, both changed by the same hand
        (first / "00001.npy").write_bytes((first / "00001.npy").read_bytes() + b"x")
        size = (first / "00001.npy").stat().st_size
        document = json.loads(marker.read_text())
        document["files"]["00001.npy"][0] = size
        marker.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"is damaged|is not finished"):
        assemble(stores[0], plan, tmp_path / "a.npy", tmp_path / "s.parquet")
    assert not all(stores[0].done(shard, rows=plan.rows(shard)) for shard in range(3))
