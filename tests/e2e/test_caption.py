"""``rdx caption``: tiny BLIP-2 and BLIP in the hub's format through the real loaders; killed and resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import captions_of, random_pictures, rdx_here, whole_page
from PIL import Image
from processes import Forked, rdx_forked
from tiny_models import CHAT, THINGS, save_blip, save_blip2, save_chat, save_clip, save_git, save_siglip

from rdxcli.concepts.image_text import image_embeddings
from rdxcli.datasets.registry import open_dataset
from rdxcli.engines import sharing
from rdxcli.engines.local import RunOptions, RunReport, run_local
from rdxcli.engines.shards import ShardPlan, ShardStore
from rdxcli.errors import InputError, UsageError
from rdxcli.models.captioners import ATTRIBUTES, Sampling, _Choose, _refuse_nan, load_captioner, one_line
from rdxcli.models.vision_language import load_vision_language

N = 12


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip2(tmp_path_factory.mktemp("captioners") / "blip2")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("captioners") / "blip")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("teacher") / "clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("teacher") / "siglip")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_pictures(tmp_path_factory.mktemp("pictures"), N)


def arguments(model: Path, pictures: Path, outputs: Path, *more: str) -> list[str]:
    return [
        *("caption", "--dataset", f"images:{pictures}", "--model", f"hf:{model}", "--captions-per-image", "3"),
        *("--max-tokens", "6", "--device", "cpu", "--outputs", str(outputs), *more),
    ]


def captioned(*given: str | Path, **more: object) -> dict[str, list[str]]:
    done = rdx_here(*given, "-q")
    assert done.returncode == 0, done.stderr
    return captions_of(Path(done.stdout.strip()))


@pytest.mark.parametrize("kind", ["blip2", "blip"])
def test_captions_do_not_depend_on_the_batch(
    kind: str, request: pytest.FixtureRequest, pictures: Path, tmp_path: Path
) -> None:
    model = request.getfixturevalue(kind)
    by_one = captioned(*arguments(model, pictures, tmp_path / "1", "--batch-size", "1"))
    by_five = captioned(*arguments(model, pictures, tmp_path / "5", "--batch-size", "5"))
    few = captioned(*arguments(model, pictures, tmp_path / "few", "--limit", "3"))
    other = captioned(*arguments(model, pictures, tmp_path / "other", "--seed", "1"))
    assert by_one == by_five
    assert len(by_one) == N
    assert {sample: by_one[sample] for sample in few} == few
    assert other != by_one
    everything = [caption for captions in by_one.values() for caption in captions]
    assert len(set(everything)) > N
    assert all(len(captions) == 3 for captions in by_one.values())
    words = {word for caption in everything for word in caption.split()}
    assert words <= {*THINGS, "a", "photo", "of"}, words


@pytest.mark.parametrize("engine", ["ranks", "ray"])
def test_every_engine_gives_the_same(
    engine: str, blip: Path, clip: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captions and image embeddings; what Ray's actors open for themselves is opened here."""
    opened = []

    def actor(
        factory: Any, given: tuple[Any, ...], plan: ShardPlan, places: Any, ids: Any, how: RunOptions, address: Any
    ) -> RunReport:
        opened.append(factory.__name__)
        stores = {name: ShardStore(store.folder, ids, store.request) for name, store in places.items()}
        with factory(*given) as task:
            return run_local(task, plan, stores, how)

    def made(outputs: Path, *more: str) -> dict[str, bytes]:
        done = rdx_here(*arguments(blip, pictures, outputs, *more))
        assert done.returncode == 0, done.stderr
        dataset = open_dataset(f"images:{pictures}").select(limit=3)
        image_embeddings(load_vision_language(f"hf:{clip}", "cpu"), dataset, outputs, batch_size=2)
        assert len(list(outputs.rglob("manifest.json"))) == 2
        files = [path for name in ("captions.jsonl", "features.npy") for path in outputs.rglob(name)]
        return {path.name: path.read_bytes() for path in files}

    local = made(tmp_path / "local", "--engine", "local")
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sharing, "run_ray", actor)
    monkeypatch.setattr(sharing, "count_workers", lambda address: 2)
    assert made(tmp_path / engine, "--engine", engine) == local
    assert opened == (["open_task", "open_images"] if engine == "ray" else [])


