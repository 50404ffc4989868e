"""Preprocessing repeats each library's own arithmetic to the last bit, and obeys overrides."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from rdxcli.errors import UsageError
from rdxcli.models.preprocessing import (
    OPTIONS,
    Preprocessing,
    cut_labels,
    from_open_clip,
    from_timm,
    from_torchvision,
    override,
)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(3, 64, 64), (3, 48, 72)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_same_tensor_as_timm(picture, crop_mode, size, interpolation):
    from timm.data import create_transform

    config = {
        "input_size": size,
        "interpolation": interpolation,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.25),
        "crop_pct": 0.9,
        "crop_mode": crop_mode,
    }
    for image in (picture, picture.transpose(Image.Transpose.ROTATE_90)):
        torch.testing.assert_close(from_timm(config)(image), create_transform(**config)(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [64, (48, 72)])
def test_same_tensor_as_open_clip(picture, resize_mode, size):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size=size, resize_mode=resize_mode, fill_color=9)
    wanted = image_transform_v2(config, is_train=False)(picture)
    torch.testing.assert_close(from_open_clip(vars(config))(picture), wanted, rtol=0, atol=1e-6)


def test_same_tensor_as_torchvision(picture):
    from torchvision.models import ResNet50_Weights, ViT_L_16_Weights

    for weights in (ResNet50_Weights.IMAGENET1K_V2, ViT_L_16_Weights.IMAGENET1K_V1):
        preset = weights.transforms()
        torch.testing.assert_close(from_torchvision(preset)(picture), preset(picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 31), (50, 9), (64, 64)])
def test_the_middle_is_where_torchvision_cuts_it(picture, size):
    from torchvision.transforms.functional import center_crop, pil_to_tensor

    for shape in ((33, 40), (20, 64), (9, 70)):
        image = picture.resize(shape)
        how = Preprocessing(size, "squash", shape[::-1], scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
        wanted = center_crop(image, list(size))
        assert torch.equal(how(image), pil_to_tensor(wanted).float())
        labels = np.asarray(image.convert("L")).astype(np.int64)
        found = cut_labels(how, labels)
        assert np.array_equal(np.maximum(found, 0), np.asarray(center_crop(image.convert("L"), list(size))))
        assert np.array_equal(found < 0, cut_labels(how, np.ones((1, *labels.shape), dtype=bool))[0] == 0)


def test_no_picture_needs_torchvision():
    """It takes two seconds to load, most of them for operators of detectors."""
    code = (
        "import sys\nimport numpy as np\nfrom PIL import Image\n"
        "from rdxcli.models.preprocessing import Preprocessing, cut_labels\n"
        "for resize in ('shortest', 'squash', 'longest'):\n"
        "    how = Preprocessing((8, 8), resize, (9, 9))\n"
        "    assert how(Image.new('RGB', (20, 12))).shape == (3, 8, 8)\n"
        "    assert cut_labels(how, np.zeros((12, 20), dtype=int)).shape == (8, 8)\n"
        "assert 'torchvision' not in sys.modules and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_kind_of_picture_gives_three_channels(picture, mode):
    tensor = Preprocessing(input_size=(32, 32), resize_to=(36, 36))(picture.convert(mode))
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.float32
    assert torch.isfinite(tensor).all()


def test_grey_mode_scale_and_normalisation_by_hand():
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    raw = Preprocessing((4, 4), "squash", (4, 4), mode="L", scale=1.0, mean=(0.5,), std=(0.5,))
    np.testing.assert_allclose(raw(image).numpy(), ((np.arange(16) - 0.5) / 0.5).reshape(1, 4, 4))


def test_tiny_and_narrow_pictures_are_resized_too():
    for size in ((1, 1), (1, 300), (300, 1)):
        assert Preprocessing((32, 32), resize_to=(36, 36))(Image.new("RGB", size)).shape == (3, 32, 32)


def test_description_rebuilds_the_transform(picture):
    first = override(Preprocessing(), {"input_size": "48", "crop_mode": "border", "preprocess": "clip"})
    fields = first.describe()
    assert fields.pop("kind") == "rdx"
    again = Preprocessing(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})
    assert again == first
    torch.testing.assert_close(copy.deepcopy(first)(picture), again(picture))


def test_overrides():
    base = Preprocessing()
    assert override(base, {}) == base
    assert override(base, {"unrelated": "1"}) == base
    half = override(base, {"mean": "0.5", "std": "0.5"})
    assert (half.mean, half.std) == ((0.5,) * 3, (0.5,) * 3)
    bigger = override(base, {"input_size": "448"})
    assert (bigger.input_size, bigger.resize_to) == ((448, 448), (512, 512))
    assert override(base, {"input_size": "200", "crop_pct": "1"}).resize_to == (200, 200)
    assert override(base, {"resize": "300,200"}).resize == "squash"
    assert override(base, {"preprocess": "half", "std": "0.25"}).std == (0.25,) * 3
    grey = override(base, {"mode": "L"})
    assert (grey.channels, len(grey.mean), len(grey.std)) == (1, 1, 1)
    assert set(OPTIONS) >= {"mean", "std", "input_size", "resize", "crop_pct", "preprocess"}


@pytest.mark.parametrize(
    "option",
    [
        "mean=a", "mean=1,2", "std=0", "std=-1", "input_size=0", "input_size=1.5", "input_size=1,2,3", "crop_pct=x",
        "interpolation=cubic", "crop_mode=middle", "mode=HSV", "scale=0", "preprocess=mine", "mean=true",
    ],
)  # fmt: skip
def test_impossible_overrides_are_refused(option):
    key, _, value = option.partition("=")
    with pytest.raises(UsageError, match=value):
        override(Preprocessing(), {key: value})
