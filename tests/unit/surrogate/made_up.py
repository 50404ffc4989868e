"""A made-up teacher whose image embeddings are an affine map of the concepts, with noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdxcli.methods.surrogate.encoding import Encodings, from_matrix
from rdxcli.methods.surrogate.extraction import Concept


def teacher(n: int = 160, c: int = 24, d: int = 12, m: int = 6, seed: int = 0) -> tuple[Encodings, dict[str, Any]]:
    """Encodings of n images and what `SurrogateTrainer.fit` needs: embeddings of images, captions, classes."""
    rng = np.random.default_rng(seed)
    k = rng.binomial(m, 0.6, (n, c)) * (rng.random((n, c)) < 0.15)
    k[0] = 0
    names = [Concept(f"c{j}", "n") for j in range(c)]
    encodings = from_matrix(k / m, [f"image{i}" for i in range(n)], names, num_captions=np.full(n, m))
    images = (k / m) @ rng.normal(size=(c, d)) + 0.3 * rng.normal(size=d) + 0.1 * rng.normal(size=(n, d))
    texts = np.repeat(images, 2, axis=0) + 0.2 * rng.normal(size=(2 * n, d))
    return encodings, {
        "image_embeddings": images.astype(np.float32),
        "text_embeddings": texts.astype(np.float32),
        "text_offsets": np.arange(0, 2 * n + 1, 2),
        "class_embeddings": rng.normal(size=(6, d)).astype(np.float32),
    }


SETTINGS: dict[str, Any] = {"batch_size": 32, "epochs": 12, "learning_rate": 1.0, "patience": None}
