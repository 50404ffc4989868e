"""``rdx encode-concepts``: languages, cut concepts, files of concepts to keep and to drop."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from helpers import rdx_here

CAPTIONS = {
    f"im{i}": [f"a dog near a {thing}"] for i, thing in enumerate(["tree", "tree", "tree", "car", "car", "house"])
}


def test_vocabulary_says_what_was_cut_and_why(tmp_path: Path) -> None:
    (tmp_path / "caps.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "keep.txt").write_text("house\n")
    given = (
        "encode-concepts",
        "--captions",
        "caps.json",
        "--min-count",
        "2",
        "--max-threshold",
        "0.6",
        "--outputs",
        "out",
    )
    done = rdx_here(*given, "--keep", "keep.txt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "language: English, tagger: hanta-captions" in done.stderr
    assert "dog/n" in done.stderr  # too frequent
    with open(tmp_path / done.stdout.strip() / "vocabulary.csv", newline="") as stream:
        rows = {row["lemma"]: row for row in csv.DictReader(stream)}
    assert [name for name, row in rows.items() if row["status"] == "kept"] == ["car", "house", "tree"]
    assert rows["dog"]["reason"] == "in more than 0.6 of the images"
    assert rows["tree"]["examples"] == "a dog near a tree | a dog near a tree"
    dropped = rdx_here(*given, "--drop", "keep.txt", "--run", "dropped", "--json", cwd=tmp_path)
    assert json.loads(dropped.stdout)["concepts"] == 2
    again = rdx_here(*given, "--vocabulary", done.stdout.strip(), "--run", "again", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["concepts"] == 3  # the cut ones are no part of it


def test_languages_without_a_tagger_are_refused(tmp_path: Path) -> None:
    french = [
        "un chien saute par-dessus la barrière",
        "deux hommes font du vélo dans la rue",
        "une femme tient un ballon",
    ]
    (tmp_path / "f.txt").write_text("\n".join(french))
    (tmp_path / "words.txt").write_text("chien\nfemme\n")
    given = ("encode-concepts", "--captions", "f.txt", "--min-count", "1", "--max-threshold", "1", "--outputs", "out")
    done = rdx_here(*given, cwd=tmp_path)
    assert done.returncode == 1
    assert "seem to be French" in done.stderr
    assert "--vocabulary FILE" in done.stderr
    found = rdx_here(*given, "--vocabulary", "words.txt", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["images_without_concepts"] == 1


def test_an_edit_of_a_cut_concept_says_why(tmp_path: Path) -> None:
    (tmp_path / "caps.json").write_text(json.dumps(CAPTIONS))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "e.npz", values=rng.normal(size=(6, 4)), sample_ids=np.array(list(CAPTIONS)))
    out = ("--outputs", "out")
    told = ("--captions", "caps.json", "--min-count", "1", "--max-threshold", "0.6")
    encodings = rdx_here("encode-concepts", *told, *out, cwd=tmp_path).stdout.strip()
    trained = rdx_here(
        *("train-surrogate", "--encodings", encodings, "--image-embeddings", "e.npz:values", "--epochs", "1"),
        *("--text-embeddings", "e.npz:values", "--param", "validation=0", "--device", "cpu", *out),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    given = ("explain", "--method", "surrogate", "--surrogate", trained.stdout.strip(), *out)
    done = rdx_here(*given, "--param", "edit=dog/n=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "`dog/n` was left out of the vocabulary: in more than 0.6 of the images" in done.stderr
    unknown = rdx_here(*given, "--param", "edit=tre/n=0", cwd=tmp_path)
    assert "did you mean `tree/n`" in unknown.stderr
    edited = rdx_here(*given, "--param", "edit=tree/n=0", cwd=tmp_path)
    assert edited.returncode == 0, edited.stderr
