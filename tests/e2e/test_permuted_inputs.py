"""Rows that carry ids are joined by them: each input with its rows in another order gives the same result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import rdx_here

WORDS = ["dog", "cat", "tree", "car", "house", "bird"]
N, DIMENSIONS = 60, 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("permuted")
    rng = np.random.default_rng(0)
    things = rng.normal(size=(len(WORDS), DIMENSIONS))
    captions, images, texts, owners, labels = {}, [], [], [], []
    for i in range(N):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        name = f"im{i:03d}"
        captions[name] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(things[one] + 0.5 * things[two] + 0.1 * rng.normal(size=DIMENSIONS))
        texts += [images[-1] + 0.1 * rng.normal(size=DIMENSIONS), things[one]]
        owners += [name, name]
        labels.append(WORDS[one])
    ids = list(captions)
    (root / "caps.json").write_text(json.dumps(captions))
    np.savez(root / "img.npz", values=np.array(images), sample_ids=np.array(ids))
    np.savez(root / "txt.npz", values=np.array(texts), sample_ids=np.array(owners))
    for name in ("words", "classes"):
        np.savez(root / f"{name}.npz", values=things, sample_ids=np.array(WORDS))
    (root / "words.txt").write_text("\n".join(WORDS))
    (root / "labels.csv").write_text("id,label\n" + "\n".join(map(",".join, zip(ids, labels, strict=True))))
    shares = np.array([[sum(word in text for text in texts) / 2 for word in WORDS] for texts in captions.values()])
    np.savez(root / "enc.npz", values=shares, sample_ids=np.array(ids))
    done = said(root, *TRAIN, "--run", "plain")
    (root / "surrogate.txt").write_text(done)
    return root


TRAIN = (
    *("train-surrogate", "--encodings", "enc.npz", "--image-embeddings", "img.npz:values"),
    *("--text-embeddings", "txt.npz:values", "--epochs", "3", "--batch-size", "16", "--learning-rate", "0.5"),
    *("--device", "cpu", "--no-tensorboard"),
)
SPLICE = (
    *("explain", "--method", "splice", "--file", "image_embeddings=img.npz:values", "--labels", "labels.csv"),
    *("--file", "word_embeddings=words.npz:values", "--concept-set", "words.txt", "--param", "l1=0.1"),
    *("--file", "text_embeddings=classes.npz:values", "--file", "class_names=words.txt"),
    *("--file", "caption_embeddings=txt.npz:values"),
)
BOARD = (*SPLICE[:2], "all", *SPLICE[3:], "--encodings", "enc.npz", "--surrogate")
ENCODE = ("encode-concepts", "--captions", "caps.json", "--tagger", "packaged", "--max-threshold", "1")


def said(cwd: Path, *given: object) -> str:
    done = rdx_here(*given, "--outputs", cwd / "outputs", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _trained(folder: Path) -> dict:
    document = json.loads((folder / "surrogate.json").read_text("utf-8"))
    return {
        "weights": (folder / "surrogate.safetensors").read_bytes(),
        "samples": (folder / "samples.json").read_text("utf-8"),
        "scores": document["scores"],
    }


def _explained(folder: Path) -> dict:
    document = json.loads((folder / "attributions.json").read_text("utf-8"))
    images = {image.pop("sample_id"): image for image in document["images"]}
    return {"images": images} | {name: document[name] for name in ("scoreboard", "curves", "retrieval", "classes")}


def _encoded(folder: Path) -> dict:
    rows = np.load(folder / "encodings.npz")
    ids = json.loads((folder / "samples.json").read_text("utf-8"))
    found = {}
    for i, sample in enumerate(ids):
        part = slice(rows["indptr"][i], rows["indptr"][i + 1])
        found[sample] = (rows["indices"][part].tolist(), rows["count"][part].tolist(), int(rows["num_captions"][i]))
    return {"rows": found, "vocabulary": (folder / "vocabulary.csv").read_text("utf-8")}


CASES = [
    *((TRAIN, name, _trained) for name in ("img.npz", "txt.npz", "enc.npz")),
    *(
        (SPLICE, name, _explained)
        for name in ("img.npz", "txt.npz", "words.npz", "classes.npz", "labels.csv")
    ),
    *(
        (BOARD, name, _explained)
        for name in ("img.npz", "txt.npz", "enc.npz", "words.npz", "classes.npz", "labels.csv")
    ),
    (ENCODE, "caps.json", _encoded),
]  # fmt: skip


def permute(path: Path) -> None:
    """The rows of a file in another order; rows of one id keep theirs."""
    rng = np.random.default_rng(1)
    if path.suffix == ".npz":
        content = dict(np.load(path))
        order = rng.permutation(len(content["sample_ids"]))
        ids = content["sample_ids"][order]
        for name in set(ids):  # several captions of an image keep their order among each other
            order[ids == name] = np.sort(order[ids == name])
        np.savez(path, **{name: values[order] for name, values in content.items()})
    elif path.suffix == ".json":
        content = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({name: content[name] for name in rng.permutation(list(content))}), "utf-8")
    else:
        head, *rows = path.read_text("utf-8").splitlines()
        path.write_text("\n".join([head, *rng.permutation(rows)]), "utf-8")


@pytest.mark.parametrize(
    ("command", "file", "read"), CASES, ids=lambda case: case[2] if isinstance(case, tuple) else ""
)
def test_order_of_rows(world: Path, command: tuple, file: str, read: Callable[[Path], dict]) -> None:
    given = (*command, (world / "surrogate.txt").read_text()) if command is BOARD else command
    run = f"{command[2]}-{file}".replace(".", "-")
    before = (world / file).read_bytes()
    first = read(world / said(world, *given, "--run", f"{run}-1"))
    try:
        permute(world / file)
        assert (world / file).read_bytes() != before
        again = read(world / said(world, *given, "--run", f"{run}-2"))
    finally:
        (world / file).write_bytes(before)
    assert first == again


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sample_ids": np.array([f"other{i}" for i in range(2 * N)])}, "has a caption embedding"),
        ({"values": np.zeros((3, DIMENSIONS)), "sample_ids": None}, "3 caption embeddings for 60 images"),
    ],
)
def test_captions_of_other_images_are_refused(world: Path, tmp_path: Path, change: dict, expected: str) -> None:
    content = {name: value for name, value in {**np.load(world / "txt.npz"), **change}.items() if value is not None}
    np.savez(tmp_path / "txt.npz", **content)
    given = [str(part).replace("txt.npz", str(tmp_path / "txt.npz")) for part in SPLICE]
    done = rdx_here(*given, "--outputs", world / "outputs", "--run", "refused", cwd=world)
    assert done.returncode in (1, 2)
    assert expected in done.stderr


def test_offsets_that_contradict_the_ids_are_refused(world: Path) -> None:
    np.save(world / "odd.npy", np.array([0, 3, *range(4, 2 * N + 1, 2)]))
    done = rdx_here(
        *SPLICE, "--file", "caption_offsets=odd.npy", "--outputs", world / "outputs", "--run", "odd", cwd=world
    )
    assert done.returncode == 1
    assert "different ids together" in done.stderr


def test_captions_with_ids_need_images_with_ids(world: Path) -> None:
    np.save(world / "bare.npy", np.load(world / "img.npz")["values"])
    given = [str(part).replace("img.npz:values", "bare.npy") for part in SPLICE if part != "labels.csv"]
    given.remove("--labels")
    done = rdx_here(*given, "--outputs", world / "outputs", "--run", "bare", cwd=world)
    assert done.returncode == 1
    assert "the images have none" in done.stderr


def test_splice_of_arrays_lies_with_the_arrays(world: Path) -> None:
    folder = said(world, *SPLICE, "--run", "place")
    assert Path(folder).relative_to(world / "outputs").parts == ("arrays", "img-values", "explanations", "place")
