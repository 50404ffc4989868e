"""Ablation in networks of every kind: inside residual blocks and transformers, with their own heads and by texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rdx_here
from PIL import Image
from tiny_models import THINGS, save_clip

from rdxcli.errors import InputError, UsageError
from rdxcli.models import load
from rdxcli.models.judges import same_layer, with_own_head, with_texts
from rdxcli.models.replacing import HookedLosses, linear_head, preprocessed

K = 4


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(K)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image classifiers and a CLIP of the transformers library, a CLIP of open_clip: tiny, random, in their formats."""
    import open_clip
    import transformers as t
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("hub")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    named = {"id2label": dict(enumerate(THINGS[:K])), "label2id": {name: i for i, name in enumerate(THINGS[:K])}}
    torch.manual_seed(0)
    made = {
        "vit": t.ViTForImageClassification(t.ViTConfig(**size, intermediate_size=48, **named)),
        "dinov2": t.Dinov2ForImageClassification(t.Dinov2Config(**size, **named)),
        "convnext": t.ConvNextForImageClassification(
            t.ConvNextConfig(
                hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, layer_scale_init_value=1.0, image_size=32, **named
            )
        ),
    }
    for name, model in made.items():
        with torch.no_grad():  # random weights are so small that a unit hardly changes anything
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
        model.save_pretrained(root / name)
        t.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / name)
    save_clip(root / "clip")
    folder = root / "open_clip"
    folder.mkdir()
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    seen = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": seen}))
    state = open_clip.CLIP(**config).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    return root


def judged(model, layer: str, images: torch.Tensor, judge=None, pool: str = "auto") -> None:
    """The own value changes nothing, another one something, and the slope is that of the loss."""
    layer = model.layer(layer)
    with model.tap([layer], pool, early_stop=False) as tap:
        values = tap(images)[layer].double().numpy()
    judge, rows, unit = judge or model, np.arange(K), values.shape[1] // 2
    place = layer if judge is model else same_layer(model, layer, judge, images[:1])
    judge.module.double()
    arguments = (judge, place, pool, images.double(), rows, np.arange(K) % 3, values)
    losses, whole = HookedLosses(*arguments, front_bytes=2**26), HookedLosses(*arguments)
    with torch.no_grad():
        plain = judge.module(images.double())
    plain = plain if isinstance(plain, torch.Tensor) else plain.logits
    own = torch.as_tensor(values[:, unit])
    with torch.no_grad():
        torch.testing.assert_close(losses.logits(unit, own, rows), plain, rtol=1e-4, atol=1e-5)
    moved = (own + 0.5).requires_grad_(True)
    loss = losses(unit, moved, rows)
    (slope,) = torch.autograd.grad(loss.sum(), moved)
    step = 1e-4
    with torch.no_grad():
        torch.testing.assert_close(loss.detach(), whole(unit, moved.detach(), rows))
        up, down = (whole(unit, moved.detach() + sign * step, rows) for sign in (1, -1))
        assert (loss.detach() - whole(unit, own, rows)).abs().max() > 1e-9
    torch.testing.assert_close(slope, (up - down) / (2 * step), rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision:resnet18?num_classes=5", "layer2.0.conv1"),
        ("torchvision:resnet18?num_classes=5", "layer4.1.relu"),  # runs twice in one pass
        ("timm:vit_tiny_patch16_224?img_size=32&depth=2&num_classes=5", "blocks.0.mlp.fc1"),
        ("timm:vit_tiny_patch16_224?img_size=32&depth=2&num_classes=5", "blocks.1.attn.qkv"),
        ("timm:vit_tiny_patch16_224?img_size=32&depth=2&num_classes=5", "blocks.1.attn.proj"),
        ("timm:convnext_atto?num_classes=5", "stages.3.blocks.1.mlp.fc1"),
    ],
)
def test_inside_blocks(pictures: list[Image.Image], name: str, layer: str) -> None:
    model = load(name, "cpu", untrained=True)
    judged(
        model,
        layer,
        preprocessed(model, pictures)[..., :64, :64] if "vit" not in name else preprocessed(model, pictures),
    )


@pytest.mark.parametrize(
    ("folder", "layer"),
    [
        ("vit", "layers.0.mlp.fc1"),
        ("vit", "layers.1.attention.o_proj"),
        ("vit", "layernorm"),
        ("dinov2", "encoder.layer.0.mlp.fc1"),
        ("convnext", "encoder.stages.1"),
    ],
)
def test_backbones_of_transformers_with_their_own_classifier(
    hub: Path, pictures: list[Image.Image], folder: str, layer: str
) -> None:
    model = load(f"hf:{hub / folder}", "cpu")
    judge, names = with_own_head(model)
    assert names == list(THINGS[:K])
    judged(model, layer, preprocessed(model, pictures), judge)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("hf:{}/clip", "vision_model.encoder.layers.0.mlp.fc1"),
        ("hf:{}/clip", "vision_model.encoder.layers.0.self_attn.out_proj"),
        ("open_clip:local-dir:{}/open_clip", "transformer.resblocks.0.mlp.c_fc"),
    ],
)
def test_vision_language_models_classify_by_texts(
    hub: Path, pictures: list[Image.Image], name: str, layer: str
) -> None:
    model = load(name.format(hub), "cpu")
    judge = with_texts(model, ["dog", "car_house", "boat"], "a {}")
    images = preprocessed(model, pictures)
    with torch.no_grad():
        logits = judge.module(images)
    assert logits.shape == (K, 3)
    assert logits.abs().max() <= 101 * 1.01
    judged(model, next(one.path for one in model.layers() if one.path.endswith(layer)), images, judge)
    with pytest.raises(UsageError, match="gives no logits"):
        with_own_head(model)
    with pytest.raises(InputError, match="does not read"):
        same_layer(load("digits-cnn", "cpu", untrained=True), "conv2", judge, torch.zeros(1, 1, 8, 8))


def test_a_classifier_of_the_hub_from_the_command_line(hub: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for k, name in enumerate(THINGS[:K]):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            picture = np.clip(60 * k + rng.integers(0, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{i}.png")
    table = tmp_path / "t.csv"
    table.write_text("unit,description\n" + "".join(f"{u},{THINGS[u % K]}\n" for u in range(3)))
    common = (
        *("simulate", "--explanations", table, "--scoring", "ablation", "--dataset", f"folder:{tmp_path / 'pictures'}"),
        *("--param", "steps=3", "--outputs", tmp_path / "o", "--device", "cpu", "--json"),
    )
    done = rdx_here(*common, "--model", f"hf:{hub / 'vit'}", "--layer", "layers.0.mlp.fc1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ablation"]["judge"] == "a forward hook in the network"
    clip = (*common, "--model", f"hf:{hub / 'clip'}", "--layer", "vision_model.encoder.layers.0.mlp.fc1")
    refused = rdx_here(*clip)
    assert refused.returncode == 2
    assert "zero_shot='a photo of a {}'" in " ".join(refused.stderr.split())
    done = rdx_here(*clip, "--param", "zero_shot=a photo of a {}", "--run", "by-texts")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ablation"]["zero_shot"] == "a photo of a {}"


def test_the_linear_head_behind_pooling_is_found_where_there_is_one(pictures: list[Image.Image]) -> None:
    model = load("timm:vit_tiny_patch16_224?img_size=32&depth=2&num_classes=5", "cpu", untrained=True)
    images = preprocessed(model, pictures)
    assert linear_head(model, "norm", images[:1]) is not None
    assert linear_head(model, "blocks.0", images[:1]) is None
