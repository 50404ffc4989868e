"""``rdx encode-concepts``: languages, cut concepts, files of concepts to keep and to drop."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from helpers import rdx_here
from tiny_models import THINGS, save_clip

from rdxcli.methods.neurons.concepts import unit_rows
from rdxcli.models.vision_language import load_vision_language

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


def test_a_vocabulary_that_a_spreadsheet_saved(tmp_path: Path) -> None:
    captions = {str(i): [f"a {one} near a {two}"] for i, (one, two) in enumerate([("dog", "tree"), ("cat", "car")] * 3)}
    (tmp_path / "caps.json").write_text(json.dumps(captions))
    table = 'examples;POS;lemma;status\r\n"a; b";n;tree;kept\r\nx;n;car;cut\r\n;;;\r\n;n;dog;\r\n'
    for name, text in (("semicolons.csv", table), ("tabs.tsv", table.replace('"a; b"', "a").replace(";", "\t"))):
        (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
        given = ("encode-concepts", "--captions", "caps.json", "--vocabulary", name, "--outputs", "out", "--run", name)
        done = rdx_here(*given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with open(tmp_path / done.stdout.strip() / "vocabulary.csv", newline="") as stream:
            rows = [(row["lemma"], row["image_count"]) for row in csv.DictReader(stream) if row["status"] == "kept"]
        assert rows == [("tree", "3"), ("dog", "3")]  # in the order of the table; a row without a status was added
    for wrong, words in (("lemma;pos;status\ncar;n;cut\n", "keeps no concept"), ("lemma;pos\ncar;noun\n", "`noun`")):
        (tmp_path / "semicolons.csv").write_text(wrong)
        done = rdx_here("encode-concepts", "--captions", "caps.json", "--vocabulary", "semicolons.csv", cwd=tmp_path)
        assert done.returncode == 1
        assert words in done.stderr


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


PETS = {
    "a": ["a dog and a puppy near a tree", "a hound", "the tree"],
    "b": ["a puppy", "a cat"],
    "c": ["a kitten on a chair", "a cat"],
    "d": ["a dog", "a chair"],
}


def _counts(folder: Path) -> dict[str, dict[str, int]]:
    """Captions of each image that mention each concept."""
    with open(folder / "vocabulary.csv", newline="") as stream:
        names = [row["lemma"] for row in csv.DictReader(stream) if row["status"] == "kept"]
    rows = np.load(folder / "encodings.npz")
    ids = json.loads((folder / "samples.json").read_text("utf-8"))
    found = {}
    for i, sample in enumerate(ids):
        part = slice(rows["indptr"][i], rows["indptr"][i + 1])
        found[sample] = {names[j]: int(k) for j, k in zip(rows["indices"][part], rows["count"][part], strict=True)}
    return found


def test_synonyms_of_a_file_are_counted_as_one(tmp_path: Path) -> None:
    """A caption that names a dog and a puppy mentions one dog; what went into what stands in the table."""
    (tmp_path / "caps.json").write_text(json.dumps(PETS))
    (tmp_path / "same.txt").write_text("dog, puppy, hound\ncat/n, kitten\nship, boat\n")
    given = (
        "encode-concepts",
        "--captions",
        "caps.json",
        "--min-count",
        "1",
        "--max-threshold",
        "1",
        "--outputs",
        "out",
    )
    done = rdx_here(*given, "--merge-synonyms", "same.txt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.strip()
    assert _counts(folder) == {
        "a": {"dog": 2, "tree": 2},
        "b": {"dog": 1, "cat": 1},
        "c": {"cat": 2, "chair": 1},
        "d": {"dog": 1, "chair": 1},
    }
    with open(folder / "vocabulary.csv", newline="") as stream:
        reasons = {row["lemma"]: row["reason"] for row in csv.DictReader(stream) if row["status"] != "kept"}
    assert reasons == {name: f"merged into {into}" for name, into in
                       (("puppy", "dog/n"), ("hound", "dog/n"), ("kitten", "cat/n"))}  # fmt: skip
    (tmp_path / "odd.txt").write_text("dog, puppy\npuppy, hound\n")
    twice = rdx_here(*given, "--merge-synonyms", "odd.txt", "--run", "odd", cwd=tmp_path)
    assert twice.returncode == 1
    assert "two groups of synonyms: puppy/n" in twice.stderr
    unknown = rdx_here(*given, "--merge-synonyms", "sigllip", "--run", "odd", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "siglip" in unknown.stderr


def test_synonyms_by_a_model_are_those_above_the_threshold(tmp_path: Path) -> None:
    captions = {f"im{i}": [f"a {THINGS[i % 8]} near a {THINGS[(i + 1) % 8]}"] for i in range(24)}
    (tmp_path / "caps.json").write_text(json.dumps(captions))
    clip = save_clip(tmp_path / "clip")
    model = load_vision_language(f"hf:{clip}", "cpu")
    unit = unit_rows(model.encode_text(THINGS[:8], "a photo of a {}"), "texts")
    cosines = unit @ unit.T
    threshold = float(np.sort(cosines[np.triu_indices(8, 1)])[-2]) - 1e-4  # two pairs are at least as near
    given = ("encode-concepts", "--captions", "caps.json", "--max-threshold", "1", "--outputs", "out")
    done = rdx_here(
        *(*given, "--merge-synonyms", f"hf:{clip}", "--synonym-threshold", f"{threshold:.6f}", "--json"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    merged = [(row["lemma"], row["reason"].removeprefix("merged into ").partition("/")[0]) for row in document["cut"]]
    assert 1 <= len(merged) <= 2
    for one, into in merged:
        assert cosines[THINGS.index(one), THINGS.index(into)] >= threshold - 1e-6
    assert document["concepts"] == 8 - len(merged)
    assert any("were merged into" in note for note in document["notes"])
