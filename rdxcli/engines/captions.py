"""Captioning images as a `ShardTask`: rows of JSON, appended shard by shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdxcli.engines.tasks import ShardTask
from rdxcli.lazy import torch

if TYPE_CHECKING:
    from rdxcli.datasets.base import Dataset

OUTPUT = "captions"


class CaptionTask(ShardTask):
    """Captions of the images of a data set.

    Parameters
    ----------
    captioner : Captioner
        From `rdxcli.models.captioners`.
    """

    outputs = (OUTPUT,)
    unit = "images"

    def __init__(self, captioner: Any, dataset: Dataset, how: Any) -> None:
        self.captioner, self.dataset, self.how = captioner, dataset, how

    def prepare(self, row: int) -> tuple[str, Any]:
        return self.dataset.sample_ids[row], self.captioner.prepare(self.dataset.image(row))

    def collate(self, items: Any) -> list[tuple[str, Any]]:
        return list(items)

    def run(self, batch: list[tuple[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        ids = [sample for sample, _ in batch]
        captions = self.captioner.caption([item for _, item in batch], ids, self.how)
        return {OUTPUT: [{"sample_id": s, "captions": c} for s, c in zip(ids, captions, strict=True)]}

    def recover(self) -> None:
        if self.captioner.device.type == "cuda":
            torch.cuda.empty_cache()
