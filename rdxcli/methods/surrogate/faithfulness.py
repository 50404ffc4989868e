"""How well several explanations of one teacher's embeddings stand in for it: one table on the same images.

Symbols: n images with teacher embeddings (n, d), J classes (J, d), one text per image (n, d). A *student* gives an
embedding per image, made of concepts: z = finish(base + sum_j a_j V_j), see `rdxcli.methods.surrogate.curves`.

Three questions, each after the publication: does the student choose the teacher's class (classification), does it rank
the texts as the teacher does (retrieval), and do the concepts it names carry what it says (deletion and insertion)?
A student that says the same about every image goes along: what it reaches, nobody has explained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.stats import binomtest

from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

from .attribution import Affine, image_scores, text_scores
from .curves import agrees_with, cosine_to, removal_curves
from .encoding import Encodings
from .evaluation import average_tables, classification, cosine_matrix, predict, retrieval
from .model import Rows, Surrogate
from .splice import SpLiCE
from .trainer_data import check_embeddings, chunks

GALLERY = 1000
CURVE_IMAGES = 2000
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Student:
    """One explanation method on n images.

    Parameters
    ----------
    embeddings : ndarray (n, d)
    values : CSR array (n, C), optional
        a, without explicit zeros. None for a student without concepts.
    vectors : ndarray (C, d), optional
        V.
    order : ndarray (nnz,), optional
        What the method says each stored concept is worth to the embedding.
    towards : callable, optional
        ``towards(texts (n, d)) -> (nnz,)``: what each concept is worth to the similarity with the image's own text.
    base : ndarray (d,), optional
    keys : callable, optional
        Text embeddings as this student sees them (a key encoder); unchanged without it.
    """

    embeddings: np.ndarray
    values: csr_array | None = None
    vectors: np.ndarray | None = None
    order: np.ndarray | None = None
    towards: Callable[[np.ndarray], np.ndarray] | None = None
    base: np.ndarray | None = None
    finish: Callable[[np.ndarray], np.ndarray] | None = None
    keys: Callable[[np.ndarray], np.ndarray] = field(default=lambda texts: texts)

    @property
    def l0(self) -> np.ndarray:
        """Concepts per image: (n,) int64."""
        return np.zeros(len(self.embeddings), np.int64) if self.values is None else np.diff(self.values.indptr)


def surrogate_student(surrogate: Surrogate, encodings: Encodings) -> Student:
    """The student that a trained surrogate is. `encodings`: of the n images, without noise."""
    affine = Affine.of(surrogate)
    with torch.inference_mode():
        z = surrogate(Rows.of(encodings.indptr, encodings.indices, encodings.shares)).numpy().astype(np.float64)

    def keys(texts: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return surrogate.keys(torch.as_tensor(np.asarray(texts), dtype=surrogate.bias.dtype)).numpy()

    return Student(
        z,
        encodings.csr(np.float64),
        affine.table.astype(np.float64),
        image_scores(surrogate, encodings, bias="separate").scores,
        lambda texts: text_scores(surrogate, encodings, texts).scores,
        affine.bias.astype(np.float64),
        keys=keys,
    )


def splice_student(model: SpLiCE, weights: csr_array) -> Student:
    """The student that a sparse decomposition is.

    Parameters
    ----------
    model : SpLiCE
        Fitted.
    weights : CSR (n, C)
        From its ``transform``.
    """
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))

    def towards(texts: np.ndarray) -> np.ndarray:
        return weights.data * np.einsum("ed,ed->e", model.dictionary_[weights.indices], np.asarray(texts)[row])

    return Student(model.reconstruct(weights), weights, model.dictionary_, weights.data, towards, finish=model.finish)


def constant_student(teacher: Any, rows: np.ndarray | None = None) -> Student:
    """Says the mean of the teacher's unit image embeddings about every image.

    Parameters
    ----------
    teacher : array (n, d)
    rows : ndarray of int, optional
        Images the mean is taken over; all of them without it.
    """
    x = np.asarray(teacher, dtype=np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    mean = (unit if rows is None or not len(rows) else unit[rows]).mean(axis=0)
    return Student(np.broadcast_to(mean, x.shape))


@dataclass(frozen=True)
class Faithfulness:
    """What `measure` found.

    Parameters
    ----------
    scoreboard : list of dict
        One row per student, best first: ``method, n, agreement, agreement_interval, accuracy, cosine, l0``,
        ``i2t_r1, t2i_r1`` (share of images whose best text is the teacher's best, and back; percent),
        ``deletion_gain, insertion_gain``. What could not be measured is None.
    retrieval : dict
        Method to ``performance`` and ``faithfulness``; see `rdxcli.methods.surrogate.evaluation.retrieval`. Mean over
        galleries.
    curves : dict
        Method to ``embedding`` and ``prediction``: see `Curves`, as lists, with its areas.
    paired : list of dict
        Each pair of students: how many images only one of them agrees on, and the p-value of McNemar's exact test.
    gallery : int or None
        Texts an image chooses from.
    """

    scoreboard: list[dict[str, Any]]
    retrieval: dict[str, Any]
    curves: dict[str, Any]
    paired: list[dict[str, Any]]
    gallery: int | None


def measure(
    students: Mapping[str, Student],
    teacher: Any,
    *,
    classes: Any = None,
    texts: Any = None,
    labels: Any = None,
    gallery: int = GALLERY,
    curve_images: int = CURVE_IMAGES,
    random_state: int = 0,
) -> Faithfulness:
    """Compare students with their teacher on the same n images.

    Raises `ValueError` for unequal sizes, NaN, rows of zeros, or a gallery below 2.

    Parameters
    ----------
    teacher : array (n, d)
        Image embeddings.
    classes : array (J, d), optional
    texts : array (n, d), optional
        One caption per image.
    labels : array (n,) of int, optional
        True classes.
    gallery : int
        Most images and texts that are ranked against each other; the images are cut into nearly equal pieces, whose
        tables are averaged. Published: batches of 1,000. Ranks depend on it.
    curve_images : int
        Most images of the deletion and insertion curves, drawn with ``random_state``.
    """
    target = np.asarray(teacher, dtype=np.float64)
    n = len(target)
    check_embeddings(target, "image embeddings")
    for what, given, rows_wanted in (("class embeddings", classes, None), ("caption embeddings", texts, n)):
        if given is not None:
            check_embeddings(given, what, rows_wanted)
            if np.shape(given)[1] != target.shape[1]:
                raise ValueError(
                    f"Got {what} of {human_count(np.shape(given)[1], 'dimension')}, the images have {target.shape[1]}"
                )
    for name, student in students.items():
        if student.embeddings.shape != target.shape:
            raise ValueError(f"Got embeddings of shape {student.embeddings.shape} from {name}, expected {target.shape}")
    if gallery < 2 or curve_images < 1:
        raise ValueError(f"Got gallery={gallery} and curve_images={curve_images}, expected at least 2 and 1")
    pieces = chunks(np.arange(n), gallery) if texts is not None and n > 1 else []
    drawn = np.sort(generator(random_state, "faithfulness", "curves").permutation(n)[:curve_images])
    right: dict[str, np.ndarray] = {}
    each: dict[str, dict[str, np.ndarray]] = {}  # by method: what every image, or caption, adds to a mean
    rows: list[dict[str, Any]] = []
    ranked: dict[str, Any] = {}
    lines: dict[str, Any] = {}
    wanted = None if classes is None else predict(target, classes)
    for name, student in students.items():
        row: dict[str, Any] = {"method": name, "n": n, "agreement": None, "cosine": _cosine(student.embeddings, target)}
        row["l0"] = float(student.l0.mean())
        each[name] = {"cosine": _cosines(student.embeddings, target)}
        if classes is not None:
            found = classification(
                student.embeddings, target, classes, labels=labels, student_classes=student.keys(np.asarray(classes))
            )
            row |= found
            right[name] = predict(student.embeddings, student.keys(np.asarray(classes))) == wanted
            each[name]["agreement"] = right[name].astype(float)
        if pieces:
            ranked[name] = _retrieval(student, target, np.asarray(texts), pieces)
            row["i2t_r1"] = ranked[name]["faithfulness"]["i2t/r1"]
            row["t2i_r1"] = ranked[name]["faithfulness"]["t2i/r1"]
            each[name] |= _hits(student, target, np.asarray(texts), pieces)
        lines[name] = _curves(student, target, classes, wanted, drawn, random_state)
        if lines[name]:
            areas = lines[name]["embedding"]["areas"]
            row["deletion_gain"], row["insertion_gain"] = areas["deletion_gain"], areas["insertion_gain"]
        rows.append(row)
    for row in rows:
        for key, values in each[row["method"]].items():
            row.setdefault(f"{key}_interval", _interval(values, random_state))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    key = "agreement" if classes is not None else "i2t_r1" if pieces else "cosine"
    board = [{column: row.get(column) for column in columns} for row in sorted(rows, key=lambda row: -row[key])]
    size = max((len(piece) for piece in pieces), default=None)
    return Faithfulness(board, ranked, {k: v for k, v in lines.items() if v}, _paired(right, each, random_state), size)


def remarks(board: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of a scoreboard with a surrogate must know. `board`: as of `Faithfulness`."""
    by_name = {row["method"]: row for row in board}
    notes = []
    constant = by_name["constant"].get("agreement")
    for name, row in by_name.items():
        if name != "constant" and None not in (row.get("agreement"), constant) and row["agreement"] <= constant:
            notes.append(f"{name} agrees with the teacher no more often than a constant: it explains nothing here")
    one, other = by_name["surrogate"].get("l0"), by_name["splice"].get("l0") if "splice" in by_name else None
    if one and other and max(one, other) > 2 * min(one, other):
        notes.append(
            f"the methods differ in sparsity ({one:.1f} and {other:.1f} concepts per image); --param l1=X makes SpLiCE "
            f"{'denser with a smaller' if other < one else 'sparser with a larger'} X"
        )
    return notes


def _cosine(z: np.ndarray, target: np.ndarray) -> float:
    return float(_cosines(z, target).mean())


def _cosines(z: np.ndarray, target: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(z, axis=1) * np.linalg.norm(target, axis=1)
    return np.asarray(np.einsum("nd,nd->n", z, target) / np.maximum(norms, 1e-12))


def _hits(
    student: Student, target: np.ndarray, texts: np.ndarray, pieces: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Whether the student's best text of each image is the teacher's, and its best image of each text: 0 or 100."""
    keys = student.keys(texts)
    there, back = np.zeros(len(target)), np.zeros(len(target))
    for part in pieces:
        mine, theirs = cosine_matrix(student.embeddings[part], keys[part]), cosine_matrix(target[part], texts[part])
        there[part] = 100.0 * (mine.argmax(axis=1) == theirs.argmax(axis=1))
        back[part] = 100.0 * (mine.argmax(axis=0) == theirs.argmax(axis=0))
    return {"i2t_r1": there, "t2i_r1": back}


def _interval(values: np.ndarray, seed: int) -> list[float]:
    """95 % bootstrap interval of a mean over images (over captions for ``t2i_r1``); galleries stay as they are.

    The same images are drawn for every method, so that differences of methods are those on the same images.
    """
    rng = generator(seed, "faithfulness", "bootstrap")
    drawn = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(BOOTSTRAPS)]
    return [float(bound) for bound in np.quantile(drawn, (0.025, 0.975))]


def _retrieval(
    student: Student, target: np.ndarray, texts: np.ndarray, pieces: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    keys = student.keys(texts)
    tables = [
        retrieval(cosine_matrix(student.embeddings[part], keys[part]), cosine_matrix(target[part], texts[part]))
        for part in pieces
    ]
    return {kind: average_tables(table[kind] for table in tables) for kind in ("performance", "faithfulness")}


def _curves(
    student: Student,
    target: np.ndarray,
    classes: Any,
    wanted: np.ndarray | None,
    drawn: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Deletion and insertion, judged by the teacher's embedding and by the teacher's class; empty without concepts."""
    values, vectors, order = student.values, student.vectors, student.order
    if values is None or vectors is None or order is None or not student.l0[drawn].any():
        return {}
    scored = csr_array((order, values.indices, values.indptr), shape=values.shape)[drawn]
    part = csr_array(values[drawn])

    def run(scores: Any, judge: Any) -> dict[str, Any]:
        found = removal_curves(
            part, scores, vectors, judge, base=student.base, finish=student.finish, random_state=seed
        )
        names = ("fractions", "deletion", "insertion", "random_deletion", "random_insertion")
        return {name: getattr(found, name).tolist() for name in names} | {
            "areas": found.areas(),
            "images": found.images,
        }

    out = {"embedding": run(scored, cosine_to(target[drawn]))}
    if classes is not None and wanted is not None and student.towards is not None:
        texts = np.asarray(classes, dtype=np.float64)
        towards = student.towards(texts[wanted])
        scored = csr_array((towards, values.indices, values.indptr), shape=values.shape)[drawn]
        out["prediction"] = run(scored, agrees_with(wanted[drawn], student.keys(texts)))
    return out


def _paired(
    right: Mapping[str, np.ndarray], each: Mapping[str, Mapping[str, np.ndarray]], seed: int
) -> list[dict[str, Any]]:
    """McNemar's exact test of every pair, and how far they are apart on the same images, with bootstrap intervals."""
    out = []
    for a, b in combinations(each, 2):
        found: dict[str, Any] = {"a": a, "b": b}
        if right:
            first, second = int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())
            p = float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0
            found |= {"only_a": first, "only_b": second, "p": p}
        found["differences"] = {
            key: [float(difference.mean()), *_interval(difference, seed)]
            for key, difference in ((key, values - each[b][key]) for key, values in each[a].items())
        }
        out.append(found)
    return out
