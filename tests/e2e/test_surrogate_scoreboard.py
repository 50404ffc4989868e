"""``rdx explain --method all``: a surrogate and SpLiCE judged by the teacher on images neither has learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here, whole_page

WORDS = ["dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "ball", "chair"]
N, DIMENSIONS = 200, 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two things in every image; the teacher's embedding is their weighted sum and something they have in common."""
    root = tmp_path_factory.mktemp("scoreboard")
    rng = np.random.default_rng(0)
    things, common = rng.normal(size=(len(WORDS), DIMENSIONS)), rng.normal(size=DIMENSIONS)
    captions, images, texts, labels = {}, [], [], []
    for i in range(N):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        captions[f"im{i:03d}"] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(2 * common + things[one] + 0.5 * things[two] + 0.1 * rng.normal(size=DIMENSIONS))
        texts += [things[one] + 0.5 * things[two], things[one]]
        labels.append(WORDS[one])
    (root / "caps.json").write_text(json.dumps(captions))
    np.savez(root / "img.npz", values=np.array(images), sample_ids=np.array(list(captions)))
    np.save(root / "txt.npy", np.array(texts))
    np.save(root / "offsets.npy", np.arange(0, 2 * N + 1, 2))
    np.save(root / "cls.npy", things)
    (root / "cls.txt").write_text("\n".join(WORDS))
    (root / "labels.txt").write_text("\n".join(labels))
    return root


def said(world: Path, *given: object) -> str:
    done = rdx_here(*given, "--outputs", world / "outputs", cwd=world)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def encodings(world: Path) -> str:
    return said(world, "encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1")


@pytest.fixture(scope="module")
def surrogate(world: Path, encodings: str) -> str:
    return said(
        world,
        *("train-surrogate", "--encodings", encodings, "--image-embeddings", "img.npz:values"),
        *("--text-embeddings", "txt.npy", "--text-offsets", "offsets.npy", "--epochs", "60", "--batch-size", "60"),
        *("--learning-rate", "0.5", "--device", "cpu", "--param", "validation=0.3"),
    )


IMAGES = ("--file", "image_embeddings=img.npz:values")
CLASSES = ("--file", "text_embeddings=cls.npy", "--file", "class_names=cls.txt")
TEXTS = ("--file", "caption_embeddings=txt.npy", "--file", "caption_offsets=offsets.npy")
SPLICE = ("--file", "word_embeddings=cls.npy", "--concept-set", "cls.txt", "--param", "l1=0.1")


def judged(world: Path, encodings: str, surrogate: str, *more: object) -> dict:
    given = ("explain", "--method", "all", "--surrogate", surrogate, "--encodings", encodings, "--json")
    return json.loads(said(world, *given, *more))


def test_every_metric_is_in_the_table_and_on_the_page(world: Path, encodings: str, surrogate: str) -> None:
    document = judged(world, encodings, surrogate, *IMAGES, *CLASSES, *TEXTS, *SPLICE, "--labels", "labels.txt")
    held_out = json.loads((Path(surrogate) / "samples.json").read_text("utf-8"))["held_out"]
    assert sorted(image["sample_id"] for image in document["images"]) == sorted(held_out)
    rows = {row["method"]: row for row in document["scoreboard"]}
    assert set(rows) == {"surrogate", "splice", "sae", "constant"}
    assert rows["sae"]["agreement"] > rows["constant"]["agreement"] + 0.2
    assert all(rows[name]["agreement"] > 0.8 for name in ("surrogate", "splice"))
    assert all(rows[name]["accuracy"] > 0.6 for name in ("surrogate", "splice"))
    assert rows["constant"]["agreement"] < 0.5 < rows["constant"]["cosine"]  # a large cosine says nothing
    for name in ("surrogate", "splice"):
        assert rows[name]["deletion_gain"] > 0, rows[name]
        assert rows[name]["insertion_gain"] > 0, rows[name]
        assert rows[name]["i2t_r1"] > rows["constant"]["i2t_r1"]
        low, high = rows[name]["agreement_interval"]
        assert low <= rows[name]["agreement"] <= high
        for kind in ("performance", "faithfulness"):
            assert {
                f"{way}/{key}" for way in ("i2t", "t2i") for key in ("r1", "r5", "r10", "r50", "medr", "meanr")
            } < set(document["retrieval"][name][kind])
        for judge in ("embedding", "prediction"):
            curve = document["curves"][name][judge]
            assert curve["fractions"][0] == 0
            assert curve["deletion"][0] == pytest.approx(curve["insertion"][-1])  # nothing gone, all there
            assert curve["deletion"][-1] == pytest.approx(curve["insertion"][0])
    assert {(pair["a"], pair["b"]) for pair in document["paired"]} == {
        ("surrogate", "splice"), ("surrogate", "sae"), ("surrogate", "constant"), ("splice", "sae"),
        ("splice", "constant"), ("sae", "constant"),
    }  # fmt: skip
    assert next(pair["p"] for pair in document["paired"] if (pair["a"], pair["b"]) == ("surrogate", "constant")) < 0.01
    image = document["images"][0]
    assert set(image["methods"]) == {"surrogate", "splice", "sae"}
    named = [image["methods"]["sae"]["concepts"][0]["concept"] == image["prediction"] for image in document["images"]]
    assert np.mean(named) > 0.4  # one in ten by chance
    page = whole_page(world / said(world, "visualize", document["artifact"]))
    assert "Scoreboard" in page
    assert "Retrieval" in page
    assert page.count("<svg") == 6
    shown = rdx_here(
        *("explain", "--method", "all", "--surrogate", surrogate, "--encodings", encodings, *IMAGES, *CLASSES),
        *(*TEXTS, *SPLICE, "--labels", "labels.txt", "--outputs", world / "outputs"),
        cwd=world,
    )
    assert f"accuracy of the teacher itself: {rows['splice']['teacher_accuracy']:.3f}" in shown.stderr
    told = " ".join(shown.stderr.split())
    assert [word for word in ("interval", "best", "constant") if word not in told] == []
    assert "deletion gain" in page


