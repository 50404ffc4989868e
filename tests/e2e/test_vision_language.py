"""Concept scores by CLIP and SigLIP models: tiny ones in the hubs' own formats, through the real loaders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rdx_here
from PIL import Image
from processes import Forked, rdx_forked

from rdxcli.errors import InputError, UsageError
from rdxcli.models.vision_language import load_vision_language, published_name, resolve_vision_language

WORDS = ["red", "green", "blue", "null", "nan", "round thing"]


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with open_clip's own tokeniser, as open_clip writes it for the hub."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("vlm") / "open_clip"
    folder.mkdir()
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(2)
    model = open_clip.CLIP(**config)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP in the transformers library's format, with a tokeniser of whole words."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("vlm") / "siglip"
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**size, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 32}
    torch.manual_seed(3)
    config = t.SiglipConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8})
    t.SiglipModel(config).save_pretrained(folder)
    t.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    words = ["<pad>", "</s>", "<unk>", "red", "green", "blue", "null", "nan", "round", "thing", "digit"]
    tokeniser = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = t.PreTrainedTokenizerFast(
        tokenizer_object=tokeniser, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=8
    )
    fast.save_pretrained(folder)
    return folder


def _open_clip_hub(folder: Path, arch: str, vision: dict, text: dict) -> str:
    """A model of ``arch`` with smaller towers as open_clip writes it for the hub; its spec."""
    import open_clip
    from safetensors.torch import save_file

    config = open_clip.get_model_config(arch)
    config["vision_cfg"] = {"timm_proj": None, **vision} if "timm_pool" in vision else vision
    config["text_cfg"] |= text
    config["embed_dim"] = 16
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(2)
    model = open_clip.CustomTextCLIP(**{name: value for name, value in config.items() if name != "custom_text"})
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


PE_TINY = "vit_pe_core_tiny_patch16_384"
SMALL_TEXT = {"width": 32, "heads": 2, "layers": 1}
SMALL_VIT = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}


@pytest.mark.parametrize(
    ("name", "vision", "text"),
    [
        ("mobileclip2_s0", {"image_size": 64, "timm_model_name": "fastvit_mci0", "timm_pool": "avg"}, {}),
        ("pe_core_b_16", {"image_size": 384, "timm_model_name": PE_TINY, "timm_pool": "map"}, {}),
        ("siglip2", SMALL_VIT, {"vocab_size": 20}),
    ],
)  # fmt: skip
def test_backbones_by_name(name: str, vision: dict, text: dict, tmp_path: Path) -> None:
    """The architecture that the short name stands for, with smaller towers, in its hub's format: both towers answer."""
    from tiny_models import tokeniser

    arch = resolve_vision_language(name).source.removeprefix("open_clip:").partition("/")[0]
    spec = _open_clip_hub(tmp_path / name, arch, vision, {**SMALL_TEXT, **text})
    if text:  # with a tokeniser of its own, which lies in the repository
        specials = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
        tokeniser(specials).save_pretrained(tmp_path / name)
    model = load_vision_language(spec, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    images, texts = model.encode_images([Image.fromarray(one) for one in pixels]), model.encode_text(["a dog", "cat"])
    assert images.shape == texts.shape == (2, 16)
    assert np.isfinite(images).all()
    assert np.abs(texts[0] - texts[1]).max() > 1e-3
    one = model.encode_images([Image.fromarray(pixels[1])])[0]
    np.testing.assert_allclose(images[1], one, atol=1e-4)


def test_naflex_is_refused_with_what_to_take(tmp_path: Path) -> None:
    import transformers as t
    from tiny_models import tokeniser

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**size, "vocab_size": 20, "max_position_embeddings": 8, "projection_size": 32}
    t.Siglip2Model(
        t.Siglip2Config(text_config=text, vision_config={**size, "patch_size": 8, "num_patches": 16})
    ).save_pretrained(tmp_path)
    t.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    tokeniser({"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="NaFlex") as caught:
        load_vision_language(f"hf:{tmp_path}", "cpu")
    assert "siglip2" in str(caught.value.hint)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures in three classes, whose names are what they show."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for channel, name in enumerate(WORDS[:3]):
        (root / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 60, (24, 24, 3), np.uint8)
            pixels[4:20, 4:20, channel] = rng.integers(150, 255)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def units(pictures: Path) -> Path:
    """Two units: how red a picture is, and noise."""
    from rdxcli.datasets.registry import open_dataset

    dataset = open_dataset(f"folder:{pictures}")
    rng = np.random.default_rng(1)
    red = [np.asarray(dataset.image(i))[..., 0].mean() for i in range(len(dataset))]
    np.save(pictures / "acts.npy", np.stack([np.array(red), rng.normal(size=60)], axis=1))
    (pictures / "words.txt").write_text("red\r\ngreen\rblue\n\nnull\nnan\nround thing\nred\n", newline="")
    return pictures


def test_open_clip_towers_are_the_librarys(open_clip_folder: Path) -> None:
    import open_clip

    model = load_vision_language(f"open_clip:local-dir:{open_clip_folder}", "cpu")
    whole, transform = open_clip.create_model_from_pretrained(f"local-dir:{open_clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")(["a photo of a red thing"])
    with torch.no_grad():
        wanted = whole.encode_text(tokens).numpy()
    found = model.encode_text(["red thing"], template="a photo of a {}")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 40, 3), np.uint8))
    with torch.no_grad():
        wanted = whole.encode_image(transform(picture)[None]).numpy()
    np.testing.assert_allclose(model.encode_images([picture, picture])[1:], wanted, rtol=1e-4, atol=1e-5)
    alone = model.encode_text(WORDS, batch_size=1)
    np.testing.assert_allclose(model.encode_text(WORDS), alone, rtol=1e-4, atol=1e-5)


