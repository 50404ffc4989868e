"""MNIST-style idx files (format: http://yann.lecun.com/exdb/mnist), plain or gzip-compressed.

An idx file starts with two zero bytes, a type code, the number of dimensions, and each dimension as a big-endian
uint32. Only unsigned bytes (code 8) occur in image sets. Plain files are memory-mapped.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from rdxcli.datasets.addresses import whole
from rdxcli.datasets.base import Dataset, folder_name, natural_ids
from rdxcli.datasets.images import ArrayImages
from rdxcli.datasets.tables import require_file, split_pair
from rdxcli.download.catalogue import get
from rdxcli.download.store import Home
from rdxcli.errors import InputError, MissingDataError
from rdxcli.progress import human_count

_UNSIGNED_BYTE = 8


def idx(text: str) -> Dataset:
    """``IMAGES[.gz][,LABELS[.gz]]``."""
    image_file, label_file = split_pair(text)
    path = require_file(image_file, "idx file of images")
    images = read_idx(path)
    if images.ndim != 3:
        raise InputError(
            f"{path}: got {human_count(images.ndim, 'dimension')} {images.shape}, expected images (n, h, w)"
        )
    labels = _labels(require_file(label_file, "idx file of labels"), len(images)) if label_file else None
    return Dataset(
        name=folder_name(image_file),
        spec=f"idx:{whole(image_file)}" + (f",{whole(label_file)}" if label_file else ""),
        source=ArrayImages(images, path.name),
        sample_ids=natural_ids(len(images)),
        labels=labels,
    )


def mnist(root: Path) -> Dataset:
    """MNIST as its four idx files below ``root`` (``mnist``, ``MNIST/raw`` ...), with splits ``train`` and ``test``.

    A folder with one split only will do. Ids are ``train/00000`` ... as the images stand in the files.
    """
    found = find_mnist(root)
    if found is None:
        raise MissingDataError(f"mnist is not in {root}", "rdx download mnist")
    arrays, ids, labels, splits = [], [], [], []
    for split, (image_file, label_file) in found.items():
        images = read_idx(image_file)
        if images.ndim != 3:
            raise InputError(f"{image_file}: got shape {images.shape}, expected images (n, h, w)")
        arrays.append(images)
        ids += [f"{split}/{i:05d}" for i in range(len(images))]
        labels += _labels(label_file, len(images))
        splits += [split] * len(images)
    return Dataset(
        name="mnist",
        spec="mnist",
        source=ArrayImages(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), "mnist"),
        sample_ids=ids,
        labels=labels,
        class_names=[str(digit) for digit in range(10)],
        splits=splits,
    )


def find_mnist(root: Path) -> dict[str, tuple[Path, Path]] | None:
    """Image and label file of each split below ``root``, or None."""
    downloaded = Home(root, get("mnist")).content()
    places = [root / name for name in ("mnist", "mnist/raw", "MNIST/raw", "mnist/MNIST/raw", "mnist_data/MNIST/raw")]
    for folder in [downloaded, *places] if downloaded is not None else places:
        found = {}
        for split, prefix in (("train", "train"), ("test", "t10k")):
            pair = [_present(folder / f"{prefix}-{part}") for part in ("images-idx3-ubyte", "labels-idx1-ubyte")]
            if pair[0] is not None and pair[1] is not None:
                found[split] = (pair[0], pair[1])
        if found:
            return found
    return None


def read_idx(path: Path) -> np.ndarray:
    """Array of an idx file of unsigned bytes; memory-mapped when it is not compressed.

    Raises `InputError` (not an idx file, another type, or fewer bytes than the header promises).
    """
    compressed = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or not 1 <= head[3] <= 4:
                raise InputError(f"{path} is not an idx file (it starts with {head.hex(' ') or 'nothing'})")
            if head[2] != _UNSIGNED_BYTE:
                raise InputError(f"{path}: got idx type 0x{head[2]:02x}, expected unsigned bytes (0x08)")
            sizes = stream.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise InputError(f"{path} ends inside its header")
            shape = struct.unpack(f">{head[3]}I", sizes)
            expected = math.prod(shape)
            if compressed:
                data = stream.read(expected + 1)
                if len(data) != expected:
                    raise InputError(f"{path}: the header promises {expected} bytes of shape {shape}, got {len(data)}")
                return np.frombuffer(data, np.uint8).reshape(shape)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {(str(error).splitlines() or ['damaged'])[0]}") from None
    held = path.stat().st_size - 4 - 4 * head[3]
    if held != expected:
        raise InputError(f"{path}: the header promises {expected} bytes of shape {shape}, got {held}")
    if expected == 0:
        raise InputError(f"{path} holds no items")
    return np.memmap(path, np.uint8, "r", offset=4 + 4 * head[3], shape=shape)


def _labels(path: Path, expected: int) -> list[str]:
    labels = read_idx(path)
    if labels.shape != (expected,):
        raise InputError(f"{path}: got labels of shape {labels.shape} for {human_count(expected, 'image')}")
    return [str(label) for label in labels.tolist()]


def _present(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(path.name + ".gz")) if file.is_file()), None)
