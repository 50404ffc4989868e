"""From a picture to a model's input tensor, described completely by plain numbers.

Every library's preprocessing is translated into one `Preprocessing`, which repeats that library's arithmetic exactly
(tests compare the tensors). Only transformers' processors stay what they are, in `ProcessorTransform`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rdxcli.errors import InputError, UsageError
from rdxcli.lazy import torch
from rdxcli.models.grammar import literal
from rdxcli.progress import human_count
from rdxcli.records import plain

if TYPE_CHECKING:
    from torch import Tensor

    Transform = Callable[[Image.Image], Tensor]

OPTIONS = (
    "preprocess",
    "mode",
    "input_size",
    "resize",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "scale",
    "mean",
    "std",
)
"""Options of a model's name that belong to the preprocessing; all others go to the network's constructor."""

PRESETS: dict[str, dict[str, str]] = {
    "imagenet": {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"},
    "half": {"mean": "0.5", "std": "0.5"},
    "clip": {"mean": "0.48145466,0.4578275,0.40821073", "std": "0.26862954,0.26130258,0.27577711"},
    "unit": {"mean": "0", "std": "1"},
}
_LARGE = 16 * 2**20  # pixels of a resized picture beyond which only the part that is kept is computed
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_CROP_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale, normalise.

    Parameters
    ----------
    input_size : (int, int)
        Height and width of the tensor, pixels.
    resize : {"shortest", "squash", "longest"}
        What ``resize_to`` fixes: the shorter side (aspect ratio kept), both sides, or the longer side (then padded).
    resize_to : (int, int)
        Height and width; for ``shortest`` with a square target its side.
    interpolation : str
        Pillow filter; shrinking is always antialiased.
    mode : {"RGB", "L"}
        Pillow mode the picture is converted to: 3 or 1 channels.
    scale : float
        Pixel values 0..255 are divided by this.
    mean, std : tuple of float, one per channel
        Applied after scaling.
    fill : int or tuple of int
        Colour of padding, 0..255.
    """

    input_size: tuple[int, int] = (224, 224)
    resize: str = "shortest"
    resize_to: tuple[int, int] = (256, 256)
    interpolation: str = "bilinear"
    mode: str = "RGB"
    scale: float = 255.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fill: int | tuple[int, ...] = 0

    @property
    def channels(self) -> int:
        return 1 if self.mode == "L" else 3

    def describe(self) -> dict[str, Any]:
        """Plain fields, for manifests."""
        return {"kind": "rdx", **{key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}}

    def __call__(self, image: Image.Image) -> Tensor:
        """Tensor of shape (c, h, w), float32."""
        image = image if image.mode == self.mode else image.convert(self.mode)
        image = _centre(self._resized(image), self.input_size)
        tensor = torch.from_numpy(np.array(image)).reshape(image.height, image.width, self.channels).permute(2, 0, 1)
        mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (self.mean, self.std))
        return tensor.to(torch.float32).div(self.scale).sub_(mean).div_(std)

    def _resized(self, image: Image.Image) -> Image.Image:
        filter_ = Image.Resampling[self.interpolation.upper()]
        height, width = self.resize_to if self.resize == "squash" else self._size_of(image)
        if self.resize != "squash" and height * width > _LARGE:
            return _cut(image, (height, width), self.input_size, filter_)
        image = image.resize((width, height), filter_)
        if self.resize != "longest":
            return image
        down, right = max(0, self.input_size[0] - image.height), max(0, self.input_size[1] - image.width)
        padded = Image.new(image.mode, (image.width + right, image.height + down), self._fill_colour(image.mode))
        padded.paste(image, (right // 2, down // 2))
        return padded

    def _size_of(self, image: Image.Image) -> tuple[int, int]:
        """Height and width of the whole picture after the resize; no side vanishes, however thin the picture is."""
        height, width = self.resize_to
        if self.resize == "shortest" and height == width:  # torchvision rounds the longer side down
            short, long = min(image.size), max(image.size)
            long = int(height * long / short)
            return (long, height) if image.height > image.width else (height, long)
        pick = max if self.resize == "longest" else min
        ratio = pick(image.height / height, image.width / width)
        return max(1, round(image.height / ratio)), max(1, round(image.width / ratio))

    def _fill_colour(self, mode: str) -> Any:
        if isinstance(self.fill, list | tuple):
            return tuple(self.fill)
        return self.fill if mode == "L" else (self.fill,) * 3


def _centre(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of a picture, as torchvision cuts it; black where the picture is smaller than that."""
    top, left = _first(image.height, size[0]), _first(image.width, size[1])
    return image.crop((left, top, left + size[1], top + size[0]))


def _first(whole: int, kept: int) -> int:
    """Where the middle begins; below 0 where more is kept than there is."""
    return round((whole - kept) / 2.0) if whole >= kept else -((kept - whole) // 2)


def _cut(image: Image.Image, size: tuple[int, int], crop: tuple[int, int], filter_: Any) -> Image.Image:
    """The middle of ``image`` as it were resized to ``size`` whole: only the part that is kept is computed.

    Parameters
    ----------
    size : (int, int)
        Height and width of the whole picture after the resize.
    crop : (int, int)
        Height and width that are kept; a side that is smaller stays as it is.
    """
    edges = []
    for whole, kept, length in zip(size, crop, (image.height, image.width), strict=True):
        first = max(0, round((whole - kept) / 2.0))  # where torchvision's centre crop begins
        last = min(whole, first + kept)
        edges.append((first * length / whole, last * length / whole, last - first))
    (top, bottom, height), (left, right, width) = edges
    return image.resize((width, height), filter_, box=(left, top, right, bottom))


def cut_labels(how: Preprocessing, labels: np.ndarray) -> np.ndarray:
    """The pixels of a label map that a model sees, by nearest neighbours: the geometry of ``how`` and nothing else.

    Parameters
    ----------
    labels : (h, w) int or (c, h, w) bool array
        As large as the picture.

    Returns
    -------
    (h', w') int64 or (c, h', w') bool of the model's input size
        Padding is -1, or False.
    """
    binary = labels.ndim == 3
    # shifted by one, so that the zeros of padding become -1
    tensor = torch.as_tensor(labels.astype(np.int32) if binary else labels[None].astype(np.int32) + 1)
    height, width = how.resize_to
    if how.resize == "squash":
        size = [height, width]
    else:
        pick = max if how.resize == "longest" else min
        ratio = pick(tensor.shape[-2] / height, tensor.shape[-1] / width)
        size = [max(1, round(tensor.shape[-2] / ratio)), max(1, round(tensor.shape[-1] / ratio))]
    tensor = torch.nn.functional.interpolate(tensor[None].float(), size, mode="nearest-exact")[0]
    shown = tensor.to(torch.bool if binary else torch.int64).numpy()
    cut = np.zeros((len(shown), *how.input_size), dtype=shown.dtype)
    source, target = [slice(None)], [slice(None)]
    for whole, kept in zip(shown.shape[1:], how.input_size, strict=True):
        first = _first(whole, kept)
        source.append(slice(max(0, first), max(0, first) + kept))
        target.append(slice(max(0, -first), max(0, -first) + min(whole, kept)))
    cut[tuple(target)] = shown[tuple(source)]
    return cut if binary else cut[0] - 1


def seen_part(how: Preprocessing, height: int, width: int) -> tuple[float, float, float, float]:
    """The part of a picture that a model sees: (top, left, bottom, right) in shares of its height and width.

    Below 0 or above 1 where the input is padded. Rounding to whole pixels is left out. `height`, `width`: of the
    picture, pixels.
    """
    if how.resize == "squash":
        size: tuple[float, float] = how.resize_to
    else:
        pick = max if how.resize == "longest" else min
        ratio = pick(height / how.resize_to[0], width / how.resize_to[1])
        size = (height / ratio, width / ratio)
    high, wide = how.input_size[0] / size[0], how.input_size[1] / size[1]
    return (1 - high) / 2, (1 - wide) / 2, (1 + high) / 2, (1 + wide) / 2


def override(base: Preprocessing, options: Mapping[str, str]) -> Preprocessing:
    """``base`` with the options of a model's name put over it.

    Raises `UsageError` if a value cannot be used.

    Parameters
    ----------
    options : mapping of str to str
        Keys of `OPTIONS`; others are ignored. A changed ``input_size`` keeps the ratio of crop and resize unless
        ``crop_pct`` or ``resize`` say otherwise.
    """
    given = {key: options[key] for key in OPTIONS if key in options}
    preset = given.pop("preprocess", None)
    if preset is not None:
        if preset not in PRESETS:
            raise UsageError(
                f"unknown preprocessing: `{preset}`", hint="expected " + ", ".join(f"`{name}`" for name in PRESETS)
            )
        given = {**PRESETS[preset], **given}
    if "mode" in given:
        base = _with_mode(base, given["mode"])
    if "interpolation" in given:
        base = replace(base, interpolation=_choice("interpolation", given["interpolation"], _INTERPOLATIONS))
    if "crop_mode" in given:
        base = replace(base, resize=_CROP_MODES[_choice("crop_mode", given["crop_mode"], tuple(_CROP_MODES))])
    base = _with_sizes(base, given)
    if "scale" in given:
        base = replace(base, scale=_numbers("scale", given["scale"], 1, positive=True)[0])
    if "mean" in given:
        base = replace(base, mean=_numbers("mean", given["mean"], base.channels))
    if "std" in given:
        base = replace(base, std=_numbers("std", given["std"], base.channels, positive=True))
    return base


def _with_mode(base: Preprocessing, mode: str) -> Preprocessing:
    mode = _choice("mode", mode, ("RGB", "L"))
    channels = 1 if mode == "L" else 3
    if channels == base.channels:
        return replace(base, mode=mode)
    mean, std = sum(base.mean) / len(base.mean), sum(base.std) / len(base.std)
    return replace(base, mode=mode, mean=(mean,) * channels, std=(std,) * channels)


def _with_sizes(base: Preprocessing, given: Mapping[str, str]) -> Preprocessing:
    size = _size("input_size", given["input_size"]) if "input_size" in given else base.input_size
    if "resize" in given:
        to = _size("resize", given["resize"])
        # two numbers fix both sides, one fixes the shorter side
        kind = base.resize if "crop_mode" in given else ("squash" if "," in given["resize"] else "shortest")
        return replace(base, input_size=size, resize=kind, resize_to=to)
    if "crop_pct" in given:
        share = _numbers("crop_pct", given["crop_pct"], 1, positive=True)[0]
        to = (math.floor(size[0] / share), math.floor(size[1] / share))
    elif size != base.input_size:
        scaled = [round(new * old / crop) for new, old, crop in zip(size, base.resize_to, base.input_size, strict=True)]
        to = (scaled[0], scaled[1])
    else:
        to = base.resize_to
    return replace(base, input_size=size, resize_to=to)


def _choice(key: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"got `{key}={value}`, expected " + " or ".join(f"`{name}`" for name in known))
    return value


def _numbers(key: str, value: str, count: int, positive: bool = False) -> tuple[float, ...]:
    parsed = literal(value)
    parts = parsed if isinstance(parsed, tuple) else (parsed,)
    valid = all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts)
    if not valid or len(parts) not in (1, count) or (positive and min(parts) <= 0):
        wanted = "one number" if count == 1 else f"one number or {count} separated by commas"
        raise UsageError(f"got `{key}={value}`, expected {wanted}" + (" above zero" if positive else ""))
    return tuple(float(part) for part in (parts * count if len(parts) == 1 else parts))


def _size(key: str, value: str) -> tuple[int, int]:
    parsed = literal(value)
    parts = parsed if isinstance(parsed, tuple) else (parsed, parsed)
    if len(parts) != 2 or not all(isinstance(part, int) and not isinstance(part, bool) and part > 0 for part in parts):
        raise UsageError(f"got `{key}={value}`, expected pixels, `224` or `HEIGHT,WIDTH`")
    return int(parts[0]), int(parts[1])


def from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """timm's evaluation transform of a resolved data config (``timm.data.create_transform(**config)``)."""
    channels, height, width = config["input_size"]
    share = config["crop_pct"] or 0.875
    mean, std = tuple(map(float, config["mean"])), tuple(map(float, config["std"]))
    return Preprocessing(
        input_size=(height, width),
        resize=_CROP_MODES[config.get("crop_mode") or "center"],
        resize_to=(math.floor(height / share), math.floor(width / share)),
        interpolation=config["interpolation"],
        mode="L" if channels == 1 else "RGB",
        mean=mean,
        std=std,
        fill=tuple(round(255 * value) for value in mean) if config.get("crop_mode") == "border" else 0,
    )


def from_torchvision(preset: Any) -> Preprocessing:
    """torchvision's classification preset (``WEIGHTS.transforms()``)."""
    (crop,), resize = preset.crop_size, preset.resize_size
    return Preprocessing(
        input_size=(crop, crop),
        resize="shortest" if len(resize) == 1 else "squash",
        resize_to=(resize[0], resize[-1]),
        interpolation=preset.interpolation.value,
        mean=tuple(map(float, preset.mean)),
        std=tuple(map(float, preset.std)),
    )


def from_open_clip(config: Mapping[str, Any]) -> Preprocessing:
    """open_clip's evaluation transform of a ``PreprocessCfg``."""
    size = config["size"]
    size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    return Preprocessing(
        input_size=size,
        resize=config["resize_mode"],
        resize_to=size,
        interpolation=config["interpolation"],
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        fill=config.get("fill_color", 0),
    )


class ProcessorTransform:
    """A transformers image processor as a transform of one picture."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        """Tensor of shape (c, h, w), float32."""
        pixels = self.processor(self._trimmed(image.convert("RGB")), return_tensors="pt")["pixel_values"]
        if pixels.ndim != 4 or len(pixels) != 1:
            raise InputError(
                f"the image processor returns pixel values of shape {tuple(pixels.shape)}, expected one image"
            )
        return pixels[0]

    def _trimmed(self, image: Image.Image) -> Image.Image:
        """The middle of a very thin picture: the processor would resize all of it before it cuts the middle out."""
        size = getattr(self.processor, "size", None) or {}
        get = size.get if hasattr(size, "get") else lambda key: getattr(size, key, None)
        short, long = min(image.size), max(image.size)
        edge = get("shortest_edge")
        if not edge or get("longest_edge") or edge * edge * long / short <= _LARGE:
            return image
        if not getattr(self.processor, "do_center_crop", False):
            raise InputError(
                f"a picture of {image.width} x {human_count(image.height, 'pixel')} is too thin for this processor"
            )
        kept = short * 8
        first = (long - kept) // 2
        box = (0, first, short, first + kept) if image.height > image.width else (first, 0, first + kept, short)
        return image.crop(box)

    def describe(self) -> dict[str, Any]:
        """The processor's own settings, for manifests."""
        kept = (str, int, float, bool, list, tuple, dict)
        settings = {key: plain(v) for key, v in self.processor.to_dict().items() if isinstance(v, kept)}
        return {"kind": "transformers", **settings}
