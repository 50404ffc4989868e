"""Where images come from: files or one array. A source decodes an image when asked for and keeps none."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from rdxcli.datasets.pixelrange import PixelRange, Ranges, range_of
from rdxcli.datasets.words import escaped, is_utf8
from rdxcli.errors import InputError
from rdxcli.progress import log

CONTENT_LIMIT = 128 * 2**20
"""Bytes up to which files are fingerprinted by content; larger sets by size and modification time."""

# what Pillow remarks about palettes and EXIF says nothing about the pixels
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class ImageSource(ABC):
    """Images by row number. Must be safe to read from several threads at once.

    A kind of source says how `raw` pixels are read; what becomes of deep ones is the same for all.
    """

    _ranges: Ranges | None = None
    pixels: PixelRange | None = None
    """The range of deep pixels, when a person has said it (``?range=0,4095``)."""

    @abstractmethod
    def __len__(self) -> int: ...

    def raw(self, row: int) -> Image.Image:
        """Decoded image in its own mode and size; a source defines this or `image`.

        Raises
        ------
        Exception
            Anything, when the image is missing or broken; callers record the message and go on.
        """
        if type(self).image is ImageSource.image:
            raise TypeError(f"{type(self).__name__} gives no images: it defines neither `raw` nor `image`")
        return self.image(row)

    def image(self, row: int) -> Image.Image:
        """Decoded image in its own mode and size; deep pixels are scaled, see `rdxcli.datasets.pixelrange`."""
        if self._ranges is None:
            self._ranges = Ranges(len(self), self.raw, self.pixels)
        return self._ranges.eight_bits(self.raw(row))

    @property
    def ranges(self) -> dict[str, str]:
        """``LOW,HIGH`` that was taken as black and white, by kind of deep pixels; of the images read so far."""
        return {} if self._ranges is None else self._ranges.taken()

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
    paths : sequence of Path or str
    pixels : PixelRange, optional
        Of deep images.
    """

    def __init__(self, paths: Sequence[Path | str], pixels: PixelRange | None = None) -> None:
        self.paths = [os.fspath(path) for path in paths]
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.paths)

    def raw(self, row: int) -> Image.Image:
        path = self.paths[row]
        if not is_utf8(path):
            raise InputError(f"{escaped(path)}: its name is not UTF-8; rename it, for example with convmv")
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, expected an image")
        return decode(path)

    def location(self, row: int) -> str | None:
        return self.paths[row] if is_utf8(self.paths[row]) else None

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        sizes, times = [], []
        for row in rows:
            try:
                found = os.stat(self.paths[row])
            except OSError:
                found = None
            if found is None or not stat.S_ISREG(found.st_mode):
                sizes.append(-1)
                times.append(-1)
            else:
                sizes.append(found.st_size)
                times.append(found.st_mtime_ns)
        digest = hashlib.sha256(repr(self.pixels).encode() if self.pixels is not None else b"")
        by_content = sum(sizes) <= CONTENT_LIMIT
        for row, size, time in zip(rows, sizes, times, strict=True):
            if not by_content:
                digest.update(f"{size}:{time}\n".encode())
                continue
            try:
                if size < 0:
                    raise OSError
                with open(self.paths[row], "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
            except OSError:
                digest.update(b"unreadable\n")
        return {"by": "content" if by_content else "size and time", "sha256": digest.hexdigest()}


class ArrayImages(ImageSource):
    """Images in one array, which may be memory-mapped.

    Parameters
    ----------
    images : ndarray of shape (n, h, w), (n, h, w, c) or (n, c, h, w)
        Grey, grey with alpha (c = 2), RGB (3) or RGBA (4); channels first for 1 or 3 of them only. Other types than
        uint8 are scaled, see `rdxcli.datasets.pixelrange`.
    name : str
        For error messages.
    pixels : PixelRange, optional
        Of other types than uint8.
    """

    def __init__(self, images: np.ndarray, name: str = "images", pixels: PixelRange | None = None) -> None:
        if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 2, 3, 4):
            images = images.transpose(0, 2, 3, 1)
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (2, 3, 4)):
            raise InputError(
                f"{name}: got an array of shape {images.shape}, expected images of shape (n, h, w) or (n, h, w, c)",
                "channels come last and are 1, 2, 3 or 4",
            )
        if 0 in images.shape[1:]:
            raise InputError(f"{name}: got empty images of shape {images.shape[1:]}")
        self.pixels = pixels
        if images.dtype != np.uint8 and pixels is None and len(images):
            self.pixels = _array_range(images, name)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def raw(self, row: int) -> Image.Image:
        values = np.ascontiguousarray(self.images[row])
        if values.dtype != np.uint8:
            assert self.pixels is not None  # set in __init__
            values = self.pixels.scale(values)
        return Image.fromarray(values)

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        digest = hashlib.sha256(str(self.images.shape[1:]).encode())
        if self.pixels is not None:
            digest.update(f"{self.images.dtype}{self.pixels!r}".encode())
        for start in range(0, len(rows), 4096):
            digest.update(np.ascontiguousarray(self.images[rows[start : start + 4096]]).data)
        return {"by": "content", "sha256": digest.hexdigest()}


def _array_range(images: np.ndarray, name: str) -> PixelRange:
    if images.dtype.kind not in "fiu" or not images.any():
        raise InputError(f"{name}: got dtype {images.dtype}, expected uint8", "store pixels as integers from 0 to 255")
    found = range_of(images, name)
    log.warning("%s: %s, %g is taken as black and %g as white", name, images.dtype, found.low, found.high)
    return found


def decode(file: str | Path | IO[bytes]) -> Image.Image:
    """Decode an image file completely, in its own mode. EXIF rotation is not applied, as in the loaders with which the
    published models were trained and evaluated. Of several frames the first is taken.

    Raises
    ------
    InputError
        Colours of 12 bits in 16, of which Pillow would keep the upper 4.
    """
    with Image.open(file) as image:
        deep = image.mode in ("RGB", "RGBA") and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        image.load()
        if deep:
            top = int(np.asarray(image)[..., :3].max())
            if 0 < top < 16:
                raise InputError(
                    "16-bit colours that stay below 4096: 12 bits in 16 cannot be told from a dark picture", "scale it"
                )
        return image.copy() if getattr(image, "fp", None) is not None else image
