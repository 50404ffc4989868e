"""Reading a model's layers as a `ShardTask`: decode and preprocess in threads, one forward pass for all layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from rdxcli.datasets.addresses import AT_ONCE
from rdxcli.datasets.images import ArrayImages
from rdxcli.engines.tasks import ShardTask
from rdxcli.lazy import torch

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset

_BATCH_BYTES = {"cpu": 5 * 2**20, "cuda": 192 * 2**20}
_LARGEST_BATCH = 512


class ActivationTask(ShardTask):
    """Activations of some layers for the images of a data set. A context manager: hooks live inside of it.

    Parameters
    ----------
    model : LoadedModel
        From `rdxcli.models.load`.
    layers : sequence of str
        Module paths; they are also the names of the outputs.
    pool : str
        See `rdxcli.models.taps.pool`.
    """

    unit = "images"

    def __init__(self, model: Any, dataset: Dataset, layers: Sequence[str], pool: str) -> None:
        self.model, self.dataset = model, dataset
        self.outputs = tuple(layers)
        self.on_cuda = model.device.type == "cuda"
        self.lookahead = 1 if self.on_cuda else 0
        self._tap = model.tap(list(layers), pool)
        self._half = str(model.dtype) == "torch.float16"
        self._pixels = _plain_pixels(model.transform, dataset)
        self.whole_batches = self._pixels is not None

    def __enter__(self) -> Self:
        self._tap.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._tap.__exit__(*details)

    def start_thread(self) -> None:
        # each thread would otherwise start OpenMP threads of its own for every normalisation
        threadpool_limits(1, user_api="openmp")

    def prepare(self, row: int) -> torch.Tensor:
        return self.model.transform(self.dataset.image(row))

    def prepare_batch(self, rows: range) -> torch.Tensor:
        """Grey images that lie in an array in the model's own size need no Pillow: the same arithmetic on all."""
        how = self.model.transform
        assert self._pixels is not None
        assert self.dataset.rows is not None
        wanted = self.dataset.rows[rows.start : rows.stop]
        pixels = torch.from_numpy(np.ascontiguousarray(self._pixels[wanted]))[:, None]
        batch = pixels.to(torch.float32).div_(how.scale).sub_(how.mean[0]).div_(how.std[0])
        return batch.pin_memory() if self.on_cuda else batch

    def collate(self, items: Sequence[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack(list(items))
        return batch.pin_memory() if self.on_cuda else batch

    def run(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        images = batch.to(self.model.device, non_blocking=True)
        return self._tap(images.to(self.model.dtype))

    def fetch(self, running: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        return {name: (v if self._half else v.float()).cpu().numpy() for name, v in running.items()}

    def recover(self) -> None:
        if self.on_cuda:
            torch.cuda.empty_cache()


def _plain_pixels(transform: Any, dataset: Dataset) -> np.ndarray | None:
    """The data set's pixels if preprocessing them is plain arithmetic: grey arrays, no resizing, no conversion."""
    source = dataset.source
    if not isinstance(source, ArrayImages) or source.images.ndim != 3 or getattr(transform, "mode", None) != "L":
        return None
    if source.images.dtype != np.uint8:
        return None
    size = source.images.shape[1:]
    return source.images if tuple(transform.input_size) == size and tuple(transform.resize_to) == size else None


def default_batch_size(input_size: Sequence[int], device: str) -> int:
    """A power of two such that a batch of inputs takes about 5 MiB on a CPU (larger ones leave its
    caches) and 192 MiB on a GPU, from 8 to 512.

    Parameters
    ----------
    input_size : (channels, height, width)
    device : str
        Device type.
    """
    image = 4 * int(np.prod(input_size))
    room = _BATCH_BYTES.get(device, _BATCH_BYTES["cpu"])
    return int(min(_LARGEST_BATCH, max(8, 2 ** int(np.log2(max(1, room // image))))))


def default_workers(device: str, waits: bool = False) -> int:
    """Threads that decode: on a CPU half of the cores, for computing takes them too; beside a GPU all.

    Where reading an image ``waits`` for a server, many more than cores.
    """
    if waits:
        return AT_ONCE
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores)) if device == "cuda" else min(cores, max(2, min(8, cores // 2)))
