"""How faithful explanations are to the model they explain: classification, retrieval, and removal of concepts.

A *student* is anything that stands in for the teacher's image embeddings: the surrogate's z, SpLiCE's reconstruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rdxcli.numerics.shares import wilson_interval
from rdxcli.progress import human_count

RECALLS = (1, 5, 10, 50)


def _rows(values: Any, name: str, rows: int | None = None) -> np.ndarray:
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 2 or not len(out) or (rows is not None and len(out) != rows) or not np.all(np.isfinite(out)):
        raise ValueError(
            f"Got {name} of shape {out.shape} or not finite, expected a finite ({'n' if rows is None else rows}, d)"
        )
    return out


def cosine_matrix(queries: Any, keys: Any) -> np.ndarray:
    """All-pairs cosine similarities (n, m) in float64; rows of zeros give zeros."""
    q, k = _rows(queries, "queries"), _rows(keys, "keys")
    if q.shape[1] != k.shape[1]:
        raise ValueError(
            f"Got queries of {q.shape[1]} and keys of {human_count(k.shape[1], 'dimension')}, expected equal ones"
        )
    q, k = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, k))
    return q @ k.T


def predict(embeddings: Any, class_embeddings: Any) -> np.ndarray:
    """Class with the largest cosine, the first on ties: (n,) int64."""
    return cosine_matrix(embeddings, class_embeddings).argmax(axis=1)


def agreement(similarity: Any, teacher_similarity: Any, *, batch_size: int | None = None) -> float:
    """Share of rows with equal argmax.

    Parameters
    ----------
    similarity, teacher_similarity : array (n, J)
    batch_size : int, optional
        Average the shares of consecutive batches without weighting, as published; the last batch may be smaller.
        Without it every row weighs the same.
    """
    a, b = np.asarray(similarity), np.asarray(teacher_similarity)
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(f"Got similarities of shapes {a.shape} and {b.shape}, expected two equal (n, J)")
    equal = a.argmax(axis=1) == b.argmax(axis=1)
    if batch_size is None:
        return float(equal.mean())
    if batch_size < 1:
        raise ValueError(f"Got batch_size={batch_size}, expected at least 1")
    return float(np.mean([equal[i : i + batch_size].mean() for i in range(0, len(equal), batch_size)]))


def classification(
    student: Any,
    teacher: Any,
    class_embeddings: Any,
    *,
    labels: Any = None,
    l0: Any = None,
    student_classes: Any = None,
) -> dict[str, Any]:
    """The published classification experiment for one student.

    Parameters
    ----------
    student, teacher : array (n, d)
        Image embeddings; rows of NaN are not allowed.
    class_embeddings : array (J, d)
    labels : array (n,) of int, optional
        True classes.
    l0 : array (n,), optional
        Concepts used per image.
    student_classes : array (J, d), optional
        The classes as the student sees them (a surrogate with a key encoder).

    Returns
    -------
    dict
        ``n``, ``agreement`` (the publication's F) with a 95 % Wilson interval ``agreement_interval``, ``cosine`` (C),
        and where known ``accuracy`` (A), ``teacher_accuracy``, ``l0`` (S). Shares in [0, 1]; the publication prints A
        and F in percent.
    """
    z = _rows(student, "student embeddings")
    target = _rows(teacher, "teacher embeddings", len(z))
    mine = predict(z, class_embeddings if student_classes is None else student_classes)
    theirs = predict(target, class_embeddings)
    same = int((mine == theirs).sum())
    low, high = wilson_interval(same, len(z), 0.95)
    norms = np.linalg.norm(z, axis=1) * np.linalg.norm(target, axis=1)
    out: dict[str, Any] = {
        "n": len(z),
        "agreement": same / len(z),
        "agreement_interval": [float(low), float(high)],
        "cosine": float((np.einsum("nd,nd->n", z, target) / np.maximum(norms, 1e-12)).mean()),
    }
    if l0 is not None:
        out["l0"] = float(np.mean(l0))
    if labels is not None:
        truth = np.asarray(labels)
        if truth.shape != (len(z),):
            raise ValueError(f"Got labels of shape {truth.shape}, expected ({len(z)},)")
        out["accuracy"] = float((mine == truth).mean())
        out["teacher_accuracy"] = float((theirs == truth).mean())
    return out


def ranks(similarity: Any, targets: Any = None) -> np.ndarray:
    """Rank of each row's target, 0 for the largest entry: (n,) int64.

    Parameters
    ----------
    similarity : array (n, m)
    targets : array (n,) of int, optional
        Column of each row; the diagonal without it.

    Notes
    -----
    Equal entries are ranked by column, so that a constant matrix does not look perfect. Counting larger entries costs
    O(n m); no sort is needed.
    """
    S = _rows(similarity, "similarities")
    n, m = S.shape
    t = np.arange(n) if targets is None else np.asarray(targets, dtype=np.int64)
    if t.shape != (n,) or (n and (t.min() < 0 or t.max() >= m)):
        raise ValueError(f"Got targets of shape {t.shape} or outside 0 to {m - 1}, expected ({n},)")
    value = S[np.arange(n), t][:, None]
    mark = value < S
    # counting a row of flags at a time is several times as fast as `count_nonzero` along an axis
    rank = np.fromiter(map(np.count_nonzero, mark), np.int64, n)
    np.equal(value, S, out=mark)
    if np.count_nonzero(mark) > n:
        tied = np.flatnonzero(mark.sum(axis=1) > 1)
        rank[tied] += (mark[tied] & (np.arange(m)[None, :] < t[tied, None])).sum(axis=1)
    return rank


def retrieval_metrics(similarity: Any, targets: Any = None) -> dict[str, float]:
    """Recall at 1, 5, 10, 50 in percent, median and mean rank (from 1), and ``sum`` = r1 + r5 + r10."""
    rank = ranks(similarity, targets)
    out = {f"r{k}": float(100.0 * (rank < k).mean()) for k in RECALLS}
    out["medr"] = float(np.floor(np.median(rank)) + 1)
    out["meanr"] = float(rank.mean() + 1)
    out["sum"] = out["r1"] + out["r5"] + out["r10"]
    return out


def retrieval_both_ways(similarity: Any, image_targets: Any = None, text_targets: Any = None) -> dict[str, float]:
    """`retrieval_metrics` from images to texts (``i2t/...``) and from texts to images (``t2i/...``)."""
    S = np.asarray(similarity)
    there = retrieval_metrics(S, image_targets)
    back = retrieval_metrics(S.T, text_targets)
    return {f"i2t/{key}": v for key, v in there.items()} | {f"t2i/{key}": v for key, v in back.items()}


def retrieval(similarity: Any, teacher_similarity: Any) -> dict[str, dict[str, float]]:
    """The published retrieval experiment on one gallery of n images and their n texts.

    Parameters
    ----------
    similarity, teacher_similarity : array (n, n)

    Returns
    -------
    dict
        ``performance``: targets are the true pairs (the diagonal). ``faithfulness``: targets are the teacher's best.
    """
    S, T = np.asarray(similarity), np.asarray(teacher_similarity)
    if S.shape != T.shape or S.ndim != 2 or S.shape[0] != S.shape[1]:
        raise ValueError(f"Got similarities of shapes {S.shape} and {T.shape}, expected two equal square matrices")
    return {
        "performance": retrieval_both_ways(S),
        "faithfulness": retrieval_both_ways(S, T.argmax(axis=1), T.argmax(axis=0)),
    }


def average_tables(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each key over the tables that have it, without weights: how the publication sums up batches.

    Ranks depend on the size of the gallery, so batches of different size do not mix well; prefer one gallery.
    """
    values: dict[str, list[float]] = {}
    for table in tables:
        for key, value in table.items():
            values.setdefault(key, []).append(float(value))
    if not values:
        raise ValueError("Got no tables, expected at least one")
    return {key: float(np.mean(entries)) for key, entries in values.items()}


def published_line(result: Mapping[str, Any]) -> str:
    """The publication's line ``(A/F/S/C): (44.44/88.89/7.00/0.91)`` of a `classification` with labels and l0."""
    a, f, s, c = (result[key] for key in ("accuracy", "agreement", "l0", "cosine"))
    return f"(A/F/S/C): ({100 * a:.2f}/{100 * f:.2f}/{s:.2f}/{c:.2f})"


def scoreboard(rows: Mapping[str, Mapping[str, Any]], keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Results of several methods on the same images as one table, best agreement first.

    Parameters
    ----------
    keys : sequence of str, optional
        Columns; all that occur without it. Missing values are None.
    """
    columns = list(keys) if keys is not None else list(dict.fromkeys(key for row in rows.values() for key in row))
    table = [{"method": name, **{key: row.get(key) for key in columns}} for name, row in rows.items()]
    return sorted(table, key=lambda row: -(row.get("agreement") or 0.0))
