"""Encoding texts with a vision-language model as a `ShardTask`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rdxcli.engines.tasks import ShardTask

EMBEDDINGS = "features"


class TextTask(ShardTask):
    """Embeddings of texts.

    Parameters
    ----------
    model : VisionLanguageModel
        From `rdxcli.models.vision_language`.
    texts : sequence of str
        As they go to the tokeniser.
    """

    outputs = (EMBEDDINGS,)
    unit = "texts"

    def __init__(self, model: Any, texts: Sequence[str]) -> None:
        self.model, self.texts = model, texts

    def prepare(self, row: int) -> str:
        return self.texts[row]

    def run(self, batch: list[str]) -> dict[str, np.ndarray]:
        return {EMBEDDINGS: self.model.encode_text(batch, batch_size=len(batch))}
