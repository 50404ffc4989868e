"""Shards: the unit in which work over many samples is done, written and resumed.

A `ShardPlan` cuts n rows into a fixed list of shards. A `ShardStore` keeps the finished shards of one output in a
folder:

- ``00003.npy`` or ``00003.jsonl``: what the task made of the rows that went well, in order;
- ``00003.parquet``: ``sample_id``, ``status`` (``ok`` or ``failed``), ``error`` of every row of the shard;
- ``00003.done``: the marker, written last, with the request that the shard belongs to, its rows, and the size and hash
  of its files. A shard without it, of another request or other rows, or whose files have other sizes, does not count.

`assemble` joins the shards of a store into the final files and compares every byte with its hash on the way. Several
processes may fill one store: files are written under a name of the process's own and renamed, so that doing a shard
twice is wasteful and harmless; leases (`rdxcli.artifacts.leases`) see to it that it is rare.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts.contents import digest_bytes, digest_file, is_intact, sealed
from rdxcli.artifacts.store import PLAN
from rdxcli.errors import ArtifactError
from rdxcli.lazy import pyarrow as pa
from rdxcli.progress import human_count

OK, FAILED = "ok", "failed"
FOLDER = "shards"

MIN_SHARD_ROWS, MIN_SHARD_BATCHES = 256, 8
MAX_SHARDS = 4000
MAX_SHARD_BYTES = 64 * 2**20
SHARDS_PER_WORKER = 4


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
    def of(
        cls, n: int, batch_size: int, row_bytes: int = 0, shard_rows: int | None = None, workers: int = 1
    ) -> ShardPlan:
        """The plan for ``n`` rows whose outputs take ``row_bytes`` each.

        Shards have ``shard_rows`` rows; by default 256 or eight batches, whichever is more; fewer when they would
        exceed 64 MiB or when several ``workers`` would have less than four each, more when there would be more than
        4,000 of them. Whole batches in any case, so that the same numbers come out however the rows are cut.
        """
        batch = max(1, min(batch_size, n))
        rows = max(MIN_SHARD_ROWS, MIN_SHARD_BATCHES * batch, -(-n // MAX_SHARDS))
        if shard_rows is not None:
            rows = shard_rows
        else:
            if row_bytes:
                rows = min(rows, max(1, MAX_SHARD_BYTES // row_bytes))
        plan = cls(n, batch * max(1, -(-rows // batch)), batch)
        return plan if shard_rows is not None else plan.among(workers)

    def among(self, workers: int) -> ShardPlan:
        """This plan cut finer, where several workers would have less than four shards each."""
        if workers < 2:
            return self
        rows = max(min(self.shard_rows, -(-self.n // (SHARDS_PER_WORKER * workers))), -(-self.n // MAX_SHARDS))
        return ShardPlan(self.n, self.batch_size * max(1, -(-rows // self.batch_size)), self.batch_size)

    def __len__(self) -> int:
        return -(-self.n // self.shard_rows)

    def rows(self, shard: int) -> range:
        """Rows of a shard."""
        return range(shard * self.shard_rows, min(self.n, (shard + 1) * self.shard_rows))

    def batches(self, shard: int, batch_size: int | None = None) -> list[range]:
        """The shard's rows in batches."""
        rows, size = self.rows(shard), batch_size or self.batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def settle(self, folder: Path, request: str = "") -> ShardPlan:
        """The plan that work in ``folder`` follows: the stored one, else this one, which is stored.

        `request`: fingerprint of what the shards belong to. Raises `ArtifactError` (the stored plan is damaged, or
        belongs to something else).
        """
        path = folder / PLAN
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                temporary = folder / f"{PLAN}.{os.getpid()}.tmp"
                temporary.write_text(json.dumps(sealed({**asdict(self), "request": request})), "utf-8")
                try:
                    os.link(temporary, path)  # unlike a rename, this fails when another process was first
                except FileExistsError:
                    pass
                except OSError:  # a file system without hard links
                    os.replace(temporary, path)
                temporary.unlink(missing_ok=True)
            document = json.loads(path.read_text("utf-8"))
            if not is_intact(document):
                raise ValueError("it was edited, or not written to its end")
            stored = ShardPlan(*(int(document[name]) for name in ("n", "shard_rows", "batch_size")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(
                f"{path} is damaged: {error}", f"throw the unfinished work away with --force, or remove {folder.parent}"
            ) from None
        if stored.n != self.n:
            raise ArtifactError(
                f"{path} is for {human_count(stored.n, 'row')}, not {self.n}", f"remove the folder {folder.parent}"
            )
        if document["request"] != request:
            raise ArtifactError(f"{path} belongs to another request", f"remove the folder {folder.parent}")
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
    """

    values: np.ndarray | list[dict[str, Any]]
    failures: Sequence[Failure] = ()


class DamagedShardError(ArtifactError):
    """A file of a finished shard is not what was written. The shard no longer counts as finished."""


class GoneError(ArtifactError):
    """The folder of the shards is no longer there: another process finished the artifact, or threw it away."""


class ShardStore:
    """Finished shards of one output.

    Parameters
    ----------
    folder : Path
        Of shards of a request, `ShardPlan.settle` makes it: when it is gone, the artifact was finished.
    sample_ids : sequence of str
        Of all rows.
    request : str
        Fingerprint of what the shards belong to; shards of anything else do not count.
    """

    def __init__(self, folder: Path, sample_ids: Sequence[str], request: str = "") -> None:
        self.folder = folder
        self.sample_ids = sample_ids
        self.request = request

    def done(self, shard: int, retry_empty: bool = False, rows: range | None = None) -> bool:
        """Whether the shard is finished; its files are judged by their size.

        `retry_empty`: do not count a shard of which every row failed: its cause is rarely the images; `rows`: the rows
        that it must hold.
        """
        marker = self._marker(shard)
        if marker is None or (retry_empty and not marker["ok"]):
            return False
        if rows is not None and marker["rows"] != [rows.start, rows.stop]:
            return False
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, (size, _) in marker["files"].items()
        )

    def marker(self, shard: int) -> dict[str, Any] | None:
        """What is known of a finished shard: numbers of rows ``ok`` and ``failed``, sizes of its ``files``; or None."""
        marker = self._marker(shard)
        if marker is None:
            return None
        sizes = {name: size for name, (size, _) in marker["files"].items()}
        return {"ok": marker["ok"], "failed": marker["failed"], "files": sizes}

    def _marker(self, shard: int) -> dict[str, Any] | None:
        try:
            marker = json.loads(self._path(shard, "done").read_text("utf-8"))
            return marker if is_intact(marker) and marker["request"] == self.request else None
        except (OSError, ValueError, AttributeError, KeyError):
            return None

    def lease(self, shard: int) -> Path:
        """Where the worker that does the shard says so."""
        return self._path(shard, "lease")

    def write(self, shard: int, rows: range, result: ShardResult) -> None:
        """Write a whole shard: data, status table, and the marker last. Raises `GoneError`."""
        try:
            if not self.request:
                self.folder.mkdir(exist_ok=True)
            self._write(shard, rows, result)
        except FileNotFoundError:
            if self.folder.is_dir():
                raise
            raise GoneError(
                f"{self.folder.parent} has gone: another process finished it or threw it away",
                "run the same command again",
            ) from None

    def _write(self, shard: int, rows: range, result: ShardResult) -> None:
        errors = {failure.row: failure.error for failure in result.failures}
        if len(result.values) != len(rows) - len(errors):
            raise RuntimeError(
                f"shard {shard}: {human_count(len(result.values), 'result')} for "
                f"{human_count(len(rows) - len(errors), 'good row')}"
            )
        table = pa.table(
            {
                "sample_id": pa.array([self.sample_ids[row] for row in rows], pa.string()),
                "status": pa.array([FAILED if row in errors else OK for row in rows], pa.string()),
                "error": pa.array([errors.get(row) for row in rows], pa.string()),
            }
        )
        files: dict[str, tuple[int, str]] = {}
        with _replacing(self._path(shard, "parquet"), files) as temporary:
            pa.parquet.write_table(table, temporary)
        if isinstance(result.values, np.ndarray):
            with _replacing(self._path(shard, "npy"), files) as temporary, open(temporary, "wb") as stream:
                np.save(stream, np.ascontiguousarray(result.values), allow_pickle=False)
        else:
            with _replacing(self._path(shard, "jsonl"), files) as temporary:
                lines = [json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in result.values]
                temporary.write_text("".join(lines), "utf-8")
        with _replacing(self._path(shard, "done"), {}) as temporary:
            marker = {
                "request": self.request,
                "rows": [rows.start, rows.stop],
                "ok": len(result.values),
                "failed": len(errors),
                "files": files,
            }
            temporary.write_text(json.dumps(sealed(marker)), "utf-8")

    def failures(self, shard: int, rows: range) -> list[Failure]:
        """Samples of a finished shard that failed. Raises `DamagedShardError`."""
        marker = self._marker(shard)
        if marker is None or not marker["failed"]:
            return []
        table = pa.parquet.read_table(io.BytesIO(self._content(shard, "parquet", marker))).to_pydict()
        columns = zip(rows, table["sample_id"], table["status"], table["error"], strict=True)
        return [Failure(row, sample, error) for row, sample, status, error in columns if status == FAILED]

    def values(self, shard: int) -> np.ndarray | list[dict[str, Any]]:
        """Results of a finished shard. Raises `DamagedShardError`."""
        marker = self._marker(shard)
        if marker is None:
            raise self._damaged(shard, self._path(shard, "done"))
        if self._path(shard, "npy").name in marker["files"]:
            content = self._content(shard, "npy", marker)
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        return [json.loads(line) for line in self._content(shard, "jsonl", marker).decode("utf-8").splitlines()]

    def _content(self, shard: int, kind: str, marker: Mapping[str, Any]) -> bytes:
        """The bytes of a file, compared with their hash."""
        path = self._path(shard, kind)
        try:
            content = path.read_bytes()
        except OSError:
            content = None
        if content is None or digest_bytes(content) != marker["files"].get(path.name, (0, ""))[1]:
            raise self._damaged(shard, path)
        return content

    def _damaged(self, shard: int, path: Path) -> DamagedShardError:
        self._path(shard, "done").unlink(missing_ok=True)
        return DamagedShardError(f"{path} is damaged: its bytes are not the ones that were written", "run it again")

    def _path(self, shard: int, kind: str) -> Path:
        return self.folder / f"{shard:05d}.{kind}"


class _replacing:  # noqa: N801  (reads like a verb at its use)
    """Write under a temporary name, flush to disk, rename; note size and hash under the final name in ``files``."""

    def __init__(self, path: Path, files: dict[str, tuple[int, str]]) -> None:
        self.path, self.files = path, files
        self.temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        with open(self.temporary, "r+b") as stream:  # a descriptor that may write: Windows flushes no other
            os.fsync(stream.fileno())
        self.files[self.path.name] = self.temporary.stat().st_size, digest_file(self.temporary)
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
    of the table with ``status`` ``failed``. Shards are copied one by one: memory stays at one shard. Raises
    `ArtifactError` (a shard is missing; no sample went well; shards differ in the shape of a row) or
    `DamagedShardError` (the bytes of a shard have changed; it counts as unfinished from now on).

    Parameters
    ----------
    data_file : Path
        ``.npy`` or ``.jsonl``.
    samples_file : Path
        ``.parquet`` with ``sample_id``, ``columns``, ``status``, ``error``.
    columns : mapping of str to sequence of length n or None
        What else is known of each row; None columns are left out.
    """
    counts = []
    failures: list[Failure] = []
    for shard in range(len(plan)):
        marker = store.marker(shard) if store.done(shard, rows=plan.rows(shard)) else None
        if marker is None:
            raise ArtifactError(f"{store.folder}: shard {shard} is not finished", "run the same command again")
        counts.append(int(marker["ok"]))
        failures += store.failures(shard, plan.rows(shard))
    total = sum(counts)
    if total == 0:
        first = failures[0]
        raise ArtifactError(f"all {human_count(plan.n, 'sample')} failed; the first, {first.sample_id}: {first.error}")
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
    pa.parquet.write_table(pa.table(table), samples_file)
    return Assembled(total, shape, failures)


def failed_samples(samples_file: Path, rows: int) -> list[dict[str, str]]:
    """``sample_id`` and ``error`` of the samples that failed, from a table of `assemble` with ``rows`` good ones."""
    return pa.parquet.read_table(samples_file, columns=["sample_id", "error"]).slice(rows).to_pylist()


def _join_arrays(store: ShardStore, counts: Sequence[int], total: int, target: Path) -> tuple[int, ...]:
    first = next(shard for shard, count in enumerate(counts) if count)
    pattern = store.values(first)
    if not isinstance(pattern, np.ndarray):
        raise ArtifactError(f"{store.folder} holds rows of text, not arrays")
    shape = (total, *pattern.shape[1:])
    # written in a row, not through a memory map: a full disk is then an error and not the end of the process
    with open(target, "wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(pattern.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for shard, count in _filled(counts):
            values = np.asarray(pattern if shard == first else store.values(shard))
            expected = (count, *pattern.shape[1:])
            if values.shape != expected or values.dtype != pattern.dtype:
                raise ArtifactError(
                    f"{store.folder}: shard {shard} holds {values.shape} {values.dtype}, not {expected} "
                    f"{pattern.dtype}",
                    "run it again with --force",
                )
            stream.write(np.ascontiguousarray(values).data)
    return shape


def _filled(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((shard, count) for shard, count in enumerate(counts) if count)
