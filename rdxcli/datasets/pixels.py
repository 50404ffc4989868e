"""Images that a user holds as one array of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rdxcli.datasets.addresses import whole
from rdxcli.datasets.base import Dataset, folder_name, natural_ids
from rdxcli.datasets.files import with_options
from rdxcli.datasets.images import ArrayImages
from rdxcli.datasets.pixelrange import parse_range
from rdxcli.datasets.tables import read_values, require_file, split_pair
from rdxcli.datasets.words import texts_of
from rdxcli.errors import InputError, did_you_mean
from rdxcli.progress import human_count

_IMAGE_KEYS = ("images", "x", "data", "pixels", "x_test", "x_train")
_LABEL_KEYS = ("labels", "y", "label", "targets", "y_test", "y_train")


def array(text: str) -> Dataset:
    """``PATH.npy`` or ``PATH.npz[:key]``, optionally ``,LABELS``.

    Images have the shape (n, h, w), (n, h, w, c) or (n, c, h, w), and are scaled to uint8 (``?range=LOW,HIGH``). In an
    ``.npz`` without a key, the only array that can be images is taken, and a 1-D array called ``labels`` or ``y`` of
    the same length gives the labels. Raises `InputError` (wrong dtype or shape, unknown key (the message lists the
    keys), labels of another length).
    """
    text, options = with_options(text, ("range",))
    location, label_file = split_pair(text)
    archive, _, key = location.partition(".npz:")
    if key:
        location = archive + ".npz"
    path = require_file(location, "array of images")
    labels: list[str] | None = None
    try:
        if path.suffix == ".npy":
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as content:
                images, labels = _from_archive(path, content, key)
        else:
            raise InputError(f"{path}: cannot read images from `{path.suffix}`", "use .npy or .npz")
    except InputError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {(str(error).splitlines() or ['damaged'])[0]}") from None
    source = ArrayImages(images, path.name, parse_range(options["range"]) if "range" in options else None)
    if label_file:
        labels = read_values(label_file, _LABEL_KEYS, "labels")
    if labels is not None and len(labels) != len(source):
        raise InputError(f"{path}: got {human_count(len(source), 'image')} but {human_count(len(labels), 'label')}")
    return Dataset(
        name=folder_name(location) + (f"-{key}" if key else ""),
        spec=f"array:{whole(location)}"
        + (f":{key}" if key else "")
        + (f",{whole(label_file)}" if label_file else "")
        + (f"?range={options['range']}" if options else ""),
        source=source,
        sample_ids=natural_ids(len(source)),
        labels=labels,
    )


def _from_archive(path: Path, content: np.lib.npyio.NpzFile, key: str) -> tuple[np.ndarray, list[str] | None]:
    if key:
        if key not in content.files:
            raise InputError(
                f"{path}: no array `{key}`; keys are: {', '.join(content.files)}",
                did_you_mean(key, content.files),
            )
        images = content[key]
    else:
        named = [name for name in content.files if name.lower() in _IMAGE_KEYS]
        candidates = named or [name for name in content.files if content[name].ndim in (3, 4)]
        if len(candidates) != 1:
            raise InputError(
                f"{path}: {human_count(len(candidates), 'array')} could be the images; keys are: "
                f"{', '.join(content.files)}",
                f"write `array:{path}:KEY`",
            )
        images = content[candidates[0]]
    for name in content.files:
        if name.lower() in _LABEL_KEYS and content[name].shape == images.shape[:1]:
            return images, texts_of(content[name])
    return images, None