@pytest.mark.slow
def test_actors_caption_as_one_process_does(blip: Path, pictures: Path, tmp_path: Path) -> None:
    """A real Ray on this machine; its actors open the captioner and the images for themselves."""
    pytest.importorskip("ray")
    local = rdx_here(*arguments(blip, pictures, tmp_path / "local"))
    assert local.returncode == 0, local.stderr
    more = ("--engine", "ray", "--address", "local", "--batch-size", "2")
    done = rdx_forked(*arguments(blip, pictures, tmp_path / "ray", *more))
    assert done.returncode == 0, done.stderr
    assert "Ray actors" in done.stderr
    (first,), (second,) = (list((tmp_path / where).rglob("captions.jsonl")) for where in ("local", "ray"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", CHAT)
def test_models_of_2026(kind: str, pictures: Path, tmp_path: Path) -> None:
    """Each through its own processor, and its chat template where it has one; the question is no part of a caption."""
    captioner = load_captioner(f"hf:{save_chat(kind, tmp_path / kind)}", "cpu")
    how = Sampling(captions=2, max_tokens=5)
    items = [captioner.prepare(Image.open(pictures / f"{i:02d}.png")) for i in range(4)]
    together = captioner.caption(items, list("abcd"), how)
    assert together == [captioner.caption([item], [name], how)[0] for item, name in zip(items, "abcd", strict=True)]
    everything = [caption for captions in together for caption in captions]
    assert len(set(everything)) > 4
    chats = getattr(captioner.processor, "chat_template", None)
    asked = {"florence2": "<CAPTION>", "paligemma": "caption en"}.get(kind, "Describe this image in one sentence.")
    assert captioner.prompt(None) == asked
    assert not any(caption.startswith(("USER: Describe this", asked)) for caption in everything)
    if kind == "florence2":
        assert captioner.prompt(ATTRIBUTES) == "<DENSE_REGION_CAPTION>"
        assert one_line("car<loc_1><loc_22>a dog<loc_3>", "<OD>") == "car; a dog"
        with pytest.raises(UsageError, match="does tasks"):
            captioner.prompt("a photo of")
    elif chats:
        assert captioner.prompt(ATTRIBUTES) == ATTRIBUTES
    else:
        with pytest.raises(UsageError, match="takes no instructions"):
            captioner.prompt(ATTRIBUTES)


def test_a_chat_model_is_asked_what_the_prompt_says(pictures: Path, tmp_path: Path) -> None:
    model = save_chat("llava", tmp_path / "llava")
    done = rdx_here(*arguments(model, pictures, tmp_path / "asked", "--prompt", "a photo of", "--json", "--limit", "2"))
    assert json.loads(done.stdout)["parameters"]["prompt"] == "a photo of"


def test_git_reads_no_segments(pictures: Path, tmp_path: Path) -> None:
    """GIT's tokeniser says segments that the model does not take; captions go on behind the prompt."""
    from transformers import AutoProcessor

    model = save_git(tmp_path / "git")
    by_one = captioned(*arguments(model, pictures, tmp_path / "1", "--batch-size", "1"))
    assert by_one == captioned(*arguments(model, pictures, tmp_path / "5", "--batch-size", "5"))
    captioner, picture = load_captioner(f"hf:{model}", "cpu"), Image.open(pictures / "03.png")
    how = Sampling(captions=1, temperature=0, max_tokens=6)
    (mine,) = captioner.caption([captioner.prepare(picture)], ["3"], how)
    processor = AutoProcessor.from_pretrained(model)
    asked = torch.tensor([[2, *processor.tokenizer("a photo of", add_special_tokens=False)["input_ids"]]])
    pixels = processor.image_processor(images=picture, return_tensors="pt")["pixel_values"]
    tokens = captioner.model.generate(pixel_values=pixels, input_ids=asked, max_new_tokens=6, do_sample=False)
    whole = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)[0]
    assert f"a photo of {mine[0]}".strip() == whole.strip()


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_nan_is_said_and_a_type_offered(blip: Path, temperature: str) -> None:
    captioner = load_captioner(f"hf:{blip}", "cpu")
    with torch.no_grad():
        for parameter in captioner.model.parameters():
            parameter.fill_(float("nan"))
    item = captioner.prepare(Image.new("RGB", (32, 32)))
    with pytest.raises(InputError, match="computes NaN in float32"):
        captioner.caption([item], ["a"], Sampling(captions=1, temperature=float(temperature), max_tokens=3))
    with pytest.raises(InputError) as caught:
        _refuse_nan(torch.zeros(1, 1), torch.full((1, 3), torch.nan, dtype=torch.float16))
    assert "bfloat16" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["blip2", "blip"])