def test_rows_are_matched_by_id(world: Path, encodings: str, surrogate: str, tmp_path: Path) -> None:
    first = judged(world, encodings, surrogate, *IMAGES, *CLASSES, "--run", "first")
    order = np.random.default_rng(1).permutation(N)
    stored = np.load(world / "img.npz")
    turned = tmp_path / "turned.npz"
    np.savez(turned, values=stored["values"][order], sample_ids=stored["sample_ids"][order])
    other = ("--file", f"image_embeddings={turned}:values", *CLASSES, "--run", "second")
    second = judged(world, encodings, surrogate, *other)

    def figures(document: dict) -> Sequence[tuple]:
        found = [row for row in document["scoreboard"] if row["cosine"] is not None]
        return [(row["method"], row["agreement"], round(row["cosine"], 9)) for row in found]

    assert figures(first) == figures(second)


def test_what_cannot_be_measured_is_said(world: Path, encodings: str, surrogate: str) -> None:
    document = judged(world, encodings, surrogate, *IMAGES, "--run", "little")
    rows = {row["method"]: row for row in document["scoreboard"]}
    assert rows["surrogate"]["cosine"] > 0
    assert rows["surrogate"]["agreement"] is None
    assert rows["splice"]["cosine"] is None
    assert all(any(f"{name} did not run: no word" in note for note in document["notes"]) for name in ("splice", "sae"))
    everything = judged(world, encodings, surrogate, *IMAGES, "--param", "images=all", "--run", "everything")
    assert everything["n"] == N
    full = judged(world, encodings, surrogate, *IMAGES, *SPLICE, "--param", "images=all", "--run", "full")
    assert any("sae did not run: it learns from images that are not judged" in note for note in full["notes"])
    assert any("trained on some of these" in note for note in everything["notes"])
    bare = judged(world, encodings, f"{surrogate}/surrogate.safetensors", *IMAGES, "--run", "bare")
    assert bare["n"] == (N if any("not known" in note for note in bare["notes"]) else len(document["images"]))


def test_splice_alone_has_a_scoreboard_too(world: Path) -> None:
    document = json.loads(said(world, "explain", "--method", "splice", *IMAGES, *CLASSES, *SPLICE, "--json"))
    assert document["n"] == N
    assert [row["method"] for row in document["scoreboard"]] == ["splice", "constant"]
    np.save(world / "twice.npy", np.load(world / "cls.npy")[[*range(len(WORDS)), 0]])
    (world / "twice.txt").write_text("\n".join([*WORDS, "dogs"]))
    twice = ("--file", "word_embeddings=twice.npy", "--concept-set", "twice.txt", "--param", "l1=0.1")
    given = ("explain", "--method", "splice", *IMAGES, *twice, "--param", "duplicates=0.99", "--run", "once", "--json")
    once = json.loads(said(world, *given))
    assert any("1 of 11 words are left out" in note for note in once["notes"])
    assert [image["concepts"] for image in once["images"]] == [image["concepts"] for image in document["images"]]
    captions = json.loads((world / "caps.json").read_text("utf-8"))
    first = [image["concepts"][0]["concept"] for image in document["images"]]
    spoken = [captions[image["sample_id"]][1].split()[1] for image in document["images"]]
    assert np.mean([a == b for a, b in zip(first, spoken, strict=True)]) > 0.9


def test_mistakes_are_said_in_a_line(world: Path, encodings: str, surrogate: str, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.ones((5, DIMENSIONS)))
    np.save(tmp_path / "mean.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", values=np.ones((4, DIMENSIONS)), sample_ids=np.array(list("abcd")))
    given = ("explain", "--method", "all", "--surrogate", surrogate, "--encodings", encodings)
    cases = [
        (given[:3], "--surrogate"),
        (given, "what does the teacher say"),
        ((*given, "--file", f"image_embeddings={tmp_path}/few.npy"), "5 images without ids"),
        ((*given, "--file", f"image_embeddings={tmp_path}/other.npz:values"), "none of the"),
        ((*given, *IMAGES, "--param", "images=some"), "held-out"),
        ((*given, *IMAGES, "--param", "galery=5"), "gallery"),
        ((*given, *IMAGES, "--param", "gallery=1", *TEXTS), "gallery=1"),
        ((*given, *IMAGES, "--file", "caption_embeddings=txt.npy"), "caption_offsets"),
        ((*given, *IMAGES, "--file", "caption_embeddings=txt.npy", "--file", "caption_offsets=cls.npy"), "offsets"),
        ((*given, *IMAGES, *SPLICE, "--file", f"image_mean={tmp_path}/mean.npy"), "3 dimensions"),
        ((*given, *IMAGES, *CLASSES, "--file", "class_names=caps.json"), "1 name"),
        ((*given, "--vlm", "hf:nowhere", *IMAGES, "--dataset", "digits"), "--vlm embeds images"),
        (("explain", "--method", "splice", *IMAGES), "by words"),
    ]
    for wrong, words in cases:
        done = rdx_here(*wrong, "--outputs", tmp_path / "outputs", cwd=world)
        assert done.returncode in (1, 2), (wrong, done.stdout, done.stderr)
        assert words in done.stderr, (wrong, done.stderr)
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr, done.stderr
