"""How well a surrogate stands in for its teacher: the numbers logged during training and kept at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .losses import DistillationLoss, scaled_similarity, uniform_kl
from .model import Surrogate
from .trainer_data import CodeBatches, Teacher, chunks

_FORWARD_ROWS = 4096


def embed(model: Surrogate, batches: CodeBatches, rows: np.ndarray) -> Tensor:
    """z of the given rows from encodings without noise: (n, D)."""
    with torch.no_grad():
        return torch.cat([model(batches.clean(part)) for part in chunks(rows, _FORWARD_ROWS)])


def _same(S: Tensor, T: Tensor) -> int:
    """Rows with equal argmax."""
    return int((S.argmax(1) == T.argmax(1)).sum())


def compare(
    model: Surrogate,
    batches: CodeBatches,
    teacher: Teacher,
    rows: np.ndarray,
    *,
    gallery: int,
    temp_student: float,
    temp_teacher: float,
    class_embeddings: Any = None,
) -> dict[str, float]:
    """Compare a surrogate with its teacher on some images.

    Parameters
    ----------
    rows : (n,) int64
        Images.
    gallery : int
        Images and captions that are compared with each other at a time; the rows are cut into nearly equal pieces of at
        most this size, each image with its first caption.
    class_embeddings : array (J, E), optional
        Text embeddings of classes, for the zero-shot agreement.

    Returns
    -------
    dict
        ``kl`` (mean of both directions), ``i2t_kl``, ``uniform_kl`` (the ``kl`` of a student that says nothing),
        ``retrieval_agreement`` (share of images with the same best caption), ``cosine`` (mean, to the teacher's image
        embedding), ``l0`` (concepts per image), and with classes
        ``agreement`` (share of images with the same best class). Every image weighs the same.
    """
    dtype, device = batches.dtype, batches.device
    total: dict[str, float] = dict.fromkeys(("kl", "i2t_kl", "uniform_kl", "retrieval_agreement", "cosine"), 0.0)
    if class_embeddings is not None:
        total["agreement"] = 0.0
        classes = torch.as_tensor(np.asarray(class_embeddings), dtype=dtype, device=device)
    loss = DistillationLoss(temp_student, temp_teacher, symmetric=True)
    with torch.no_grad():
        for part in chunks(rows, gallery):
            images = torch.as_tensor(teacher.image_rows(part), dtype=dtype, device=device)
            texts = torch.as_tensor(teacher.text_rows(part), dtype=dtype, device=device)
            z = embed(model, batches, part)
            S = scaled_similarity(z, model.keys(texts), temp_student)
            T = scaled_similarity(images, texts, temp_teacher)
            metrics = loss.from_logits(S, T).metrics
            share = len(part) / len(rows)
            total["kl"] += share * float(metrics["kl"])
            total["i2t_kl"] += share * float(metrics["i2t_kl"])
            total["retrieval_agreement"] += _same(S, T) / len(rows)
            total["uniform_kl"] += share * 0.5 * float(uniform_kl(T) + uniform_kl(T.T))
            total["cosine"] += share * float(functional.cosine_similarity(z, images).mean())
            if class_embeddings is not None:
                mine = scaled_similarity(z, model.keys(classes), 1.0)
                theirs = scaled_similarity(images, classes, 1.0)
                total["agreement"] += _same(mine, theirs) / len(rows)
    return {**total, "l0": float(batches.encodings.l0[rows].mean())}