def test_the_likeliest_caption_is_the_librarys(kind: str, request: pytest.FixtureRequest, pictures: Path) -> None:
    """Temperature 0 equals greedy decoding by the library from its own processor's inputs."""
    from transformers import AutoProcessor

    captioner = load_captioner(f"hf:{request.getfixturevalue(kind)}", "cpu")
    picture = Image.open(pictures / "03.png")
    how = Sampling(captions=1, temperature=0, max_tokens=6)
    (mine,) = captioner.caption([captioner.prepare(picture)], ["3"], how)
    processor = AutoProcessor.from_pretrained(request.getfixturevalue(kind))
    if kind == "blip2":
        processor.num_query_tokens = 4
    inputs = processor(images=picture, text="a photo of", return_tensors="pt")
    tokens = captioner.model.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=1)
    whole = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
    assert f"a photo of {mine[0]}".strip() == whole


def test_sampling_follows_the_librarys_distribution() -> None:
    """Frequencies of drawn tokens against the library's own warpers."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(0)) * 2
    how = Sampling(temperature=1.3, top_p=0.8, top_k=12)
    warped = LogitsProcessorList(
        [TemperatureLogitsWarper(how.temperature), TopKLogitsWarper(how.top_k), TopPLogitsWarper(how.top_p)]
    )(torch.zeros(1, 1, dtype=torch.long), logits.clone())
    wanted = warped.softmax(dim=1)[0].double().numpy()
    draws = 20_000
    uniform = (np.arange(draws)[:, None] + 0.5) / draws  # evenly spread: frequencies are the shares
    chosen = _Choose(uniform, how)(torch.zeros(draws, 1, dtype=torch.long), logits.expand(draws, -1))
    found = np.bincount(chosen.argmax(dim=1).numpy(), minlength=30) / draws
    assert (torch.isfinite(chosen).sum(dim=1) == 1).all()
    np.testing.assert_allclose(found, wanted, atol=2 / draws)


def test_out_of_memory_halves_the_batch(
    blip2: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rdxcli.models.captioners import Captioner

    whole = captioned(*arguments(blip2, pictures, tmp_path / "whole"))
    caption, sizes = Captioner.caption, []

    def small(self: Captioner, items: list, ids: list, how: Sampling) -> list[list[str]]:
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return caption(self, items, ids, how)

    monkeypatch.setattr(Captioner, "caption", small)
    assert captioned(*arguments(blip2, pictures, tmp_path / "halved", "--batch-size", "8")) == whole
    assert max(sizes) == 8


def test_broken_images_are_reported(blip: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("00.png", "01.png"):
        (folder / name).write_bytes((pictures / name).read_bytes())
    (folder / "02.png").write_bytes(b"no image")
    done = rdx_here(*arguments(blip, folder, tmp_path, "--json"))
    assert done.returncode == 4, done.stderr
    document = json.loads(done.stdout)
    assert (document["images"], document["captions"]) == (2, 6)
    assert [entry["sample_id"] for entry in document["failed"]] == ["02.png"]


def test_published_and_human_captions(pictures: Path, tmp_path: Path) -> None:
    published = {f"/somewhere/else/{i:02d}.png": [f"a dog {i}", "a\u2028cat"] for i in range(N)}
    (tmp_path / "published.json").write_text(json.dumps(published))
    out = ("--outputs", tmp_path / "outputs")
    found = captioned("caption", "--from", tmp_path / "published.json", "--dataset", f"images:{pictures}", *out)
    assert list(found) == [f"{i:02d}.png" for i in range(N)]
    assert found["03.png"] == ["a dog 3", "a cat"]
    sentences = [{"raw": "A dog ."}, {"raw": "a cat"}]
    listed = {"dataset": "x", "images": [{"filename": "07.png", "imgid": 3, "sentences": sentences}]}
    (tmp_path / "karpathy.json").write_text(json.dumps(listed))
    assert captioned("caption", "--from", tmp_path / "karpathy.json", *out) == {"07.png": ["A dog .", "a cat"]}
    rows = "".join(f"{pictures}/{i:02d}.png,a big cat {i}\n" for i in range(N))
    (tmp_path / "list.csv").write_text("path,caption\n" + rows)
    done = rdx_here("caption", "--dataset", f"images:{tmp_path / 'list.csv'}", *out)
    assert done.returncode == 0, done.stderr
    assert "captions of its own" in done.stderr
    assert json.loads((Path(done.stdout.strip()) / "captions.jsonl").read_text().splitlines()[2])["captions"] == [
        "a big cat 2"
    ]
    piped = rdx_here("encode-concepts", "--captions", "-", "--max-threshold", "1", *out, stdin=done.stdout)
    assert piped.returncode == 0, piped.stderr


def test_mistakes_are_said_in_a_line(blip: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"nowhere": ["a dog"]}')
    folder = f"images:{pictures}"
    given = ("caption", "--dataset", folder, "--model", f"hf:{blip}")
    cases = [
        (("caption",), "which images"),
        (("caption", "--dataset", folder), "weights of `blip2-opt-2.7b-coco` are not on this machine"),
        (("caption", "--dataset", folder, "--model", "blip2-opt-2.7b-coc"), "blip2-opt-2.7b-coco"),
        (("caption", "--dataset", folder, "--model", "human"), "no captions"),
        (("caption", "--dataset", folder, "--model", f"hf:{tmp_path}/nowhere"), "no folder"),
        (("caption", "--dataset", folder, "--model", "timm:resnet18"), "no captioner"),
        (("caption", "--dataset", folder, "--from", tmp_path / "other.json"), "names none of the images"),
        ((*given, "--temperature", "0"), "one caption per image"),
        ((*given, "--top-p", "1.5"), "--top-p"),
        ((*given, "--dtype", "float8"), "float8"),
        ((*given, "--attributes"), "takes no instructions"),
    ]
    for wrong, said in cases:
        done = rdx_here(*wrong, "--device", "cpu", "--outputs", tmp_path / "outputs")
        assert done.returncode in (1, 2), (wrong, done.stdout, done.stderr)
        assert said in done.stderr, (wrong, done.stderr)
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr, done.stderr


@pytest.mark.parametrize(("captioner", "teacher"), [("blip", "siglip"), ("blip2", "clip")])
def test_from_pictures_to_words(
    captioner: str, teacher: str, request: pytest.FixtureRequest, pictures: Path, tmp_path: Path
) -> None:
    """caption | encode-concepts | train-surrogate --teacher | explain | visualize, each from the last one's output."""
    images, common = ("--dataset", f"images:{pictures}"), ("--outputs", tmp_path, "--device", "cpu", "-q")
    vlm = f"hf:{request.getfixturevalue(teacher)}"

    def step(*given: object, stdin: str = "") -> str:
        done = rdx_here(*given, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    captions = step(*arguments(request.getfixturevalue(captioner), pictures, tmp_path, "-q"))
    encodings = step("encode-concepts", "--captions", "-", "--tagger", "packaged", "--min-count", "1",
                     "--max-threshold", "1", "--outputs", tmp_path, "-q", stdin=captions)  # fmt: skip
    training = ("train-surrogate", "--encodings", "-", *images, "--teacher", vlm, *common)
    training = (*training, "--captions", captions.strip(), "--epochs", "3", "--batch-size", "4")
    surrogate = step(*training, stdin=encodings)
    cached = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features.npy")}
    assert len(cached) == 2
    assert step(*training, "--run", "other", "--seed", "1", stdin=encodings) != surrogate
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features.npy")} == cached
    trained = ("--surrogate", surrogate.strip(), "--encodings", encodings.strip(), *images, *common)
    explained = step("explain", "--method", "surrogate", *trained)
    page = whole_page(step("visualize", explained.strip(), "--outputs", tmp_path, "-q").strip())
    document = json.loads((Path(explained.strip()) / "attributions.json").read_text("utf-8"))
    assert document["n"] == N
    assert page.count("data:image/") >= N
    strongest = document["images"][0]["concepts"][0]["concept"].partition("/")[0]
    assert strongest in page
    # classes by name, and the teacher that the surrogate remembers
    (tmp_path / "classes.txt").write_text("dog\ncat\nbig house\n")
    classes = ("--file", f"class_names={tmp_path}/classes.txt")
    why = (*classes, "--param", "contrast=dog,big house", "--run", "why")
    found = json.loads((Path(step("explain", "--method", "surrogate", *trained, *why).strip()) / "attributions.json")
                       .read_text("utf-8"))  # fmt: skip
    assert {image["prediction"] for image in found["images"]} <= {"dog", "cat", "big house"}
    judged = Path(step("explain", "--method", "all", *trained, *classes, "--param", "images=all").strip())
    board = json.loads((judged / "attributions.json").read_text("utf-8"))["scoreboard"]
    assert {row["method"] for row in board} == {"surrogate", "splice", "sae", "constant"}
    # nothing is left out that a sparse autoencoder could learn from
    known = [row["method"] for row in board if row["agreement"] is not None and row["i2t_r1"] is not None]
    assert sorted(known) == ["constant", "splice", "surrogate"]


@pytest.mark.slow
def test_one_shell_pipeline(blip2: Path, clip: Path, pictures: Path, tmp_path: Path) -> None:
    """What the documentation says to type: five processes at once, each reading what the one before prints."""
    photos = f"images:{pictures}"
    line = (
        ("caption", "--dataset", photos, "--model", f"hf:{blip2}", "--captions-per-image", "3", "--max-tokens", "6"),
        ("encode-concepts", "--captions", "-", "--min-count", "1", "--max-threshold", "1"),
        ("train-surrogate", "--encodings", "-", "--dataset", photos, "--teacher", f"hf:{clip}", "--epochs", "3"),
        ("explain", "--method", "surrogate", "--surrogate", "-", "--dataset", photos),
        ("visualize", "-"),
    )
    pipes = [tmp_path / str(number) for number in range(1, len(line))]
    for pipe in pipes:
        os.mkfifo(pipe)
    ends = zip(line, [None, *pipes], [*pipes, None], strict=True)
    running = [Forked(*words, "-q", cwd=tmp_path, stdin=into, stdout=out) for words, into, out in ends]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * len(line), said
    page = (tmp_path / said[-1][0].strip().splitlines()[-1]).read_text("utf-8")
    assert page.count("data:image/") >= N
