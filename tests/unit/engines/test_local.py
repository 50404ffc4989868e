"""The local engine: overlap, failures, memory, independence of how it runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdxcli.engines.local import RunOptions, RunReport, run_local
from rdxcli.engines.shards import ShardPlan, ShardStore, assemble
from rdxcli.engines.tasks import ShardTask, is_out_of_memory, join_outputs, split_batch
from rdxcli.errors import RdxError

N = 50
IDS = [f"s{i:02d}" for i in range(N)]


class Squares(ShardTask):
    """Row r gives (r, r^2) and, as a second output, one mapping."""

    outputs = ("numbers", "words")

    def __init__(self, broken: Sequence[int] = (), room: int | None = None, nan: Sequence[int] = ()) -> None:
        self.broken, self.room, self.nan = set(broken), room, set(nan)
        self.prepared: list[int] = []
        self.sizes: list[int] = []
        self.recovered = 0
        self.threads: set[str] = set()

    def prepare(self, row: int) -> np.ndarray:
        self.prepared.append(row)
        self.threads.add(threading.current_thread().name)
        if row in self.broken:
            raise OSError(f"cannot identify image {row}")
        return np.array([row], np.float32)

    def run(self, batch: np.ndarray) -> Mapping[str, Any]:
        if self.room is not None and len(batch) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.sizes.append(len(batch))
        values = np.concatenate([batch, batch**2], axis=1)
        values[np.isin(batch[:, 0], list(self.nan))] = np.nan
        return {"numbers": values, "words": [{"row": int(row)} for row in batch[:, 0]]}

    def recover(self) -> None:
        self.recovered += 1


def run(folder: Path, task: ShardTask, plan: ShardPlan = ShardPlan(N, 16, 8), **options: Any) -> RunReport:
    stores = {name: ShardStore(folder / name, IDS) for name in task.outputs}
    return run_local(task, plan, stores, RunOptions(**options))


def gather(folder: Path, plan: ShardPlan = ShardPlan(N, 16, 8)) -> np.ndarray:
    assemble(ShardStore(folder / "numbers", IDS), plan, folder / "a.npy", folder / "s.parquet")
    return np.load(folder / "a.npy")


@pytest.mark.parametrize(("batch", "workers"), [(8, 1), (8, 4), (3, 2), (16, 0), (50, 3)])
def test_results_do_not_depend_on_batch_size_or_workers(tmp_path: Path, batch: int, workers: int) -> None:
    report = run(tmp_path, Squares(), workers=workers, batch_size=batch)
    expected = np.stack([np.arange(N), np.arange(N) ** 2], axis=1).astype(np.float32)
    np.testing.assert_array_equal(gather(tmp_path), expected)
    assert report.computed == N
    assert report.failures == []


def test_samples_are_prepared_by_worker_threads_ahead_of_computing(tmp_path: Path) -> None:
    task = Squares()
    seen: list[int] = []
    plain = task.run

    # while the first batch is computed, samples of later batches must get prepared
    def slow(batch: np.ndarray) -> Mapping[str, Any]:
        deadline = time.monotonic() + 10
        while len(task.prepared) <= len(batch) and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(len(task.prepared))
        return plain(batch)

    task.run = slow  # type: ignore[method-assign]
    run(tmp_path, task, workers=2)
    assert seen[0] > 8
    assert all(name.startswith("rdx-decode") for name in task.threads)


def test_preparation_stays_a_few_batches_ahead(tmp_path: Path) -> None:
    task = Squares()
    ahead: list[int] = []
    plain = task.run

    def watch(batch: np.ndarray) -> Mapping[str, Any]:
        time.sleep(0.02)
        ahead.append(len(task.prepared) - int(batch[-1, 0]))
        return plain(batch)

    task.run = watch  # type: ignore[method-assign]
    run(tmp_path, task, plan=ShardPlan(N, 16, 2), workers=2)
    assert max(ahead) <= 2 * 8


def test_finished_shards_are_not_computed_again(tmp_path: Path) -> None:
    run(tmp_path, Squares())
    (tmp_path / "numbers" / "00002.done").unlink()
    task = Squares()
    report = run(tmp_path, task)
    assert sorted(task.prepared) == list(range(32, 48))
    assert (report.computed, report.resumed) == (16, N - 16)


def test_only_the_missing_output_of_a_shard_is_written(tmp_path: Path) -> None:
    run(tmp_path, Squares())
    (tmp_path / "words" / "00001.done").unlink()
    kept = (tmp_path / "numbers" / "00001.npy").stat().st_mtime_ns
    run(tmp_path, Squares())
    assert (tmp_path / "numbers" / "00001.npy").stat().st_mtime_ns == kept
    plan, words = ShardPlan(N, 16, 8), ShardStore(tmp_path / "words", IDS)
    assert all(words.done(shard, rows=plan.rows(shard)) for shard in range(len(plan)))


def test_broken_samples_are_recorded_and_skipped(tmp_path: Path) -> None:
    broken = [0, 7, 16, 17, 18, 19, 20, 21, 22, 23, 49]  # one batch is lost completely
    report = run(tmp_path, Squares(broken), workers=3)
    assert [failure.row for failure in report.failures] == broken
    assert report.failures[1].error == "OSError: cannot identify image 7"
    values = gather(tmp_path)
    assert values[:, 0].tolist() == [row for row in range(N) if row not in broken]
    again = run(tmp_path, Squares())
    assert again.failures == report.failures
    assert again.computed == 0


def test_strict_makes_the_first_failure_fatal(tmp_path: Path) -> None:
    with pytest.raises(RdxError, match=r"s07: OSError: cannot identify image 7"):
        run(tmp_path, Squares([7, 9]), strict=True)
    run(tmp_path, Squares([20]))
    with pytest.raises(RdxError, match="s20"):
        run(tmp_path, Squares(), strict=True)


def test_max_errors(tmp_path: Path) -> None:
    assert len(run(tmp_path / "a", Squares([1, 30]), max_errors=2).failures) == 2
    with pytest.raises(RdxError, match="2 samples failed, --max-errors allows 1; the last, s30"):
        run(tmp_path / "b", Squares([1, 30]), max_errors=1)


def test_out_of_memory_halves_the_batch_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rdxcli")
    task = Squares(room=5)
    report = run(tmp_path, task)
    assert caplog.messages == ["out of memory with a batch of 8: going on with batches of 4"]
    assert max(task.sizes) == 4
    assert task.recovered == 1
    assert report.batch_size == 4
    assert gather(tmp_path)[:, 0].tolist() == list(range(N))


def test_out_of_memory_may_halve_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rdxcli")
    run(tmp_path, Squares(room=1))
    assert [message.rsplit(" ", 1)[1] for message in caplog.messages] == ["4", "2", "1"]
    assert gather(tmp_path)[:, 1].tolist() == [float(row**2) for row in range(N)]


def test_out_of_memory_with_one_sample_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RdxError, match="out of memory with a single one"):
        run(tmp_path, Squares(room=0))


def test_other_errors_of_the_model_are_not_swallowed(tmp_path: Path) -> None:
    task = Squares()

    def fail(batch: np.ndarray) -> Mapping[str, Any]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    task.run = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="mat1"):
        run(tmp_path, task)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rdx-")]


def test_results_that_are_not_numbers_are_failures_of_that_output_only(tmp_path: Path) -> None:
    report = run(tmp_path, Squares(nan=[3, 40]))
    assert [failure.row for failure in report.failures] == [3, 40]
    assert "NaN or infinity (numbers)" in report.failures[0].error
    assert len(gather(tmp_path)) == N - 2
    assert ShardStore(tmp_path / "words", IDS).marker(0) == {
        "ok": 16,
        "failed": 0,
        "files": (ShardStore(tmp_path / "words", IDS).marker(0) or {})["files"],
    }


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("a file where a folder must be")
    with pytest.raises(OSError, match="numbers"):
        run(tmp_path, Squares())


def test_lookahead_gives_the_same(tmp_path: Path) -> None:
    task = Squares([5])
    task.lookahead = 1
    fetched: list[int] = []
    started: list[int] = []
    plain = task.run
    task.run = lambda batch: started.append(1) or batch  # type: ignore[func-returns-value, method-assign]

    def fetch(batch: np.ndarray) -> Mapping[str, Any]:
        fetched.append(len(started))
        return plain(batch)

    task.fetch = fetch  # type: ignore[method-assign]
    run(tmp_path, task)
    assert gather(tmp_path)[:, 0].tolist() == [row for row in range(N) if row != 5]
    assert fetched[0] == 2  # the second batch was started before the first was fetched


def test_the_bottleneck_is_stated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "rdxcli")
    monkeypatch.setattr("rdxcli.engines.local.REPORT_AFTER", 0.0)
    task = Squares()
    plain = task.prepare

    def slow(row: int) -> np.ndarray:
        time.sleep(0.002)
        return plain(row)

    task.prepare = slow  # type: ignore[method-assign]
    report = run(tmp_path, task)
    assert report.bottleneck == "decoding"
    (message,) = [text for text in caplog.messages if "time goes into" in text]
    assert "decoding" in message
    assert "samples/s" in message


def test_pieces_of_a_batch() -> None:
    batch = {"x": np.arange(5), "y": list("abcde")}
    pieces = split_batch(batch, 2)
    assert [piece["y"] for piece in pieces] == [["a", "b", "c"], ["d", "e"]]
    joined = join_outputs([{"o": piece["x"], "t": [{"v": v} for v in piece["y"]]} for piece in pieces])
    assert joined["o"].tolist() == [0, 1, 2, 3, 4]
    assert [row["v"] for row in joined["t"]] == list("abcde")


def test_what_counts_as_out_of_memory() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
