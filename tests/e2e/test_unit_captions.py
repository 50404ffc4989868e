"""``rdx explain --method describe``: free text for units, by captioners, servers and given captions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from caption_server import Server
from helpers import rdx_here, whole_page
from PIL import Image
from tiny_models import save_blip, save_clip

from rdxcli.datasets.registry import open_dataset
from rdxcli.datasets.views import ImageView, views_of
from rdxcli.services.explain.unit_captions import _box


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_blip(root / "blip")
    save_clip(root / "clip")
    return root


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def describe(models: Path, outputs: Path, *more: str, ok: bool = True) -> dict:
    done = rdx_here(
        *("explain", "--method", "describe", "--model", "digits-cnn", "--layer", "conv2", "--limit", "120"),
        *("--vlm", f"hf:{models / 'clip'}", "--units", "0-2", "--param", "images=2", "--outputs", str(outputs)),
        *("--device", "cpu", "--json", *more),
    )
    assert (done.returncode == 0) == ok, done.stderr
    return json.loads(done.stdout) if ok else {"error": " ".join(done.stderr.split()), "code": done.returncode}


def test_units_in_free_text_by_a_captioner(models: Path, tmp_path: Path) -> None:
    blip = ("--param", f"captioner=hf:{models / 'blip'}", "--param", "max_tokens=6")
    found = describe(models, tmp_path, *blip)
    assert [unit["unit"] for unit in found["units"]] == [0, 1, 2]
    for unit in found["units"]:
        assert unit["proposals"]
        if unit["concepts"]:
            assert unit["concepts"][0]["concept"] in unit["proposals"]
            assert {"test correlation", "chance", "q value"} <= set(unit["scores"])
    captioned = next((tmp_path / "digits@limit-120" / "captions").glob("*/captions.jsonl")).read_text("utf-8")
    ids = [json.loads(line)["sample_id"] for line in captioned.splitlines()]
    assert any("#" in one for one in ids), "the strongest places are captioned too"
    assert any("#" not in one for one in ids)
    # the words are those of a table that is scored like any other, by another simulator
    common = ("--model", "digits-cnn", "--layer", "conv2", "--limit", "120", "--outputs", str(tmp_path), "--json")
    judge = ("--vlm", f"hf:{models / 'clip'}", "--param", "a=10", "--param", "b=0")
    scored = rdx_here("simulate", "--method", "describe", *common, *judge)
    assert scored.returncode == 0, scored.stderr
    notes = json.loads(scored.stdout)["notes"]
    assert any("explainer and simulator are the same model" in note for note in notes)
    page = whole_page(rdx_here("visualize", found["artifact"], "--outputs", tmp_path).stdout.strip())
    assert found["units"][0]["text"] in page
    # other captions are another request, the same ones are found
    assert describe(models, tmp_path, *blip)["artifact"] == found["artifact"]
    changed = describe(models, tmp_path, *blip, "--param", "crops=false", ok=False)
    assert "crops" in changed["error"]


def test_units_in_free_text_by_a_server(models: Path, server: Server, tmp_path: Path) -> None:
    found = describe(
        *(models, tmp_path, "--param", "captioner=openai:tiny", "--param", f"base_url={server.url}"),
        *("--param", "captions_per_image=2", "--param", "temperature=1", "--param", "phrases=false"),
    )
    asked = len(server.asked)
    assert asked >= 2 * 3 * 2
    assert all(text.startswith("a picture of") for unit in found["units"] for text in unit["proposals"])


def test_units_in_free_text_by_given_captions(models: Path, tmp_path: Path) -> None:
    names = [str(one) for one in open_dataset("digits").select(limit=120).sample_ids]
    told = {name: ["a dog near a house", "a dog"] if i % 2 else ["a red car"] for i, name in enumerate(names)}
    (tmp_path / "captions.json").write_text(json.dumps(told))
    given = ("--file", f"captions={tmp_path / 'captions.json'}")
    found = describe(models, tmp_path / "o", *given)
    known = {"a dog near a house", "a dog", "a red car", "dog near a house", "red car", "dog"}
    assert {text for unit in found["units"] for text in unit["proposals"]} <= known
    # what the captions say is part of the request
    (tmp_path / "captions.json").write_text(json.dumps({name: ["a boat"] for name in names}))
    assert describe(models, tmp_path / "o", *given, ok=False)["code"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--param", "captioner=blip9"], "unknown captioner: `blip9`"),
        (["--param", "captioner=openai:x", "--param", "base_url=nowhere"], "expected an address"),
        (["--file", "captoins=x.json"], "reads no such file"),
        (["--file", "captions=x.json", "--param", "captioner=openai:x"], "contradict each other"),
        (["--concept-set", "words.txt"], "finds its own words"),
        (["--param", "captions_per_image=3"], "temperature 0 gives one caption"),
        (["--param", "images=0"], "images"),
    ],
)
def test_bad_input_is_said_before_the_work(models: Path, tmp_path: Path, given: list[str], said: str) -> None:
    found = describe(models, tmp_path, *given, ok=False)
    assert said in found["error"]
    assert not any(tmp_path.rglob("activations.npy"))


def test_without_a_judge_nothing_is_described(tmp_path: Path) -> None:
    done = rdx_here("explain", "--method", "describe", "--model", "digits-cnn", "--outputs", tmp_path)
    assert done.returncode == 2
    assert "--vlm NAME" in done.stderr


def test_views_are_parts_of_the_centred_square(tmp_path: Path) -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, 20:30] = 255  # the right half of the centred square
    Image.fromarray(picture).save(tmp_path / "one.png")
    dataset = open_dataset(f"images:{tmp_path}")
    views = views_of(dataset, [ImageView(0), ImageView(0, (0.5, 0.0, 1.0, 0.5)), ImageView(0, (0.0, 0.5, 0.5, 1.0))])
    assert [views.image(i).size for i in range(3)] == [(40, 20), (10, 10), (10, 10)]
    assert [int(np.asarray(views.image(i)).mean()) for i in (1, 2)] == [255, 0]
    assert len(set(views.sample_ids)) == 3
    peak = np.zeros((4, 8))
    peak[0, 5] = 1
    assert _box(peak) == (0.4375, 0.0, 0.9375, 0.5)


def test_free_text_stands_on_the_scoreboard(models: Path, tmp_path: Path) -> None:
    names = [str(one) for one in open_dataset("digits").select(limit=200).sample_ids]
    told = {name: [("a dog near a house", "a red car", "a boat")[i % 3]] for i, name in enumerate(names)}
    (tmp_path / "captions.json").write_text(json.dumps(told))
    arguments = (
        *("explain", "--method", "all", "--model", "digits-cnn", "--layer", "conv2", "--limit", "200", "--json"),
        *("--vlm", f"hf:{models / 'clip'}", "--units", "0-3", "--param", "images=4", "--outputs", str(tmp_path / "o")),
        *("--file", f"captions={tmp_path / 'captions.json'}", "--param", "a=10", "--param", "b=0", "--device", "cpu"),
        *("--concept-set", str(tmp_path / "words.txt"), "--param", "n_shuffled=20"),
    )
    missing = rdx_here(*arguments)
    assert missing.returncode == 1, "a file that somebody named is not left out"
    assert "no such concept set" in missing.stderr
    assert "explain with" not in missing.stderr
    (tmp_path / "words.txt").write_text("dog\nhouse\ncar\nboat\n")
    done = rdx_here(*arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "describe" in [entry["method"] for entry in document["methods"]]
    assert len(document["pairs"]) == len(document["methods"]) * (len(document["methods"]) - 1) // 2
