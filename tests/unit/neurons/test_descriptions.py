"""CLIP-Dissect and Network Dissection against their formulas, with planted answers, and on real street scenes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdxcli.methods.neurons.clip_dissect import SIMILARITIES, ClipDissect, top_images
from rdxcli.methods.neurons.concepts import LazyCosines
from rdxcli.methods.neurons.network_dissection import NetworkDissection, TopQuantile
from rdxcli.methods.neurons.tables import format_table, parse_table

N, C, U = 300, 12, 40


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit k follows concept k mod C."""
    rng = np.random.default_rng(seed)
    S = 0.2 + 0.05 * rng.normal(size=(N, C))
    truth = np.arange(U) % C
    A = np.maximum(S[:, truth] - 0.2 + 0.01 * rng.normal(size=(N, U)), 0)
    return S, A, truth


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_planted_concepts_are_found(similarity: Any) -> None:
    S, A, truth = planted()
    model = ClipDissect(similarity=similarity, a=60.0 if "wpmi" in similarity else None).fit(S, A)
    assert (model.best_ == truth).mean() > 0.95
    best = np.take_along_axis(model.similarity_, model.best_[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(best, model.similarity_.max(axis=1))
    read = parse_table(format_table(model.table("fc")))
    assert [row.concepts for row in read.rows] == [(f"concept {k}",) for k in model.best_]
    assert read.rows[0].scores["similarity"] == pytest.approx(best[0])


@pytest.mark.parametrize("k", [7, 40])
def test_soft_wpmi_by_its_formula(k: int) -> None:
    S, A, _ = planted(1)
    model = ClipDissect(top_k=k, a=5.0, lam=0.8).fit(S, A)
    p = softmax(5.0 * S)
    inside = np.empty((U, C))
    for unit in range(U):
        rows = np.argsort(-A[:, unit], kind="stable")[:k]
        belief = 0.998 - np.arange(k) / k * (0.998 - 0.97)
        inside[unit] = np.log(1 + belief[:, None] * (p[rows] - 1) + 1e-7).sum(axis=0)
    common = np.log(np.exp(inside - inside.max(axis=0)).mean(axis=0)) + inside.max(axis=0)
    np.testing.assert_allclose(model.similarity_, inside - 0.8 * common, rtol=1e-9)


def test_wpmi_by_its_formula() -> None:
    S, A, _ = planted(2)
    model = ClipDissect(similarity="wpmi").fit(S, A)
    log_p = np.log(softmax(2.0 * S) + 1e-7)
    inside = np.stack([log_p[np.argsort(-A[:, unit], kind="stable")[:28]].sum(axis=0) for unit in range(U)])
    common = np.log(np.exp(inside - inside.max(axis=0)).mean(axis=0)) + inside.max(axis=0)
    np.testing.assert_allclose(model.similarity_, inside - 0.6 * common, rtol=1e-9)


def test_cosines_by_their_formula() -> None:
    S, A, _ = planted(3)
    plain = ClipDissect(similarity="cos").fit(S, A).similarity_
    np.testing.assert_allclose(plain, (A.T @ S) / np.outer(np.linalg.norm(A, axis=0), np.linalg.norm(S, axis=0)))
    s3, a3 = (S - S.mean(axis=0)) ** 3, (A - A.mean(axis=0)) ** 3
    cubed = ClipDissect(similarity="cos-cubed").fit(S, A).similarity_
    floor = [np.maximum(np.linalg.norm(x, axis=0), 1e-3) for x in (a3, s3)]
    np.testing.assert_allclose(cubed, (a3.T @ s3) / np.outer(*floor), atol=1e-12)


def test_rank_reorder_by_its_formula() -> None:
    S, A, _ = planted(4)
    ours = ClipDissect(similarity="rank-reorder", top_fraction=0.1).fit(S, A).similarity_
    for unit in (0, 17):
        rows = np.argsort(-A[:, unit], kind="stable")[:30]
        a = A[rows, unit]
        expected = np.mean([abs(x - y) ** 3 for x in a for y in a])
        for concept in (0, 5):
            reordered = np.empty(30)
            reordered[np.argsort(S[rows, concept], kind="stable")] = np.sort(a)
            error = np.mean(np.abs(a - reordered) ** 3) / expected / np.sqrt(S[rows, concept].mean())
            assert ours[unit, concept] == pytest.approx(-error)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_selected_units_are_described_as_with_all(similarity: Any) -> None:
    S, A, _ = planted()
    whole = ClipDissect(similarity=similarity).fit(S, A)
    part = ClipDissect(similarity=similarity).fit(S, A, units=[3, 31])
    np.testing.assert_allclose(part.similarity_, whole.similarity_[[3, 31]], rtol=1e-12)
    assert [row.unit for row in part.explanations_] == [3, 31]


def test_a_single_unit_is_not_compared_with_itself() -> None:
    S, A, truth = planted()
    alone = ClipDissect(a=60.0).fit(S, A[:, [5]])
    assert alone.best_[0] == truth[5]
    assert "only 1 unit varies" in alone.notes_[0]
    published = ClipDissect(a=60.0, prior="units").fit(S, A[:, [5]])
    np.testing.assert_allclose(published.similarity_, 0.0, atol=1e-9)  # why
    # the expectation over images, by hand
    belief = 0.998 - np.arange(100) / 100 * (0.998 - 0.97)
    p = softmax(60.0 * S)
    rows = np.argsort(-A[:, 5], kind="stable")[:100]
    inside = np.log(1 + belief[:, None] * (p[rows] - 1) + 1e-7).sum(axis=0)
    common = np.log(1 + belief[None, :, None] * (p[:, None, :] - 1) + 1e-7).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(alone.similarity_[0], inside - common, rtol=1e-9)


def test_constant_units_have_no_description() -> None:
    S, A, _ = planted()
    A[:, 2] = 0.3
    for similarity in SIMILARITIES:
        model = ClipDissect(similarity=similarity).fit(S, A)
        assert model.best_[2] == -1
        assert model.explanations_[2].status == "constant"
        assert model.notes_ == ["no description for 1 unit that does not vary: 2"]
        assert "nan" not in format_table(model.table()).lower()


def test_embeddings_are_used_as_they_come() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(N, 8)), rng.normal(size=(C, 8))
    source = LazyCosines(images, texts)
    A = np.maximum(source[:][:, np.arange(U) % C], 0)
    lazy, dense = ClipDissect().fit(source, A), ClipDissect().fit(source[:], A)
    np.testing.assert_allclose(lazy.similarity_, dense.similarity_)
    rows = np.arange(0, N, 2)
    np.testing.assert_allclose(
        ClipDissect().fit(source, A, rows=rows).similarity_, ClipDissect().fit(source[rows], A[rows]).similarity_
    )


def test_top_images_break_ties_by_row() -> None:
    values = np.array([[1.0], [3.0], [2.0], [2.0], [2.0], [0.0]])
    assert top_images(values, 3)[:, 0].tolist() == [1, 2, 3]
    assert top_images(values, 6)[:, 0].tolist() == [1, 2, 3, 4, 0, 5]


@pytest.mark.parametrize(
    "options",
    [{"similarity": "dot"}, {"prior": "x"}, {"top_k": 0}, {"top_fraction": 0.0}, {"p_start": 0.5, "p_end": 0.9}],
)
def test_impossible_clip_dissect(options: dict[str, Any]) -> None:
    S, A, _ = planted()
    with pytest.raises(ValueError, match="Got"):
        ClipDissect(**options).fit(S, A)
    with pytest.raises(ValueError, match="same images"):
        ClipDissect().fit(S[:-1], A)


# Network Dissection


def scenes(n: int = 12, size: int = 16, c: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Label maps of rectangles (0 is background, c marks unlabelled) and maps of the same size with noise."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, size, size), dtype=np.int64)
    for image in labels:
        for _ in range(3):
            y, x = rng.integers(0, size - 4, 2)
            image[y : y + 4, x : x + 4] = rng.integers(1, c)
        image[:2] = c
    maps = rng.random((n, 7, size, size)) * 0.3
    for unit in range(c):
        maps[:, unit] += labels == unit
    return maps, labels


def test_overlap_by_hand() -> None:
    maps, labels = scenes()
    model = NetworkDissection(quantile=0.05).fit(maps, labels, concept_names=list("abcde"))
    limits = np.array(
        [np.sort(maps[:, u].astype(np.float32).ravel())[::-1][int(0.05 * maps[:, u].size)] for u in range(7)]
    )
    np.testing.assert_array_equal(model.thresholds_, limits)
    mask = maps.astype(np.float32) > limits[:, None, None]
    for unit in range(7):
        for concept in range(5):
            inside = labels == concept
            assert model.intersection_[unit, concept] == (mask[:, unit] & inside).sum()
            assert model.union_[unit, concept] == (mask[:, unit] | inside).sum()
    np.testing.assert_allclose(model.iou_, model.intersection_ / model.union_)
    assert model.best_[1:5].tolist() == [1, 2, 3, 4]
    assert model.explanations_[3].concepts == ("d",)
    assert model.interpretable_[1:5].all()
    assert parse_table(format_table(model.table("conv"))).rows == model.table("conv").rows


def test_label_maps_masks_and_batches_agree() -> None:
    maps, labels = scenes()
    names = list("abcde")
    whole = NetworkDissection(quantile=0.02).fit(maps, labels, concept_names=names)
    binary = np.stack([labels == k for k in range(5)], axis=1)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 12, 5):
            yield maps[start : start + 5], labels[start : start + 5]

    for other in (
        NetworkDissection(quantile=0.02).fit(maps, binary, concept_names=names),
        NetworkDissection(quantile=0.02).fit(None, None, concept_names=names, batches=batches, n_images=12),
    ):
        np.testing.assert_array_equal(other.thresholds_, whole.thresholds_)
        np.testing.assert_array_equal(other.iou_, whole.iou_)
    with pytest.raises(ValueError, match="activations per unit, expected"):
        NetworkDissection().fit(None, None, concept_names=names, batches=batches, n_images=11)


def test_small_maps_are_brought_to_the_size_of_the_masks() -> None:
    import torch

    maps, labels = scenes()
    small = torch.nn.functional.avg_pool2d(torch.as_tensor(maps), 4).numpy()
    model = NetworkDissection(quantile=0.1).fit(small, labels, concept_names=list("abcde"))
    # bilinear interpolation with aligned pixel centres, written out
    position = np.clip((np.arange(16) + 0.5) / 4 - 0.5, 0, 3)
    low = np.minimum(position.astype(int), 2)
    weights = np.zeros((16, 4))
    weights[np.arange(16), low] = 1 - (position - low)
    weights[np.arange(16), low + 1] += position - low
    large = np.einsum("yi,nuij,xj->nuyx", weights, small, weights)
    mask = large > model.thresholds_[:, None, None]
    inside = np.stack([(mask & (labels == k)[:, None]).sum(axis=(0, 2, 3)) for k in range(5)], axis=1)
    assert np.abs(model.intersection_ - inside).max() <= 2  # single precision at the threshold


def test_images_without_a_category_do_not_count() -> None:
    maps, labels = scenes(n=6)
    labels[3:] = 4  # only category "other"
    names, categories = list("abcde"), ["object"] * 4 + ["other"]
    own = NetworkDissection(quantile=0.05).fit(maps, labels, concept_names=names, categories=categories)
    limits = own.thresholds_.astype(np.float32)[:, None, None]
    mask = maps.astype(np.float32) > limits
    for concept in range(4):
        inside = labels[:3] == concept
        np.testing.assert_array_equal(own.union_[:, concept], (mask[:3] | inside[:, None]).sum(axis=(0, 2, 3)))
    counted = (labels == 4).any(axis=(1, 2))
    inside = labels[counted] == 4
    np.testing.assert_array_equal(own.union_[:, 4], (mask[counted] | inside[:, None]).sum(axis=(0, 2, 3)))
    one = NetworkDissection(quantile=0.05).fit(maps, labels, concept_names=names)
    assert (one.union_[:, :4] >= own.union_[:, :4]).all()
    assert (one.union_[:, 1] > own.union_[:, 1]).any()


def test_units_and_concepts_without_a_label() -> None:
    maps, labels = scenes()
    maps[:, 5] = 0.1
    maps[:, 6] = 0.0
    maps[:, 6, 0, 0] = 1.0  # active on unlabelled pixels only
    model = NetworkDissection().fit(maps, labels, concept_names=[*"abcde", "never"][:6], ignore=5)
    assert [model.explanations_[k].status for k in (1, 5, 6)] == ["explained", "constant", "no overlap"]
    assert model.best_[5:].tolist() == [-1, -1]
    assert not model.interpretable_[5:].any()
    assert np.isnan(model.iou_[:, 5]).all()
    assert model.notes_ == [
        "no label for 1 unit that does not vary: 5",
        "no label for 1 unit that overlaps no concept: 6",
        "1 concept has no pixel in these images: `never`",
    ]


def test_thresholds_do_not_depend_on_batches() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    for step in (1, 7, 5000):
        top = TopQuantile(3, 5000, 0.01)
        for start in range(0, 5000 if step > 1 else 200, step):
            top.update(values[:, start : start + step])
        if step > 1:
            np.testing.assert_array_equal(top.thresholds(), np.sort(values, axis=1)[:, ::-1][:, 50])
            assert (values > top.thresholds()[:, None]).sum(axis=1).tolist() == [50] * 3
            assert top.kept.shape[1] <= 51
        else:
            with pytest.raises(ValueError, match="Got 200 activations"):
                top.thresholds()


@pytest.mark.parametrize(
    "change",
    [
        {"maps": np.zeros((12, 7, 16))},
        {"maps": np.full((12, 7, 16, 16), np.nan)},
        {"masks": np.zeros((11, 16, 16), int)},
        {"masks": np.zeros((12, 16, 16))},
        {"masks": np.zeros((12, 4, 16, 16), bool)},
        {"masks": np.full((12, 16, 16), 99)},
        {"concept_names": []},
        {"categories": ["a"]},
        {"maps": None},
    ],
)
def test_impossible_network_dissection(change: dict[str, Any]) -> None:
    maps, labels = scenes()
    with pytest.raises(ValueError, match="Got"):
        NetworkDissection().fit(**{"maps": maps, "masks": labels, "concept_names": list("abcde"), **change})
    with pytest.raises(ValueError, match="quantile"):
        NetworkDissection(quantile=1.0).fit(maps, labels, concept_names=list("abcde"))


@pytest.mark.shared
def test_street_scenes(shared: Path) -> None:
    """Brightness, darkness and greenness of real frames as units: they must find sky, not road, and trees."""
    from PIL import Image

    folder = shared / "data" / "camvid40"
    frames = sorted((folder / "images").iterdir())[:20]
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"]
    maps, masks = [], []
    for frame in frames:
        rgb = np.asarray(Image.open(frame).convert("RGB").resize((80, 60)), dtype=np.float32) / 255
        mean = rgb.mean(axis=2)
        row = np.broadcast_to(np.linspace(0, 1, 60)[:, None], mean.shape)
        maps.append(np.stack([mean - row, row - np.abs(mean - 0.3), rgb[..., 1] - mean, np.zeros_like(mean)]))
        masks.append(np.asarray(Image.open(folder / "masks" / f"{frame.stem}.png")))
    model = NetworkDissection(quantile=0.1).fit(np.stack(maps), np.stack(masks).astype(np.int64), concept_names=names)
    found = [row.concepts[0] if row.concepts else None for row in model.explanations_]
    assert found[0] == "sky"
    assert found[1] in {"road", "pavement"}
    assert found[3] is None
    assert model.iou_[0, names.index("sky")] > 0.3
    assert np.isfinite(model.iou_[:3]).all()
