"""The scoreboard of explanations: figures by hand, students whose figures are known, order of the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import binom

from rdxcli.methods.surrogate.encoding import from_matrix
from rdxcli.methods.surrogate.extraction import Concept
from rdxcli.methods.surrogate.faithfulness import (
    Student,
    _interval,
    constant_student,
    measure,
    splice_student,
    surrogate_student,
)
from rdxcli.methods.surrogate.model import Surrogate
from rdxcli.methods.surrogate.splice import SpLiCE

N, C, D, J = 60, 12, 8, 5
RNG = np.random.default_rng(0)
SHARES = np.where(RNG.random((N, C)) < 0.3, RNG.integers(1, 6, (N, C)) / 5, 0.0)
CLASSES, TEXTS = RNG.normal(size=(J, D)), RNG.normal(size=(N, D))


def surrogate(**options: object) -> Surrogate:
    return Surrogate(C, D, random_state=1, **options)  # type: ignore[arg-type]


def encodings(rows: np.ndarray | None = None):
    shares = SHARES if rows is None else SHARES[rows]
    return from_matrix(shares, [str(i) for i in range(len(shares))], [Concept(str(j), "n") for j in range(C)])


def test_a_student_that_is_its_teacher_agrees_in_everything() -> None:
    student = surrogate_student(surrogate(), encodings())
    found = measure({"self": student}, student.embeddings, classes=CLASSES, texts=TEXTS)
    (row,) = found.scoreboard
    assert (row["agreement"], row["n"]) == (1.0, N)
    assert row["cosine"] == pytest.approx(1.0)
    assert (row["i2t_r1"], row["t2i_r1"]) == (100.0, 100.0)
    assert row["l0"] == pytest.approx((SHARES > 0).sum(axis=1).mean())
    curve = found.curves["self"]["embedding"]
    assert curve["insertion"][-1] == pytest.approx(1.0)
    assert curve["deletion"][0] == pytest.approx(1.0)
    assert curve["images"] == int((SHARES > 0).any(axis=1).sum())


def test_deleting_by_the_scores_is_deleting_by_hand() -> None:
    """The prediction curve of the surrogate, image by image with its own weights."""
    model = surrogate()
    teacher = RNG.normal(size=(N, D))
    found = measure({"s": surrogate_student(model, encodings())}, teacher, classes=CLASSES)
    W, b = model.table.detach().double().numpy(), model.bias.detach().double().numpy()
    unit = CLASSES / np.linalg.norm(CLASSES, axis=1, keepdims=True)
    same = []
    for c, x in zip(SHARES, teacher, strict=True):
        if not c.any():
            continue
        y = (unit @ x).argmax()
        present = np.flatnonzero(c)
        order = present[np.argsort(-c[present] * (W[present] @ unit[y]), kind="stable")]
        gone = order[: int(np.ceil(0.5 * len(order)))]
        left = c.copy()
        left[gone] = 0
        same.append((unit @ (left @ W + b)).argmax() == y)
    assert found.curves["s"]["prediction"]["deletion"][5] == pytest.approx(np.mean(same))


def test_pairs_are_compared_by_mcnemars_test() -> None:
    unit = np.eye(D)[:2]
    teacher = np.repeat(unit[:1], 20, axis=0)
    right, wrong = unit[0], unit[1]
    one = Student(np.array([right] * 15 + [wrong] * 5))
    other = Student(np.array([right] * 6 + [wrong] * 14))
    (pair,) = measure({"one": one, "other": other}, teacher, classes=unit).paired
    assert (pair["only_a"], pair["only_b"]) == (9, 0)
    assert pair["p"] == pytest.approx(2 * binom.cdf(0, 9, 0.5))


def test_images_in_another_order_give_the_same_figures() -> None:
    teacher, labels = RNG.normal(size=(N, D)), RNG.integers(0, J, N)
    order = RNG.permutation(N)

    def figures(rows: np.ndarray) -> list[tuple]:
        words = SpLiCE(l1=0.2).fit(np.random.default_rng(5).normal(size=(30, D)), np.zeros(D))
        students = {
            "surrogate": surrogate_student(surrogate(), encodings(rows)),
            "splice": splice_student(words, words.transform(teacher[rows])),
            "constant": constant_student(teacher[rows]),
        }
        found = measure(students, teacher[rows], classes=CLASSES, texts=TEXTS[rows], labels=labels[rows])
        keys = ("method", "agreement", "accuracy", "i2t_r1", "t2i_r1", "l0")
        assert all(len(table["faithfulness"]) == 14 for table in found.retrieval.values())
        return [tuple(row[key] for key in keys) for row in found.scoreboard]

    assert figures(np.arange(N)) == figures(order)


def test_a_key_encoder_is_used_for_every_text() -> None:
    model = surrogate(use_key_encoder=True)
    student = surrogate_student(model, encodings())
    with torch.inference_mode():
        keys = model.keys(torch.tensor(CLASSES, dtype=torch.float32)).double().numpy()
    teacher = RNG.normal(size=(N, D))
    unit = CLASSES / np.linalg.norm(CLASSES, axis=1, keepdims=True)
    mine = (student.embeddings @ (keys / np.linalg.norm(keys, axis=1, keepdims=True)).T).argmax(axis=1)
    (row,) = measure({"s": student}, teacher, classes=CLASSES).scoreboard
    assert row["agreement"] == pytest.approx((mine == (teacher @ unit.T).argmax(axis=1)).mean())


def test_galleries_and_images_of_curves_are_limited() -> None:
    teacher = RNG.normal(size=(N, D))
    student = surrogate_student(surrogate(), encodings())
    small = measure({"s": student}, teacher, texts=TEXTS, gallery=25, curve_images=10)
    assert small.gallery == 20  # 60 images in three equal pieces of at most 25
    assert small.curves["s"]["embedding"]["images"] <= 10
    assert "prediction" not in small.curves["s"]
    bare = measure({"s": Student(teacher)}, teacher)
    assert (bare.curves, bare.retrieval, bare.paired, bare.gallery) == ({}, {}, [], None)
    assert bare.scoreboard[0]["agreement"] is None
    empty = Student(teacher, csr_array((N, C)), np.zeros((C, D)), np.zeros(0))
    assert measure({"s": empty}, teacher).curves == {}


def test_unusable_input_is_refused() -> None:
    teacher = RNG.normal(size=(N, D))
    for given, said in (
        ({"students": {"s": Student(teacher[:5])}}, "from s"),
        ({"students": {"s": Student(teacher)}, "gallery": 1}, "gallery=1"),
        ({"students": {"s": Student(teacher)}, "curve_images": 0}, "curve_images=0"),
        ({"students": {"s": Student(teacher)}, "classes": CLASSES[:, :3]}, "3 dimensions"),
        ({"students": {"s": Student(teacher)}, "classes": CLASSES * 0}, "zeros in class embeddings"),
        ({"students": {"s": Student(teacher)}, "texts": TEXTS[:5]}, "caption embeddings"),
        ({"students": {"s": Student(teacher)}, "texts": TEXTS * np.nan}, "NaN"),
    ):
        with pytest.raises(ValueError, match=said):
            measure(teacher=teacher, **given)  # type: ignore[arg-type]


def test_differences_of_methods_have_intervals_on_the_same_images() -> None:
    """Two students that are equally noisy do not differ, one that is noisier does; every figure has its interval."""
    rng = np.random.default_rng(3)
    teacher = rng.normal(size=(N, D))
    texts = teacher + 0.3 * rng.normal(size=(N, D))
    near, equal, far = (Student(teacher + noise * rng.normal(size=(N, D))) for noise in (0.6, 0.6, 3.0))
    found = measure({"near": near, "equal": equal, "far": far}, teacher, classes=CLASSES, texts=texts)
    pairs = {(pair["a"], pair["b"]): pair["differences"] for pair in found.paired}
    for key in ("agreement", "cosine", "i2t_r1", "t2i_r1"):
        mean, low, high = pairs["near", "far"][key]
        assert 0 < low < mean < high
        mean, low, high = pairs["near", "equal"][key]
        assert low <= mean <= high
        assert low < 0.15 * (100 if "r1" in key else 1)
    rows = {row["method"]: row for row in found.scoreboard}
    for key in ("cosine", "i2t_r1", "t2i_r1"):
        low, high = rows["near"][f"{key}_interval"]
        assert low <= rows["near"][key] <= high
        assert pairs["near", "far"][key][0] == pytest.approx(rows["near"][key] - rows["far"][key])
    covered = sum(
        low <= 0 <= high
        for seed in range(60)
        for low, high in [_interval(np.random.default_rng(seed).normal(size=60), seed)]
    )
    assert covered >= 52  # 95 % of 60 is 57
