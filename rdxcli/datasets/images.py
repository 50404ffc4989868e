"""Where images come from: files or one array. A source decodes an image when asked for and keeps none."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

CONTENT_LIMIT = 128 * 2**20
"""Bytes up to which files are fingerprinted by content; larger sets by size and modification time."""


class ImageSource(ABC):
    """Images by row number. Must be safe to read from several threads at once."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, row: int) -> Image.Image:
        """Decoded image in its own mode and size.

        Raises
        ------
        Exception
            Anything, when the image is missing or broken; callers record the message and go on.
        """

    @abstractmethod
    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        """``{"by": how, "sha256": digest}`` of these rows; changes whenever an image of theirs changes."""

    def location(self, row: int) -> str | None:
        """Where the image is, for people: a path, or None."""
        return None


class FileImages(ImageSource):
    """Image files, one per row.

    Parameters
    ----------
    paths : sequence of Path
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.paths = [Path(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, row: int) -> Image.Image:
        return open_image(self.paths[row])

    def location(self, row: int) -> str | None:
        return str(self.paths[row])

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        sizes, times = [], []
        for row in rows:
            try:
                stat = os.stat(self.paths[row])
            except OSError:
                sizes.append(-1)
                times.append(-1)
            else:
                sizes.append(stat.st_size)
                times.append(stat.st_mtime_ns)
        digest = hashlib.sha256()
        by_content = sum(sizes) <= CONTENT_LIMIT
        for row, size, time in zip(rows, sizes, times, strict=True):
            if not by_content:
                digest.update(f"{size}:{time}\n".encode())
                continue
            try:
                digest.update(hashlib.sha256(self.paths[row].read_bytes()).digest())
            except OSError:
                digest.update(b"unreadable\n")
        return {"by": "content" if by_content else "size and time", "sha256": digest.hexdigest()}


class ArrayImages(ImageSource):
    """Images in one uint8 array, which may be memory-mapped.

    Parameters
    ----------
    images : ndarray of shape (n, h, w) or (n, h, w, c), uint8
        Grey, grey with alpha (c = 2), RGB (3) or RGBA (4).
    name : str
        For error messages.
    """

    def __init__(self, images: np.ndarray, name: str = "images") -> None:
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (2, 3, 4)):
            raise InputError(
                f"{name}: got an array of shape {images.shape}, expected images of shape (n, h, w) or (n, h, w, c)",
                "channels come last and are 1, 2, 3 or 4",
            )
        if images.dtype != np.uint8:
            raise InputError(
                f"{name}: got dtype {images.dtype}, expected uint8", "store pixels as integers from 0 to 255"
            )
        if 0 in images.shape[1:]:
            raise InputError(f"{name}: got empty images of shape {images.shape[1:]}")
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int) -> Image.Image:
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(self.images[row]))

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(str(self.images.shape[1:]).encode())
        for start in range(0, len(rows), 4096):
            digest.update(np.ascontiguousarray(self.images[rows[start : start + 4096]]).data)
        return {"by": "content", "sha256": digest.hexdigest()}


def open_image(path: Path | str) -> Image.Image:
    """Decode an image file completely. 16-bit images are scaled to 8 bits; EXIF rotation is not applied, as in the
    loaders with which the published models were trained and evaluated.
    """
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return eight_bits(image)


def eight_bits(image: Image.Image) -> Image.Image:
    """``image``, with 16- and 32-bit integer pixels scaled to 8 bits (Pillow's own conversion clips them)."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    return image.copy() if getattr(image, "fp", None) is not None else image
