"""Tiny models on disk, in each library's own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RDX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A smooth colour picture, 170 x 120 pixels, so that resizing has something to do."""
    noise = np.random.default_rng(3).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((170, 120), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``vit``, ``vit-classifier``, ``dinov2``, ``clip``, ``siglip`` and ``swin`` in the hub's format."""
    import transformers as t

    root = tmp_path_factory.mktemp("hub")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vision = {**size, "image_size": 32, "patch_size": 8}
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 37,
        "vocab_size": 99,
    }
    square = {"size": {"height": 32, "width": 32}}
    crop = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    torch.manual_seed(0)
    swin = t.SwinConfig(embed_dim=16, depths=[1, 2], num_heads=[2, 2], image_size=32, window_size=4, patch_size=4)
    registers = {key: value for key, value in vision.items() if key != "intermediate_size"}
    made = {
        "vit": (t.ViTModel(t.ViTConfig(**vision)), t.ViTImageProcessor(**square)),
        "vit-classifier": (t.ViTForImageClassification(t.ViTConfig(**vision)), t.ViTImageProcessor(**square)),
        "dinov2": (
            t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**registers, num_register_tokens=4)),
            t.BitImageProcessor(**crop),
        ),
        "clip": (
            t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)),
            t.CLIPImageProcessor(**crop),
        ),
        "siglip": (
            t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision)),
            t.SiglipImageProcessor(**square),
        ),
        "swin": (t.SwinModel(swin), t.ViTImageProcessor(**square)),
    }
    for name, (model, processor) in made.items():
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return root


@pytest.fixture(scope="session")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer of two blocks, as timm writes it for the hub."""
    import timm
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("timm") / "vit"
    torch.manual_seed(1)
    args = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7, **args)
    save_for_hf(model, folder, model_config={"num_classes": 7}, model_args=args)
    return folder


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of two image blocks in open_clip's folder format."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
    }
    preprocess = {"size": 32, "mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document), encoding="utf-8")
    torch.manual_seed(2)
    model = open_clip.CLIP(**config)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder
