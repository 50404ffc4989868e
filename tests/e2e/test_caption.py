"""``rdx caption``: tiny BLIP-2 and BLIP in the hub's format through the real loaders; killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import rdx_here
from PIL import Image

from rdxcli.models.captioners import Sampling, _Choose, load_captioner

N = 12
THINGS = ["dog", "cat", "tree", "car", "house", "bird", "boat", "horse", "red", "big", "near", "on"]


def tokeniser(specials: dict[str, str]) -> Any:
    """Whole words."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [*specials.values(), "a", "photo", "of", *THINGS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=specials["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if "cls_token" in specials:
        ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return t.PreTrainedTokenizerFast(tokenizer_object=made, **specials)


VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 8}  # fmt: skip
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published checkpoints were before the image token: neither tokeniser nor embeddings know it."""
    import transformers as t

    folder = tmp_path_factory.mktemp("captioners") / "blip2"
    text = {"model_type": "opt", "vocab_size": 19, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16,
            "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
            **SMALL}  # fmt: skip
    queries = {"vocab_size": 10, "hidden_size": 16, "intermediate_size": 16, "encoder_hidden_size": 32, **SMALL}
    config = t.Blip2Config(vision_config=VISION, qformer_config=queries, text_config=text, num_query_tokens=4)
    torch.manual_seed(0)
    model = t.Blip2ForConditionalGeneration(config)
    with torch.no_grad():  # so that captions depend on the image
        model.query_tokens.normal_()
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    words = tokeniser({"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>"})
    words.save_pretrained(folder)
    t.BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Blip2Processor"}))
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers as t

    folder = tmp_path_factory.mktemp("captioners") / "blip"
    specials = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                "bos_token": "[DEC]"}  # fmt: skip
    text = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "encoder_hidden_size": 32, "bos_token_id": 4,
            "sep_token_id": 3, "pad_token_id": 1, "eos_token_id": 3, "max_position_embeddings": 64,
            **SMALL}  # fmt: skip
    torch.manual_seed(1)
    model = t.BlipForConditionalGeneration(t.BlipConfig(vision_config=VISION, text_config=text))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    words = tokeniser(specials)
    t.BlipProcessor(t.BlipImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(root / f"{i:02d}.png")
    return root


def arguments(model: Path, pictures: Path, outputs: Path, *more: str) -> list[str]:
    return [
        *("caption", "--dataset", f"images:{pictures}", "--model", f"hf:{model}", "--captions-per-image", "3"),
        *("--max-tokens", "6", "--device", "cpu", "--outputs", str(outputs), *more),
    ]


def captioned(*given: str | Path, **more: object) -> dict[str, list[str]]:
    done = rdx_here(*given, "-q")
    assert done.returncode == 0, done.stderr
    lines = (Path(done.stdout.strip()) / "captions.jsonl").read_text("utf-8").splitlines()
    return {row["sample_id"]: row["captions"] for row in map(json.loads, lines)}


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


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_captions(blip2: Path, pictures: Path, tmp_path: Path) -> None:
    whole = captioned(*arguments(blip2, pictures, tmp_path / "whole"))
    given = arguments(blip2, pictures, tmp_path / "killed", "--batch-size", "1")
    slow = """
import sys, time
from rdxcli.engines.captions import CaptionTask
run = CaptionTask.run
CaptionTask.run = lambda self, batch: (time.sleep(0.2), run(self, batch))[1]
from rdxcli.cli.app import main
main()
"""
    for least in (4,):
        process = subprocess.Popen([sys.executable, "-c", slow, *given], stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "killed").rglob("*.done"))) < least:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not list((tmp_path / "killed").rglob("captions.jsonl"))
    done = rdx_here(*given)
    assert done.returncode == 0, done.stderr
    assert "were done before" in done.stderr
    assert captioned(*given) == whole


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
    ]
    for wrong, said in cases:
        done = rdx_here(*wrong, "--device", "cpu", "--outputs", tmp_path / "outputs")
        assert done.returncode in (1, 2), (wrong, done.stdout, done.stderr)
        assert said in done.stderr, (wrong, done.stderr)
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that knows the captioners' words."""
    import transformers as t

    folder = tmp_path_factory.mktemp("teacher") / "siglip"
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**size, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 32}
    torch.manual_seed(3)
    config = t.SiglipConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8})
    t.SiglipModel(config).save_pretrained(folder)
    t.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokeniser({"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}).save_pretrained(folder)
    return folder


def test_from_pictures_to_words(blip: Path, siglip: Path, pictures: Path, tmp_path: Path) -> None:
    """caption | encode-concepts | train-surrogate --teacher | explain | visualize, each from the last one's output."""
    images, common = ("--dataset", f"images:{pictures}"), ("--outputs", tmp_path, "--device", "cpu", "-q")

    def step(*given: object, stdin: str = "") -> str:
        done = rdx_here(*given, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    captions = step(*arguments(blip, pictures, tmp_path, "-q"))
    encodings = step("encode-concepts", "--captions", "-", "--tagger", "packaged", "--min-count", "1",
                     "--max-threshold", "1", "--outputs", tmp_path, "-q", stdin=captions)  # fmt: skip
    training = ("train-surrogate", "--encodings", "-", *images, "--teacher", f"hf:{siglip}", *common)
    training = (*training, "--captions", captions.strip(), "--epochs", "3", "--batch-size", "4")
    surrogate = step(*training, stdin=encodings)
    cached = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features.npy")}
    assert len(cached) == 2
    assert step(*training, "--run", "other", "--seed", "1", stdin=encodings) != surrogate
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features.npy")} == cached
    explained = step("explain", "--method", "surrogate", "--surrogate", surrogate.strip(),
                     "--encodings", encodings.strip(), *images, *common)  # fmt: skip
    page = Path(step("visualize", explained.strip(), "--outputs", tmp_path, "-q").strip()).read_text("utf-8")
    document = json.loads((Path(explained.strip()) / "attributions.json").read_text("utf-8"))
    assert document["n"] == N
    assert page.count("data:image/") >= N
    strongest = document["images"][0]["concepts"][0]["concept"].partition("/")[0]
    assert strongest in page