def test_transformers_towers_are_the_librarys(siglip_folder: Path) -> None:
    import transformers as t

    model = load_vision_language(f"hf:{siglip_folder}", "cpu")
    whole = t.SiglipModel.from_pretrained(siglip_folder)
    tokens = t.AutoTokenizer.from_pretrained(siglip_folder)(["red"], padding="max_length", return_tensors="pt")
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 40, 3), np.uint8))
    pixels = t.AutoImageProcessor.from_pretrained(siglip_folder)(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        both = whole(input_ids=tokens["input_ids"], pixel_values=pixels)
    text, image = model.encode_text(["red"]), model.encode_images([picture])
    np.testing.assert_allclose(text / np.linalg.norm(text), both.text_embeds.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(image / np.linalg.norm(image), both.image_embeds.numpy(), rtol=1e-4, atol=1e-5)


def test_names_of_vision_language_models() -> None:
    assert resolve_vision_language("clip").source == "open_clip:ViT-L-14-336-quickgelu/openai"
    assert published_name(resolve_vision_language("siglip")) == "ViT-L-16-SigLIP-384"
    assert published_name(resolve_vision_language("clip_vit_b_32")) is None
    assert published_name(resolve_vision_language("open_clip:ViT-L-14-336/laion2b")) is None
    with pytest.raises(UsageError, match="no text tower"):
        resolve_vision_language("dino")
    with pytest.raises(UsageError, match="no text tower"):
        resolve_vision_language("torchvision:resnet18")


def test_a_damaged_text_tower_is_no_random_one(siglip_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    shutil.copytree(siglip_folder, folder)
    state = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in state.items() if "text_model.head" not in key}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks"):
        load_vision_language(f"hf:{folder}", "cpu")


@pytest.mark.parametrize("kind", ["open_clip", "hf"])
def test_le_siglip_end_to_end(
    kind: str, open_clip_folder: Path, siglip_folder: Path, units: Path, tmp_path: Path
) -> None:
    vlm = f"open_clip:local-dir:{open_clip_folder}" if kind == "open_clip" else f"hf:{siglip_folder}"
    common = [
        *("--activations", units / "acts.npy", "--dataset", f"folder:{units}", "--vlm", vlm, "--outputs", tmp_path),
        *("--param", "a=8", "--param", "b=0.1", "--json"),
    ]
    words = ["--concept-set", units / "words.txt"]
    done = rdx_here("explain", "--method", "le-siglip", *words, "--param", "min_top=0.1", *common)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert any("repeated" in note for note in document["notes"])
    assert {c["concept"] for unit in document["units"] for c in unit["concepts"]} <= set(WORDS)
    # the scores are what the model says, recomputed here from its embeddings
    model = load_vision_language(vlm, "cpu")
    stored = next(tmp_path.glob("*/image-text/*/features.npy"))
    names = [stored.parent.parent.parent.name for stored in tmp_path.glob("*/image-text/*/features.npy")]
    assert names != ["texts"]
    images = np.load(stored)
    from rdxcli.datasets.registry import open_dataset

    dataset = open_dataset(f"folder:{units}")
    np.testing.assert_allclose(images[:2], model.encode_images([dataset.image(0), dataset.image(1)]), atol=1e-4)
    unit = document["units"][0]
    assert unit["concepts"], unit
    texts = model.encode_text([c["concept"] for c in unit["concepts"]])
    cosines = images @ texts.T / np.linalg.norm(images, axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    P = 1 / (1 + np.exp(-8 * (cosines + 0.1)))
    predicted = P @ np.array([c["weight"] for c in unit["concepts"]]) + unit["bias"]
    truth = np.load(units / "acts.npy")[:, 0]
    scored = rdx_here("simulate", "--explanations", document["artifact"], "--part", "all", *common)
    assert scored.returncode == 0, scored.stderr
    found = json.loads(scored.stdout)["methods"][0]["units"][0]["score"]
    assert found == pytest.approx(np.corrcoef(predicted, truth)[0, 1], abs=1e-6)
    assert "reusing" in rdx_here("explain", "--method", "le-siglip", *words, "--param", "min_top=0.1", *common).stderr


def test_clip_dissect_and_calibration(siglip_folder: Path, units: Path, tmp_path: Path) -> None:
    common = [
        *("--activations", units / "acts.npy", "--vlm", f"hf:{siglip_folder}", "--outputs", tmp_path, "--json"),
        *("--concept-set", units / "words.txt"),
    ]
    done = rdx_here("explain", "--method", "clip-dissect", "--dataset", f"folder:{units}", *common)
    assert done.returncode == 0, done.stderr
    assert {c["concept"] for u in json.loads(done.stdout)["units"] for c in u["concepts"]} <= set(WORDS)
    refused = rdx_here("explain", "--method", "le-siglip", "--dataset", f"folder:{units}", *common)
    assert refused.returncode == 2
    assert "calibrate=true" in refused.stderr
    # labels that the model agrees with: calibration must find a positive slope
    from rdxcli.datasets.registry import open_dataset

    model = load_vision_language(f"hf:{siglip_folder}", "cpu")
    dataset = open_dataset(f"folder:{units}")
    images = model.encode_images([dataset.image(i) for i in range(60)])
    texts = model.encode_text(WORDS[:3])
    cosines = images @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    centred = cosines / np.linalg.norm(images, axis=1, keepdims=True)
    best = np.argsort(np.argsort(centred, axis=0), axis=0).argmax(axis=1)
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{WORDS[i]}\n" for i in best))
    done = rdx_here(
        *("explain", "--method", "le-siglip", "--images", units, "--labels", labels, "--run", "own", *common),
        *("--param", "calibrate=true", "--param", "min_top=0.01", "--dataset", f"folder:{units}"),
    )
    assert done.returncode == 0, done.stderr
    assert any("calibrated on 60 images" in note for note in json.loads(done.stdout)["notes"])


def test_offline_the_documented_example_names_the_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("RDX_DATA", str(tmp_path / "data"))
    done = rdx_here("explain", "--method", "le-siglip", "--model", "resnet18_places365", "--layer", "layer4")
    assert done.returncode == 1
    error, hint = done.stderr.strip().splitlines()
    assert error.startswith("error: the concept set combined_concepts_places365 is not on this machine")
    assert "rdx download resnet18_places365 places365 siglip linear-explanations" in hint
    assert not list(tmp_path.glob("outputs/**/manifest.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vlm", "siglip", "--concept-set", "no.txt"], "no.txt"),
        (["--vlm", "siglip", "--concept-set", "nounz"], "nouns"),
        (["--vlm", "sigllip", "--concept-set", "words.txt"], "siglip"),
        (["--vlm", "dino", "--concept-set", "words.txt"], "text tower"),
        (["--vlm", "siglip", "--concept-set", "words.txt", "--param", "a=2"], "partner"),
        (["--vlm", "siglip", "--concept-set", "words.txt", "--param", "a=2", "--param", "b=1", "--param",
          "calibrate=true"], "leave one"),
        (["--vlm", "siglip", "--concepts", "acts.npy"], "nothing to do"),
        (["--vlm", "siglip"], "--concept-set"),
    ],
)  # fmt: skip
def test_bad_vlm_options_are_one_clear_error(units: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    base = ["explain", "--method", "le-siglip", "--activations", "acts.npy", "--outputs", tmp_path]
    done = rdx_here(*base, *arguments, cwd=units)
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stderr.split())
    assert "unexpected" not in done.stderr


STAGES = {  # a function that is held, and files that must be there
    "image_text._finish": "digits*/image-text/*.partial/shards/*.done",
    "TextTask.run": "texts/image-text/*/*.partial",
    "store._commit": "texts/image-text/*/*/manifest.json",
}
HELD = """
import time
from pathlib import Path
from rdxcli.artifacts import store
from rdxcli.concepts import image_text
from rdxcli.concepts.image_text import TextTask

plain, place = {stage}, Path("{place}")

def held(*arguments, **options):
    if list(place.glob("{files}")):
        (place / "held").touch()
        time.sleep(600)
    return plain(*arguments, **options)

{stage} = held
"""


@pytest.mark.slow
def test_killed_embeddings_and_explanations_go_on(siglip_folder: Path, tmp_path: Path) -> None:
    """Killed while images and then words are embedded, and before the explanation is stored: the same bytes."""
    (tmp_path / "words.txt").write_text("".join(f"red {i}\n" for i in range(300)))
    arguments = [
        *("explain", "--method", "le-siglip", "--model", "digits-cnn", "--dataset", "digits", "--units", "0-3"),
        *("--vlm", f"hf:{siglip_folder}", "--concept-set", str(tmp_path / "words.txt"), "--param", "min_top=0.1"),
        *("--param", "a=8", "--param", "b=0.1", "--limit", "700", "--json", "--outputs"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = rdx_forked(*arguments, whole)
    assert done.returncode == 0, done.stderr
    for stage, files in STAGES.items():
        process = Forked(*arguments, cut, code=HELD.format(stage=stage, place=cut, files=files))
        process.until((cut / "held").exists)
        process.kill()
        (cut / "held").unlink()
    done = rdx_forked(*arguments, cut)
    assert done.returncode == 0, done.stderr

    def files(root: Path) -> dict[str, bytes]:
        return {
            path.relative_to(root).as_posix(): path.read_bytes().replace(str(root).encode(), b"")
            for path in root.rglob("*")
            if path.suffix in (".npy", ".csv", ".json", ".txt") and path.name not in ("manifest.json", ".verified.json")
        }

    assert len(files(whole)) >= 5
    assert files(cut) == files(whole)
    assert not list(cut.rglob("*.partial"))


def test_units_are_found_by_word_and_by_image(units: Path, siglip_folder: Path, tmp_path: Path) -> None:
    base = [
        *("explain", "--method", "find-units", "--activations", units / "acts.npy", "--dataset", f"folder:{units}"),
        *("--vlm", f"hf:{siglip_folder}", "--outputs", tmp_path, "--json"),
    ]
    word = rdx_here(*base, "--param", "query=red")
    assert word.returncode == 0, word.stderr
    assert {unit["unit"] for unit in json.loads(word.stdout)["units"]} == {0, 1}
    image = rdx_here(*base, "--file", f"image={units / 'red' / '00.png'}", "--run", "image")
    assert image.returncode == 0, image.stderr
    found = json.loads(image.stdout)
    assert found["units"][0]["unit"] == 0  # how red a picture is
    assert found["units"][0]["concepts"][0]["concept"] == "00.png"
    missing = rdx_here(*base, "--file", "image=nowhere.png", "--run", "missing")
    assert missing.returncode == 1
    assert "no such image" in missing.stderr
