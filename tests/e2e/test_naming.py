"""``rdx compare --name-concepts``: from given embeddings, and with a tiny model through the real loaders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from caption_server import Server, serving
from helpers import rdx_here
from PIL import Image
from tiny_models import THINGS, save_blip, save_clip

from rdxcli.artifacts import Artifact
from rdxcli.methods.difference.describing import auc, halve
from rdxcli.methods.neurons.concepts import unit_rows
from rdxcli.models import caption_server

QUICK = ("--k", "1", "--no-test", "--bootstraps", "0", "--json")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of six kinds of images: a mixes kinds 0 and 1, b mixes 4 and 5; embeddings that know the kinds."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pair")
    kinds = np.arange(360) % 6
    centres = 8 * np.eye(6)
    for name, (first, second) in (("a", (0, 1)), ("b", (4, 5))):
        merged = centres.copy()
        merged[second] = merged[first]
        np.save(folder / f"{name}.npy", merged[kinds] + rng.normal(size=(360, 6)))
    words = [f"kind {i}" for i in range(6)] + [f"thing {i}" for i in range(60)]
    texts = 16 * np.linalg.qr(rng.normal(size=(256, 66)))[0].T  # words that share nothing
    np.save(folder / "texts.npy", texts)
    np.save(folder / "images.npy", texts[kinds] + 2 * rng.normal(size=(360, 256)) + 3)
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in words))
    np.save(folder / "noise.npy", rng.normal(size=(360, 256)))
    return folder


def _files(images: str = "images.npy") -> tuple[str, ...]:
    return ("--file", f"image_embeddings={images}", "--file", "text_embeddings=texts.npy", "--concept-set", "words.txt")


def test_names_from_given_embeddings(pair: Path, tmp_path: Path) -> None:
    out = ("--outputs", tmp_path)
    done = rdx_here("compare", "a.npy", "b.npy", *QUICK, *out, *_files(), cwd=pair)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    clear = {
        f"{concept['closer_in']}{concept['index']}": {word["word"] for word in concept["words"] if word["clear"]}
        for concept in document["concepts"]
    }
    assert clear["a1"] == {"kind 0", "kind 1"}
    assert clear["b1"] == {"kind 4", "kind 5"}
    word = document["concepts"][0]["words"][0]
    assert word["kind"] == "word"
    assert word["margin"] > 0.1
    assert word["effect"] > 0.8
    assert word["p_value"] <= 0.05
    assert document["parameters"]["naming"]["word"] == 66
    assert "kind 0" in done.stderr
    assert "name" in done.stderr
    page = Path(rdx_here("visualize", document["artifact"], *out, cwd=pair).stdout.strip()).read_text("utf-8")
    assert "</span>a1: kind " in page
    assert "Words that fit the group more than the rest" in page
    again = rdx_here("compare", "a.npy", "b.npy", *QUICK, *out, *_files(), cwd=pair)
    assert "reusing" in again.stderr
    other = rdx_here("compare", "a.npy", "b.npy", *QUICK, *out, *_files("noise.npy"), cwd=pair)
    assert other.returncode == 1
    assert "naming" in other.stderr


def test_embeddings_that_know_nothing_give_no_clear_name(pair: Path, tmp_path: Path) -> None:
    done = rdx_here("compare", "a.npy", "b.npy", *QUICK, "--outputs", tmp_path, *_files("noise.npy"), cwd=pair)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["concepts"]
    assert not any(w["clear"] for c in document["concepts"] for w in c["words"])
    assert all(len(concept["words"]) == 5 for concept in document["concepts"])
    assert "no clear name" in done.stderr


def test_a_scoreboard_names_the_leading_method(pair: Path, tmp_path: Path) -> None:
    options = (*QUICK, "--method", "kmeans,rdx", "--outputs", tmp_path)
    document = json.loads(rdx_here("compare", "a.npy", "b.npy", *options, *_files(), cwd=pair).stdout)
    assert document["lead"] == "rdx"
    assert {word["word"] for word in document["concepts"][0]["words"] if word["clear"]} == {"kind 0", "kind 1"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned pictures of the pair, a colour per kind."""
    folder = tmp_path_factory.mktemp("pictures")
    with (folder / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption"])
        for i, kind in enumerate(np.arange(360) % 6):
            Image.new("RGB", (32, 32), (40 * kind, 250 - 40 * kind, 30 + i % 5)).save(folder / f"{i:03d}.png")
            table.writerow([f"{i:03d}.png", f"a photo of a {THINGS[kind]}"])
    (folder / "words.txt").write_text("\n".join(THINGS))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def test_words_and_captions_by_a_model(pair: Path, pictures: Path, clip: Path, tmp_path: Path) -> None:
    """The tiny model has random weights, so only its numbers are checked."""
    options = (*QUICK, "--name-concepts", f"hf:{clip}", "--outputs", tmp_path / "outputs")
    data = ("--dataset", f"images:{pictures / 'list.csv'}")
    done = rdx_here("compare", pair / "a.npy", pair / "b.npy", *data, *options, "--concept-set", pictures / "words.txt")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    words = document["concepts"][0]["words"]
    assert {word["kind"] for word in words} == {"word", "caption"}
    assert {word["word"] for word in words if word["kind"] == "word"} <= set(THINGS)
    assert {word["word"] for word in words if word["kind"] == "caption"} <= {f"a photo of a {t}" for t in THINGS[:6]}
    # the margins are those of the model's own embeddings
    from rdxcli.models.vision_language import load_vision_language

    model = load_vision_language(f"hf:{clip}", "cpu")
    images = model.encode_images([Image.open(pictures / f"{i:03d}.png") for i in range(360)]).astype(float)
    text = model.encode_text([words[0]["word"]])[0].astype(float)
    cosines = images @ text / np.linalg.norm(images, axis=1) / np.linalg.norm(text)
    inside = np.load(Path(document["artifact"]) / "arrays.npz")["labels_a"] == 1
    margin = cosines[inside].mean() - cosines[~inside].mean()
    assert words[0]["margin"] == pytest.approx(margin, rel=1e-3, abs=1e-5)
    # captions alone are enough, given or of the data set
    alone = rdx_here("compare", pair / "a.npy", pair / "b.npy", *data, *options, "--run", "alone")
    assert alone.returncode == 0, alone.stderr
    assert {w["kind"] for c in json.loads(alone.stdout)["concepts"] for w in c["words"]} == {"caption"}
    (tmp_path / "captions.json").write_text(json.dumps({"x": ["a red car", "a big dog"], "y": ["a red car"]}))
    given = rdx_here(
        *("compare", pair / "a.npy", pair / "b.npy", *data, *options),
        *("--run", "given", "--captions", tmp_path / "captions.json"),
    )
    assert {w["word"] for c in json.loads(given.stdout)["concepts"] for w in c["words"]} == {"a red car", "a big dog"}


@pytest.mark.parametrize("captioner", ["blip", "openai:tiny"])
def test_groups_are_described_by_what_holds(
    captioner: str, pair: Path, pictures: Path, clip: Path, tmp_path: Path
) -> None:
    """Proposed by a captioner or a server from half of the images; what is kept holds on the other, measured anew."""
    given = ("compare", pair / "a.npy", pair / "b.npy", *QUICK, "--dataset", f"images:{pictures / 'list.csv'}")
    given = (*given, "--name-concepts", f"hf:{clip}", "--outputs", tmp_path / "outputs", "--device", "cpu")
    with serving() as server:
        model = f"hf:{save_blip(tmp_path / 'blip')}" if captioner == "blip" else captioner
        address = () if captioner == "blip" else ("--base-url", server.url)
        done = rdx_here(*given, "--describe", model, *address)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert any("tested on the other half" in note and "hold" in note for note in document["notes"])
    from rdxcli.models.vision_language import load_vision_language

    teacher = load_vision_language(f"hf:{clip}", "cpu")
    images = teacher.encode_images([Image.open(pictures / f"{i:03d}.png") for i in range(360)])
    labels = np.load(Path(document["artifact"]) / "arrays.npz")
    described = [one for one in document["concepts"] if one["descriptions"]]
    assert described
    for concept in described:
        name = f"{concept['closer_in']}{concept['index']}"
        rows = np.flatnonzero(labels[f"labels_{concept['closer_in']}"] == concept["index"])
        parts = halve(rows, 360, name)
        assert parts is not None
        for one in concept["descriptions"]:
            cosines = unit_rows(images, "") @ unit_rows(teacher.encode_text([one["sentence"]]), "").T
            reached = auc(cosines[parts.held_out], cosines[parts.held_out_others])[0]
            assert one["auc"] == pytest.approx(reached, abs=1e-3)
            assert one["p_value"] <= 0.05
        for one in concept["descriptions"][:3]:
            assert f"“{one['sentence']}” (AUC {one['auc']:.2f}" in " ".join(done.stderr.split())
    page = rdx_here("visualize", document["artifact"], "--outputs", tmp_path / "outputs").stdout.strip()
    assert described[0]["descriptions"][0]["sentence"] in Path(page).read_text("utf-8")
    if captioner != "blip":
        assert sum(isinstance(body["messages"][0]["content"], str) for body in server.asked) == 2  # one a group


def _pictured(pair: Path, pictures: Path, clip: Path, outputs: Path, *, k: int = 1) -> tuple[str | Path, ...]:
    quick = ("--k", str(k), *QUICK[2:])
    data = ("--dataset", f"images:{pictures / 'list.csv'}", "--name-concepts", f"hf:{clip}")
    return ("compare", pair / "a.npy", pair / "b.npy", *quick, *data, "--outputs", outputs, "--device", "cpu")


def _told(server: Server) -> list[str]:
    return [json.dumps(body, sort_keys=True) for body in server.asked]


def test_a_server_that_dies_half_way_is_gone_on_with(
    pair: Path, pictures: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is stored first; the same command asks only for what is missing, and gives what one run gives."""
    monkeypatch.setattr(caption_server, "_TRIES", 1)
    given = _pictured(pair, pictures, clip, tmp_path / "outputs")
    with serving() as server:
        asked = (*given, "--describe", "openai:tiny", "--base-url", server.url)
        server.dies_after = 50
        failed = rdx_here(*asked)
        first = len(_told(server))
        folder = Path(json.loads(failed.stdout)["artifact"])
        proposed = len(list(folder.with_name(f"{folder.name}.proposals").glob("*.json")))
        server.dies_after = None
        again = rdx_here(*asked)
        told = _told(server)
        once_more = rdx_here(*asked)
        assert len(_told(server)) == len(told)
        server.asked.clear()
        whole = rdx_here(*_pictured(pair, pictures, clip, tmp_path / "other"), *asked[len(given) :])
    assert failed.returncode == 1
    said = " ".join(failed.stderr.split())
    assert "the groups are not described" in said
    assert "the same command goes on where this one ended" in said.casefold()
    document = json.loads(failed.stdout)
    assert document["concepts"]
    assert all(one["words"] and not one["descriptions"] for one in document["concepts"])
    assert (first, proposed >= 20) == (50, True)
    # what was being asked when it died, at most a batch of four images with two captions each, is asked again
    assert len(told) - len(set(told)) <= 8
    assert sorted(set(told)) == sorted(set(_told(server)))
    assert again.returncode == 0, again.stderr
    assert "reusing" in again.stderr
    finished, in_one = json.loads(again.stdout), json.loads(whole.stdout)
    assert [one["descriptions"] for one in finished["concepts"]] == [one["descriptions"] for one in in_one["concepts"]]
    assert finished["notes"] == in_one["notes"]
    assert any(one["descriptions"] for one in finished["concepts"])
    assert json.loads(once_more.stdout)["concepts"] == finished["concepts"]
    assert not list(folder.parent.glob("*.proposals"))
    Artifact.open(folder, full=True)  # every file is the one that was written


def test_a_finished_comparison_is_described_and_by_another_captioner(
    pair: Path, pictures: Path, clip: Path, tmp_path: Path
) -> None:
    """Without names, then with words, then with sentences by one and by another: the groups are found once."""
    given = _pictured(pair, pictures, clip, tmp_path / "outputs")
    names = given.index("--name-concepts")
    bare = json.loads(rdx_here(*given[:names], *given[names + 2 :]).stdout)
    with serving() as server:
        address = ("--base-url", server.url)
        server.moods = [(401, {"error": "no such key"})] * 8
        refused = rdx_here(*given, "--describe", "openai:tiny", *address)
        server.moods = []
        one = rdx_here(*given, "--describe", "openai:tiny", *address)
        other = rdx_here(*given, "--describe", "openai:small", *address)
        models = [body["model"] for body in server.asked]
    words = rdx_here(*given)
    assert refused.returncode == 1
    assert "OPENAI_API_KEY" in refused.stderr
    assert "no such key" in refused.stderr
    for done, name in ((one, "openai:tiny"), (other, "openai:small"), (words, "openai:small")):
        assert done.returncode == 0, done.stderr
        assert "reusing" in done.stderr
        document = json.loads(done.stdout)
        assert document["artifact"] == bare["artifact"]
        assert document["parameters"]["naming"]["describer"] == name
        assert [note for note in document["notes"] if "proposed" in note] == [
            note for note in document["notes"] if f"sentences of {name} proposed" in note
        ]
        assert any(concept["descriptions"] for concept in document["concepts"])
        for concept, before in zip(document["concepts"], bare["concepts"], strict=True):
            assert concept["words"]
            assert {**concept, "words": [], "descriptions": []} == before
    assert set(models) == {"tiny", "small"}
    differently = rdx_here(*_pictured(pair, pictures, clip, tmp_path / "outputs", k=2), "--concept-set", "words.txt")
    assert differently.returncode == 1  # other groups are another comparison


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concept-set", "words.txt"], "--name-concepts MODEL"),
        (["--captions", "words.txt"], "--name-concepts MODEL"),
        (["--file", "image_embeddings=images.npy", "--concept-set", "words.txt"], "text_embeddings=FILE is missing"),
        (["--file", "image_embeddings=images.npy", "--file", "text_embeddings=texts.npy"], "which words"),
        ([*_files("no.npy")], "no such file: no.npy"),
        ([*_files("texts.npy")], "66 rows"),
        ([*_files("a.npy")], "the same model"),
        ([*_files(), "--name-concepts", "siglip"], "nothing to do"),
        ([*_files(), "--captions", "words.txt"], "needs a model"),
        (["--file", "images=images.npy"], "unknown --file images"),
        (["--name-concepts", "sigllip", "--concept-set", "words.txt"], "siglip"),
        (["--name-concepts", "dino", "--concept-set", "words.txt"], "text tower"),
        (["--name-concepts", "siglip", "--concept-set", "words.txt"], "which images"),
        (["--name-concepts", "siglip", "--dataset", "digits"], "no published set"),
        (["--describe", "blip-base"], "which model shall test the sentences"),
        (["--name-concepts", "siglip", "--dataset", "digits", "--describe", "blip-bse"], "blip-base"),
        (["--base-url", "http://localhost/v1"], "give --describe openai:NAME"),
    ],
)
def test_bad_options_are_one_clear_error(pair: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = rdx_here("compare", "a.npy", "b.npy", *QUICK, "--outputs", tmp_path, *arguments, cwd=pair)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.split())
    assert "unexpected" not in done.stderr
    assert not list(tmp_path.glob("**/manifest.json"))
