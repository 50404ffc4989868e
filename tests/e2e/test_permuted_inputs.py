"""Rows that carry ids are joined by them: each input with its rows in another order gives the same result.

One table (`CASES`): a command, and every file of it that carries ids. The order of the first file of a command, the one
whose rows are explained, may change what is drawn at random from its rows (chance, intervals) and in which order rows
are told; all else must be the same there too.

Rows that get the content of others are another matter: then no command answers from before, whichever file it was.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import captions_of, rdx_here
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

WORDS = ["dog", "cat", "tree", "car", "house", "bird"]
N, DIMENSIONS, CHANNELS = 60, 8, 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("permuted")
    rng = np.random.default_rng(0)
    things = rng.normal(size=(len(WORDS), DIMENSIONS))
    captions, images, texts, owners, firsts = {}, [], [], [], []
    for i in range(N):
        one, two = rng.choice(len(WORDS), 2, replace=False)
        name = f"im{i:03d}"
        captions[name] = [f"a {WORDS[one]} near a {WORDS[two]}", f"the {WORDS[one]}"]
        images.append(things[one] + 0.5 * things[two] + 0.1 * rng.normal(size=DIMENSIONS))
        texts += [images[-1] + 0.1 * rng.normal(size=DIMENSIONS), things[one]]
        owners += [name, name]
        firsts.append(one)
    ids, labels = list(captions), [WORDS[one] for one in firsts]
    (root / "caps.json").write_text(json.dumps(captions))
    (root / "caps.csv").write_text(_table("id,caption", owners, [text for two in captions.values() for text in two]))
    arrays = {"img": (np.array(images), ids), "txt": (np.array(texts), owners)}
    arrays |= {name: (things, WORDS) for name in ("words", "classes")}
    (root / "words.txt").write_text("\n".join(WORDS))
    (root / "labels.csv").write_text(_table("id,label", ids, labels))
    shares = np.array([[sum(word in text for text in texts) / 2 for word in WORDS] for texts in captions.values()])
    arrays["enc"] = (shares, ids)
    _write_units(root, rng, arrays, ids, np.array(firsts))
    for name, (values, rows) in arrays.items():
        np.savez(root / f"{name}.npz", values=values, sample_ids=np.array(rows))
    (root / "surrogate.txt").write_text(said(root, *TRAIN, "--run", "plain"))
    explained = Path(said(root, *LINEAR, "--run", "table"))
    (root / "units.csv").write_bytes((explained / "explanations.csv").read_bytes())
    return root


def _write_units(root: Path, rng: np.random.Generator, arrays: dict, ids: list[str], of: np.ndarray) -> None:
    """Activations of two models, maps with masks, scores of concepts, predictions, and a list of pictures."""
    centres = 2 * rng.normal(size=(len(WORDS), CHANNELS))
    for name, classes in (("a", of), ("b", np.minimum(of, 4))):
        arrays[name] = (centres[classes] + rng.normal(size=(N, CHANNELS)), ids)
        told = [WORDS[k] for k in np.where(rng.random(N) < 0.8, of, 0)]
        (root / f"pred_{name}.csv").write_text(_table("id,prediction", ids, told))
    arrays["c"] = (arrays["a"][0] + 0.3 * rng.normal(size=(N, CHANNELS)), ids)
    scores = [",".join(map(str, row)) for row in 0.9 * np.eye(len(WORDS))[of] + 0.1 * rng.random((N, len(WORDS)))]
    (root / "conc.csv").write_text(_table("id," + ",".join(WORDS), ids, scores))
    (root / "vectors.csv").write_text(_table("id," + ",".join(f"f{j}" for j in range(CHANNELS)), ids, [
        ",".join(map(repr, map(float, row))) for row in arrays["a"][0]
    ]))  # fmt: skip
    maps = rng.random((N, 4, 4, 4)).astype(np.float32)
    arrays["maps"] = (maps, ids)
    for folder in ("masks", "pictures"):
        (root / folder).mkdir()
    digits = load_digits().images
    for i, sample in enumerate(ids):
        Image.fromarray((maps[i, of[i] % 4] > 0.7) * np.uint8(1 + of[i])).save(root / "masks" / f"{sample}.png")
        Image.fromarray(np.uint8(15 * digits[i])).save(root / "pictures" / f"{sample}.png")
    (root / "labelled.txt").write_text("\n".join(["none", *WORDS]))
    pictures = [f"pictures/{sample}.png" for sample in ids[:12]]
    (root / "list.csv").write_text(_table("path,label,caption", pictures, [f"{WORDS[k]},a {WORDS[k]}" for k in of]))


def _table(head: str, ids: list[str], cells: list[str]) -> str:
    return "\n".join([head, *map(",".join, zip(ids, cells, strict=False))])


TRAIN = (
    *("train-surrogate", "--encodings", "enc.npz", "--image-embeddings", "img.npz:values"),
    *("--text-embeddings", "txt.npz:values", "--epochs", "3", "--batch-size", "16", "--learning-rate", "0.5"),
    *("--class-embeddings", "classes.npz:values", "--no-tensorboard"),
)
CLASSES = ("--file", "text_embeddings=classes.npz:values", "--file", "class_names=words.txt")
SPLICE = (
    *("explain", "--method", "splice", "--file", "image_embeddings=img.npz:values", "--labels", "labels.csv"),
    *("--file", "word_embeddings=words.npz:values", "--concept-set", "words.txt", "--param", "l1=0.1"),
    *(*CLASSES, "--file", "caption_embeddings=txt.npz:values"),
)
BOARD = (*SPLICE[:2], "all", *SPLICE[3:], "--encodings", "enc.npz", "--surrogate", "SURROGATE")
SURROGATE = (*SPLICE[:2], "surrogate", *CLASSES, "--encodings", "enc.npz", "--surrogate", "SURROGATE")
ENCODE = ("encode-concepts", "--tagger", "packaged", "--max-threshold", "1", "--captions")
CAPTION = ("caption", "--from", "caps.json")
EXTRACT = ("extract", "--model", "digits-cnn", "--dataset", "images:list.csv")
UNITS = ("explain", "--activations", "a.npz:values")
SCORED = (*UNITS, "--concepts", "conc.csv", "--units", "0-3", "--method")
LINEAR = (*SCORED, "le-siglip")
SEEN = (
    *(*UNITS, "--units", "0-3", "--method", "le-siglip", "--file", "image_embeddings=img.npz:values"),
    *("--file", "text_embeddings=words.npz:values", "--concept-set", "words.txt", "--param", "a=9", "--param", "b=0"),
)
LABELLED = (*UNITS, "--labels", "labels.csv", "--method")
MASKED = (
    *("explain", "--method", "network-dissection", "--activations", "maps.npz:values", "--file", "masks=masks"),
    *("--concept-names", "labelled.txt"),
)
FEW = ("--n-directions", "3", "--param", "n_starts=1")
REPRESENTATIVE = (
    *("explain", "--method", "representative", "--model", "digits-cnn", "--dataset", "images:list.csv"),
    *("--target", "pictures/im003.png", "--param", "n_boundaries=3", "FRESH"),
)
SIMULATE = ("simulate", "--explanations", "units.csv", "--activations", "a.npz:values", "--concepts", "conc.csv")
COMPARE = ("compare", "a.npz:values", "b.npz:values", "--k", "2", "--bootstraps", "0")
QUICK = (*COMPARE, "--no-test")
LABELS = (*QUICK, "--labels", "labels.csv", "--predictions-a", "pred_a.csv", "--predictions-b", "pred_b.csv")
NAMED = (
    *(*QUICK, "--file", "image_embeddings=img.npz:values", "--file", "text_embeddings=words.npz:values"),
    *("--concept-set", "words.txt"),
)
TABLES = ("compare", "vectors.csv", "b.npz:values", *QUICK[3:])


def asked(cwd: Path, *given: object) -> subprocess.CompletedProcess[str]:
    known = [(cwd / "surrogate.txt").read_text() if part == "SURROGATE" else part for part in given]
    outputs = cwd / "outputs"
    if "FRESH" in known:  # another list of images under the same name: its activations would be refused
        known.remove("FRESH")
        outputs = cwd / f"outputs-{known[-1]}"
    device = () if given[0] == "encode-concepts" else ("--device", "cpu")
    return rdx_here(*known, *device, "--outputs", outputs, cwd=cwd)


def said(cwd: Path, *given: object) -> str:
    done = asked(cwd, *given)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _trained(folder: Path) -> dict:
    document = json.loads((folder / "surrogate.json").read_text("utf-8"))
    return {
        "weights": (folder / "surrogate.safetensors").read_bytes(),
        "samples": (folder / "samples.json").read_text("utf-8"),
        "scores": document["scores"],
    }


def _document(folder: Path) -> dict:
    """The artifact's document, but for its name and what is remarked about the files themselves."""
    names = ("attributions", "explanations", "regions", "directions", "concepts", "summary")
    path = next(folder / f"{name}.json" for name in names if (folder / f"{name}.json").is_file())
    document = json.loads(path.read_text("utf-8"))
    if document["kind"] == "attributions":
        document["images"].sort(key=lambda image: image["sample_id"])
    return {key: value for key, value in document.items() if key not in ("artifact", "parameters", "notes", "seed")}


def _encoded(folder: Path) -> dict:
    rows = np.load(folder / "encodings.npz")
    ids = json.loads((folder / "samples.json").read_text("utf-8"))
    found = {}
    for i, sample in enumerate(ids):
        part = slice(rows["indptr"][i], rows["indptr"][i + 1])
        found[sample] = (rows["indices"][part].tolist(), rows["count"][part].tolist(), int(rows["num_captions"][i]))
    return {"rows": found, "vocabulary": (folder / "vocabulary.csv").read_text("utf-8")}


def _extracted(folder: Path) -> dict:
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "samples.parquet", columns=["sample_id", "label"]).to_pylist()
    values = np.load(folder / "activations.npy")
    return {row["sample_id"]: (row["label"], values[i].tobytes()) for i, row in enumerate(rows)}


DRAWN = {"chance", "p value", "q value", "p_value", "q_value", "clarity_chance", "clarity_q_value"}
"""What is measured against shuffled rows."""


def _near(value: Any) -> Any:
    """Numbers as far as sums in another order leave them, and nothing that is drawn or told by row."""
    if isinstance(value, dict):
        return {key: _near(part) for key, part in value.items() if key not in DRAWN | {"row", "rows"}}
    if isinstance(value, list):
        return [_near(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _nearly(folder: Path) -> dict:
    return _near(_document(folder))


def _directions(folder: Path) -> dict:
    shown = [(one["labels"], sorted(one["sample_ids"])) for one in _document(folder)["directions"]]
    arrays = load_file(folder / "directions.safetensors")
    return {"shown": shown, "arrays": {name: np.round(value, 4).tolist() for name, value in arrays.items()}}


def _regions(folder: Path) -> list:
    (region,) = _document(folder)["regions"]
    kept = ("target_id", "status", "neurons", "states", "labels")
    return [*(region[key] for key in kept), sorted(region["sample_ids"])]


def _labelled(folder: Path) -> list:
    """The target, and that what is told of a region's images is theirs; which images these are is drawn by row."""
    (region,) = _document(folder)["regions"]
    table = next(parent / "list.csv" for parent in folder.parents if (parent / "list.csv").is_file())
    rows = [row.split(",") for row in table.read_text("utf-8").splitlines()]
    words = {Path(row[0]).name: row[1] for row in rows}
    found = [words[Path(sample).name] for sample in region["sample_ids"]]
    assert region["labels"] == {word: found.count(word) for word in found}
    return [region["target_id"], words[Path(region["target_id"]).name]]


def _compared(folder: Path) -> list:
    document = _document(folder)
    concepts = [
        [*(one[key] for key in ("closer_in", "size", "labels")), _near(one["affinity"]), sorted(one["sample_ids"])]
        + [(word["word"], _near(word["margin"])) for word in one.get("words") or ()]
        for one in document["concepts"]
    ]
    return [_near(document["difference"]["score"]), *concepts]


CASES = [
    (TRAIN, _trained, ("img.npz", "txt.npz", "enc.npz", "classes.npz")),
    (SPLICE, _document, ("img.npz", "txt.npz", "words.npz", "classes.npz", "labels.csv")),
    (BOARD, _document, ("img.npz", "txt.npz", "enc.npz", "words.npz", "classes.npz", "labels.csv")),
    (SURROGATE, _document, ("classes.npz",)),
    (SURROGATE, _nearly, ("enc.npz",)),
    ((*ENCODE, "caps.json"), _encoded, ("caps.json",)),
    ((*ENCODE, "caps.csv"), _encoded, ("caps.csv",)),
    (CAPTION, captions_of, ("caps.json",)),
    (EXTRACT, _extracted, ("list.csv",)),
    (LINEAR, _document, ("conc.csv",)),
    (LINEAR, _nearly, ("a.npz",)),
    ((*SCORED, "logical"), _document, ("conc.csv",)),
    ((*SCORED, "logical"), _nearly, ("a.npz",)),
    ((*SCORED, "clip-dissect"), _document, ("conc.csv",)),
    ((*SCORED, "clip-dissect"), _nearly, ("a.npz",)),
    ((*SCORED, "find-units", "--param", "query=dog"), _document, ("conc.csv",)),
    (SEEN, _document, ("img.npz", "words.npz")),
    ((*LABELLED, "le-label", "--units", "0-3"), _document, ("labels.csv",)),
    (MASKED, _nearly, ("maps.npz",)),
    ((*LABELLED, "rdr", "--target", "im003"), _document, ("labels.csv",)),
    ((*LABELLED, "rdr", "--target", "im003"), _regions, ("a.npz",)),
    ((*LABELLED, "pca", "--n-directions", "3"), _document, ("labels.csv",)),
    ((*LABELLED, "pca", "--n-directions", "3"), _directions, ("a.npz",)),
    ((*LABELLED, "eddp", *FEW, "--param", "stability=false"), _document, ("labels.csv",)),
    ((*LABELLED, "uibe", *FEW, "--param", "steps=60"), _document, ("labels.csv",)),
    ((*LABELLED, "sae", "--n-directions", "3", "--param", "steps=20", "--param", "k=2"), _document, ("labels.csv",)),
    (REPRESENTATIVE, _labelled, ("list.csv",)),
    (SIMULATE, _document, ("conc.csv", "units.csv")),
    (SIMULATE, _nearly, ("a.npz",)),
    (LABELS, _document, ("b.npz", "labels.csv", "pred_a.csv", "pred_b.csv")),
    ((*COMPARE, "--reference", "a.npz:values", "c.npz:values"), _document, ("c.npz",)),
    (NAMED, _document, ("img.npz", "words.npz")),
    (NAMED, _compared, ("a.npz",)),
    (TABLES, _compared, ("vectors.csv",)),
]


def rewrite(path: Path, orders: Callable[[list[str]], tuple[np.ndarray, np.ndarray]]) -> None:
    """The ids of a file in one order and what stands beside them in another, as ``orders`` says of the ids."""
    if path.suffix == ".npz":
        content = dict(np.load(path))
        ids, rest = orders(content["sample_ids"].tolist())
        np.savez(path, **{name: values[ids if name == "sample_ids" else rest] for name, values in content.items()})
    elif path.suffix == ".json":
        content = json.loads(path.read_text("utf-8"))
        names, told = list(content), list(content.values())
        ids, rest = orders(names)
        path.write_text(json.dumps({names[i]: told[j] for i, j in zip(ids, rest, strict=True)}), "utf-8")
    else:
        head, *rows = path.read_text("utf-8").splitlines()
        parts = [row.split(",", 1) for row in rows]
        ids, rest = orders(rows if path.name == "units.csv" else [name for name, _ in parts])
        lines = (f"{parts[i][0]},{parts[j][1]}" for i, j in zip(ids, rest, strict=True))
        path.write_text("\n".join([head, *lines]), "utf-8")


def permute(path: Path) -> None:
    """The rows of a file in another order; rows of one id keep theirs."""
    rng = np.random.default_rng(1)
    rewrite(path, lambda ids: (order := _ordered(rng, ids), order))


def _ordered(rng: np.random.Generator, ids: list[str]) -> np.ndarray:
    """A permutation that leaves several captions of an image in their order."""
    order = rng.permutation(len(ids))
    owners = np.array(ids)[order]
    for name in set(ids):
        order[owners == name] = np.sort(order[owners == name])
    return order


@pytest.fixture(scope="module")
def straight(world: Path) -> Callable[[tuple], Path]:
    """The artifact of a command on the files as they are, made once."""
    made: dict[tuple, Path] = {}

    def find(command: tuple) -> Path:
        if command not in made:
            made[command] = world / said(world, *command, "--run", f"straight-{COMMANDS.index(command)}")
        return made[command]

    return find


@pytest.mark.parametrize(
    ("command", "read", "file"),
    [(command, read, file) for command, read, files in CASES for file in files],
    ids=lambda part: " ".join(part[:3]) if isinstance(part, tuple) else part if isinstance(part, str) else "",
)
def test_order_of_rows(
    world: Path, straight: Callable[[tuple], Path], command: tuple, read: Callable[[Path], Any], file: str
) -> None:
    first, before = straight(command), (world / file).read_bytes()
    try:
        permute(world / file)
        assert (world / file).read_bytes() != before
        again = world / said(world, *command, "--run", f"{first.name}-{file}".replace(".", "-"))
    finally:
        (world / file).write_bytes(before)
    assert read(first) == read(again)
    assert again != first


COMMANDS = list(dict.fromkeys(command for command, _, _ in CASES))


def files_of(command: tuple) -> list[str]:
    """What a command line names of the files here."""
    known = ("npz", "csv", "txt", "json", "masks")
    given = (str(part).rpartition("=")[2].removeprefix("images:").partition(":")[0] for part in command)
    return [name for name in dict.fromkeys(given) if name.rpartition(".")[2] in known]


def exchange(path: Path) -> None:
    """Every row gets what stood in the one before it; ids stay."""
    if path.is_dir():
        first, second, *_ = sorted(path.iterdir())
        first.write_bytes(second.read_bytes())
    elif path.suffix == ".txt":
        path.write_text("\n".join(path.read_text("utf-8").splitlines()[::-1]), "utf-8")
    else:
        rewrite(path, lambda ids: (np.arange(len(ids)), np.roll(np.arange(len(ids)), 1)))


@pytest.mark.parametrize(
    ("command", "file"),
    [(command, file) for command in COMMANDS for file in files_of(command)],
    ids=lambda part: " ".join(part[:3]) if isinstance(part, tuple) else part,
)
def test_a_changed_file_is_never_answered_from_before(
    world: Path, straight: Callable[[tuple], Path], command: tuple, file: str
) -> None:
    made = straight(command)
    before = {path: path.read_bytes() for path in [world / file, *(world / file).glob("*")] if path.is_file()}
    try:
        exchange(world / file)
        done = asked(world, *command, "--run", f"straight-{COMMANDS.index(command)}")
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    assert done.returncode == 1, done.stderr
    assert "made with other parameters or inputs" in done.stderr
    assert made.is_dir()


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
