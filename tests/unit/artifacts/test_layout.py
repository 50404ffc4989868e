"""Names become legal folders and stay readable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdxcli.artifacts.layout import (
    activations_folder,
    array_dataset,
    comparisons_folder,
    model_slug,
    short_name,
    slug,
)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("dino", "dino"),
        ("timm:vit_base_patch16_224.dino", "timm-vit_base_patch16_224.dino"),
        ("encoder.layers[3].mlp", "encoder.layers.3.mlp"),
        ("digits-cnn@1", "digits-cnn@1"),
    ],
)
def test_readable(name: str, folder: str) -> None:
    assert slug(name) == folder


@given(st.text(max_size=300))
def test_legal_everywhere(name: str) -> None:
    folder = slug(name)
    assert 0 < len(folder) <= 100
    assert not set(folder) & set('<>:"/\\|?*\0 ')
    assert folder not in {".", ".."}
    assert not folder.endswith(".")
    assert slug(name) == folder


def test_names_that_would_collide_get_a_suffix() -> None:
    assert len({slug("a b"), slug("a?b"), slug("a*b"), slug("a-b")}) == 4
    assert slug("con") != "con"
    assert slug("x" * 200) != slug("x" * 201)


def test_folders() -> None:
    root = Path("outputs")
    assert activations_folder(root, "digits", "hf:a/b", "layer[0]", "avg") == Path(
        "outputs/digits/hf-a-b/layer.0/activations/avg"
    )
    assert comparisons_folder(root, array_dataset("x.npy"), "x.npy", "y.npy", "rdx") == Path(
        "outputs/arrays/x.npy/comparisons/x.npy--y.npy/rdx"
    )


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("dino", "dino"),
        ("timm:vit_base_patch16_224.dino", "timm:vit_base_patch16_224.dino"),
        ("file:/data/w/birds.v2.safetensors?arch=timm:resnet50&mean=0.5", "birds.v2"),
        ("hf:facebook/dinov2-base", "hf:facebook/dinov2-base"),
        ("hf:/models/mine/", "mine"),
        ("lib/my_model.py:make?width=3", "my_model:make"),
    ],
)
def test_names_with_paths_are_shortened(name: str, short: str) -> None:
    assert short_name(name) == short
    assert model_slug(name).startswith(slug(short))
    assert (model_slug(name) == slug(name)) == (short == name)
