"""What the shard runner runs: a `ShardTask` maps a batch of samples to one result per sample and output."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rdxcli.lazy import torch

Values = np.ndarray | list[dict[str, Any]]


class ShardTask(ABC):
    """Maps samples to results, in four steps so that decoding, computing and copying overlap.

    `prepare` runs in worker threads, `collate` in a thread of its own, `run` and `fetch` in the caller's thread. The
    result for a sample must not depend on the other samples of its batch, beyond rounding.

    Attributes
    ----------
    outputs : tuple of str
        Names of the outputs; each is stored on its own.
    unit : str
        What a sample is, for progress: ``images``.
    lookahead : int
        How many batches may be between `run` and `fetch`: 1 on a GPU, so that it never waits for Python; else 0.
    whole_batches : bool
        Prepare batches in one piece: for samples that cannot fail and are faster so than one by one.
    check_finite : bool
        Record samples whose float outputs hold NaN or infinity as failed.
    """

    outputs: tuple[str, ...] = ("values",)
    unit: str = "samples"
    lookahead: int = 0
    whole_batches: bool = False
    check_finite: bool = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: Any) -> None:  # noqa: B027  (optional)
        """What a task holds while it runs is given back."""

    def start_thread(self) -> None:  # noqa: B027  (optional)
        """Called once in each thread that prepares, before its first sample."""

    @abstractmethod
    def prepare(self, row: int) -> Any:
        """Read and decode the sample ``row``. What it raises is recorded as that sample's error."""

    def prepare_batch(self, rows: range) -> Any:
        """The samples ``rows`` as `collate` would give them; used instead of `prepare` when `whole_batches` is set."""
        return self.collate([self.prepare(row) for row in rows])

    def collate(self, items: Sequence[Any]) -> Any:
        """Make a batch of prepared samples; by default torch tensors and arrays are stacked, the rest stays a list."""
        if isinstance(items[0], np.ndarray):
            return np.stack(items)
        if type(items[0]).__module__.startswith("torch"):
            return torch.stack(list(items))
        return list(items)

    @abstractmethod
    def run(self, batch: Any) -> Any:
        """Start computing a batch. May return before the results are there (see `fetch`)."""

    def fetch(self, running: Any) -> Mapping[str, Values]:
        """Results of `run` as one array or list of JSON mappings per output, a row per sample."""
        return running

    def recover(self) -> None:  # noqa: B027  (optional)
        """Called after an out-of-memory error, before the halves of the batch are tried."""


def split_batch(batch: Any, parts: int = 2) -> list[Any]:
    """Cut a batch (sliceable, or a mapping of such) into up to ``parts`` pieces of nearly equal length."""
    size = batch_length(batch)
    step = -(-size // parts)
    return [_slice(batch, start, min(size, start + step)) for start in range(0, size, step)]


def batch_length(batch: Any) -> int:
    """Number of samples in a batch."""
    return len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)


def _slice(batch: Any, start: int, stop: int) -> Any:
    if isinstance(batch, Mapping):
        return {key: value[start:stop] for key, value in batch.items()}
    return batch[start:stop]


def join_outputs(parts: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
    """Concatenate the outputs of the pieces of a batch, in order."""
    if len(parts) == 1:
        return dict(parts[0])
    joined: dict[str, Values] = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if all(isinstance(value, np.ndarray) for value in values):
            joined[name] = np.concatenate(values)  # type: ignore[arg-type]
        else:
            joined[name] = [row for value in values for row in value]
    return joined


def seconds_of_one(task: ShardTask, n: int, tries: int = 8) -> float | None:
    """Seconds that one of ``n`` samples takes when it comes alone; None when none of the first can be done."""
    for row in range(min(tries, n)):
        begun = time.perf_counter()
        try:
            task.run(task.collate([task.prepare(row)]))
        except MemoryError:
            raise
        except Exception:  # (a broken image is recorded when its turn comes, and so is what else goes wrong)
            continue
        return time.perf_counter() - begun
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that the device or the machine has no memory left for this batch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
