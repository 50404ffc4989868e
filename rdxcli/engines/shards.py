"""Shards: the unit in which work over many samples is done, written and resumed.

A `ShardPlan` cuts n rows into a fixed list of shards. A `ShardStore` keeps the finished shards of one output in a
folder:

- ``00003.npy`` or ``00003.jsonl``: what the task made of the rows that went well, in order;
- ``00003.parquet``: ``sample_id``, ``status`` (``ok`` or ``failed``), ``error`` of every row of the shard;
- ``00003.done``: the marker, written last. A shard without it, or whose files have other sizes, does not count.

`assemble` joins the shards of a store into the final files. Several processes may fill one store: files are written
under a name of the process's own and renamed, so that doing a shard twice is wasteful and harmless.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.errors import ArtifactError

OK, FAILED = "ok", "failed"
FOLDER = "shards"
_PLAN = "plan.json"

MIN_SHARD_ROWS, MIN_SHARD_BATCHES = 256, 8
MAX_SHARDS = 4000
MAX_SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ShardPlan:
    """How n rows are cut.

    Parameters
    ----------
    n : int
        Rows.
    shard_rows : int
        Rows of every shard but the last; a multiple of ``batch_size``, so that batches are the same however large
        shards are.
    batch_size : int
        Rows that go through the task at once.
    """

    n: int
    shard_rows: int
    batch_size: int

    @classmethod
    def of(cls, n: int, batch_size: int, row_bytes: int = 0, shard_rows: int | None = None) -> ShardPlan:
        """The plan for ``n`` rows whose outputs take ``row_bytes`` each.

        Shards have ``shard_rows`` rows; by default 256 or eight batches, whichever is more; fewer when they would
        exceed 64 MiB, more when there would be more than 4,000 of them. Whole batches in any case.
        """
        batch = max(1, min(batch_size, n))
        rows = max(MIN_SHARD_ROWS, MIN_SHARD_BATCHES * batch, -(-n // MAX_SHARDS))
        if shard_rows is not None:
            rows = shard_rows
        elif row_bytes:
            rows = min(rows, max(1, MAX_SHARD_BYTES // row_bytes))
        return cls(n, batch * max(1, -(-rows // batch)), batch)

    def __len__(self) -> int:
        return -(-self.n // self.shard_rows)

    def rows(self, shard: int) -> range:
        """Rows of a shard."""
        return range(shard * self.shard_rows, min(self.n, (shard + 1) * self.shard_rows))

    def batches(self, shard: int, batch_size: int | None = None) -> list[range]:
        """The shard's rows in batches."""
        rows, size = self.rows(shard), batch_size or self.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def settle(self, folder: Path) -> ShardPlan:
        """The plan that work in ``folder`` follows: the stored one, else this one, which is stored.

        Raises
        ------
        ArtifactError
            The stored plan is for another number of rows.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _PLAN
        if not path.exists():
            temporary = folder / f"{_PLAN}.{os.getpid()}.tmp"
            temporary.write_text(json.dumps(asdict(self)), "utf-8")
            try:
                os.link(temporary, path)  # unlike a rename, this fails when another process was first
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                os.replace(temporary, path)
            temporary.unlink(missing_ok=True)
        try:
            stored = ShardPlan(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged: {error}", f"remove the folder {folder.parent}") from None
        if stored.n != self.n:
            raise ArtifactError(f"{path} is for {stored.n} rows, not {self.n}", f"remove the folder {folder.parent}")
        return stored


@dataclass(frozen=True)
class Failure:
    """A sample that could not be done."""

    row: int
    sample_id: str
    error: str


@dataclass(frozen=True)
class ShardResult:
    """What a task made of the rows of one shard.

    Parameters
    ----------
    values : ndarray of shape (ok, ...) or list of JSON mappings
        Only rows that went well, in order.
    failures : sequence of Failure
    """

    values: np.ndarray | list[dict[str, Any]]
    failures: Sequence[Failure] = ()


class ShardStore:
    """Finished shards of one output.

    Parameters
    ----------
    folder : Path
        Made when first written to.
    sample_ids : sequence of str
        Of all rows.
    """

    def __init__(self, folder: Path, sample_ids: Sequence[str]) -> None:
        self.folder = folder
        self.sample_ids = sample_ids

    def done(self, shard: int, retry_empty: bool = False) -> bool:
        """Whether the shard is finished and undamaged.

        Parameters
        ----------
        retry_empty : bool
            Do not count a shard of which every row failed: its cause is rarely the images.
        """
        marker = self.marker(shard)
        if marker is None or (retry_empty and not marker["ok"]):
            return False
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, size in marker["files"].items()
        )

    def marker(self, shard: int) -> dict[str, Any] | None:
        """Contents of the shard's marker, or None."""
        try:
            marker = json.loads(self._path(shard, "done").read_text("utf-8"))
            return marker if {"ok", "failed", "files"} <= marker.keys() else None
        except (OSError, ValueError, AttributeError):
            return None

    def write(self, shard: int, rows: range, result: ShardResult) -> None:
        """Write a whole shard: data, status table, and the marker last."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        errors = {failure.row: failure.error for failure in result.failures}
        if len(result.values) != len(rows) - len(errors):
            raise RuntimeError(f"shard {shard}: {len(result.values)} results for {len(rows) - len(errors)} good rows")
        table = pa.table(
            {
                "sample_id": pa.array([self.sample_ids[row] for row in rows], pa.string()),
                "status": pa.array([FAILED if row in errors else OK for row in rows], pa.string()),
                "error": pa.array([errors.get(row) for row in rows], pa.string()),
            }
        )
        sizes: dict[str, int] = {}
        with _replacing(self._path(shard, "parquet"), sizes) as temporary:
            pq.write_table(table, temporary)
        if isinstance(result.values, np.ndarray):
            with _replacing(self._path(shard, "npy"), sizes) as temporary, open(temporary, "wb") as stream:
                np.save(stream, np.ascontiguousarray(result.values), allow_pickle=False)
        else:
            with _replacing(self._path(shard, "jsonl"), sizes) as temporary:
                lines = [json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in result.values]
                temporary.write_text("".join(lines), "utf-8")
        with _replacing(self._path(shard, "done"), {}) as temporary:
            marker = {"ok": len(result.values), "failed": len(errors), "files": sizes}
            temporary.write_text(json.dumps(marker), "utf-8")

    def failures(self, shard: int, rows: range) -> list[Failure]:
        """Samples of a finished shard that failed."""
        import pyarrow.parquet as pq

        marker = self.marker(shard)
        if marker is None or not marker["failed"]:
            return []
        table = pq.read_table(self._path(shard, "parquet")).to_pydict()
        columns = zip(rows, table["sample_id"], table["status"], table["error"], strict=True)
        return [Failure(row, sample, error) for row, sample, status, error in columns if status == FAILED]

    def values(self, shard: int) -> np.ndarray | list[dict[str, Any]]:
        """Results of a finished shard; arrays are memory-mapped."""
        path = self._path(shard, "npy")
        if path.is_file():
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return [json.loads(line) for line in self._path(shard, "jsonl").read_text("utf-8").splitlines()]

    def _path(self, shard: int, kind: str) -> Path:
        return self.folder / f"{shard:05d}.{kind}"


class _replacing:  # noqa: N801  (reads like a verb at its use)
    """Write under a temporary name, flush to disk, rename; note the size under the final name in ``sizes``."""

    def __init__(self, path: Path, sizes: dict[str, int]) -> None:
        self.path, self.sizes = path, sizes
        self.temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        descriptor = os.open(self.temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.sizes[self.path.name] = self.temporary.stat().st_size
        os.replace(self.temporary, self.path)


@dataclass(frozen=True)
class Assembled:
    """What `assemble` wrote.

    Attributes
    ----------
    rows : int
        Samples that went well: rows of the final array.
    shape : tuple of int
        Of the final array; ``(rows,)`` for JSON lines.
    failures : list of Failure
    """

    rows: int
    shape: tuple[int, ...]
    failures: list[Failure]


def assemble(
    store: ShardStore,
    plan: ShardPlan,
    data_file: Path,
    samples_file: Path,
    columns: Mapping[str, Sequence[Any] | None] | None = None,
) -> Assembled:
    """Join finished shards into one array (or JSON-lines file) and one table of samples.

    Row i of the table belongs to row i of the array. Samples that failed have no row in the array and stand at the end
    of the table with ``status`` ``failed``. Shards are copied one by one: memory stays at one shard.

    Parameters
    ----------
    data_file : Path
        ``.npy`` or ``.jsonl``.
    samples_file : Path
        ``.parquet`` with ``sample_id``, ``columns``, ``status``, ``error``.
    columns : mapping of str to sequence of length n or None
        What else is known of each row; None columns are left out.

    Raises
    ------
    ArtifactError
        A shard is missing; no sample went well; shards differ in the shape of a row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = []
    failures: list[Failure] = []
    for shard in range(len(plan)):
        marker = store.marker(shard)
        if marker is None:
            raise ArtifactError(f"{store.folder}: shard {shard} is not finished", "run the same command again")
        counts.append(int(marker["ok"]))
        failures += store.failures(shard, plan.rows(shard))
    total = sum(counts)
    if total == 0:
        first = failures[0]
        raise ArtifactError(f"all {plan.n} samples failed; the first, {first.sample_id}: {first.error}")
    if data_file.suffix == ".npy":
        shape = _join_arrays(store, counts, total, data_file)
    else:
        shape = (total,)
        with open(data_file, "w", encoding="utf-8") as stream:
            for shard, count in enumerate(counts):
                if count:
                    stream.writelines(json.dumps(v, ensure_ascii=False) + "\n" for v in store.values(shard))
    failed = {failure.row: failure.error for failure in failures}
    order = [row for row in range(plan.n) if row not in failed] + sorted(failed)
    table: dict[str, Any] = {"sample_id": pa.array([store.sample_ids[row] for row in order], pa.string())}
    for name, column in (columns or {}).items():
        if column is not None:
            table[name] = pa.array([column[row] for row in order])
    table["status"] = pa.array([FAILED if row in failed else OK for row in order], pa.string())
    table["error"] = pa.array([failed.get(row) for row in order], pa.string())
    pq.write_table(pa.table(table), samples_file)
    return Assembled(total, shape, failures)


def _join_arrays(store: ShardStore, counts: Sequence[int], total: int, target: Path) -> tuple[int, ...]:
    first = next(shard for shard, count in enumerate(counts) if count)
    pattern = store.values(first)
    if not isinstance(pattern, np.ndarray):
        raise ArtifactError(f"{store.folder} holds rows of text, not arrays")
    shape = (total, *pattern.shape[1:])
    joined = np.lib.format.open_memmap(target, mode="w+", dtype=pattern.dtype, shape=shape)
    start = 0
    for shard, count in _filled(counts):
        values = np.asarray(store.values(shard))
        expected = (count, *pattern.shape[1:])
        if values.shape != expected or values.dtype != pattern.dtype:
            raise ArtifactError(
                f"{store.folder}: shard {shard} holds {values.shape} {values.dtype}, not {expected} {pattern.dtype}",
                "run it again with --force",
            )
        joined[start : start + count] = values
        start += count
    joined.flush()
    return shape


def _filled(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((shard, count) for shard, count in enumerate(counts) if count)
