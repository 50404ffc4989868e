"""Where images come from: files or one array. A source decodes an image when asked for and keeps none."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rdxcli.datasets.addresses import Place, ask_all
from rdxcli.datasets.pixelrange import PixelRange, Ranges, range_of
from rdxcli.datasets.words import escaped, is_utf8
from rdxcli.errors import InputError, without_passwords
from rdxcli.places import cache_root
from rdxcli.progress import log

CONTENT_LIMIT = 128 * 2**20
"""Bytes up to which files are fingerprinted by content; larger sets by size and modification time."""

# what Pillow remarks about palettes and EXIF says nothing about the pixels
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_LARGEST = 2**30  # bytes of one image
_MANY = 1000  # files from which on a fingerprint of their content is kept
_QUIET = 2_000_000_000  # nanoseconds: what changed so shortly before may change again within one tick of its clock
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

    waits: bool = False
    """Whether reading waits for a server, so that many threads are better than few."""
    _ranges: Ranges | None = None
    pixels: PixelRange | None = None
    """The range of deep pixels, when a person has said it (``?range=0,4095``)."""

    @abstractmethod
    def __len__(self) -> int: ...

    def raw(self, row: int) -> Image.Image:
        """Decoded image in its own mode and size; a source defines this or `image`.

        Raises `Exception` (anything, when the image is missing or broken; callers record the message and go on).
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
        found = [_stat(self.paths[row]) for row in rows]
        digest = hashlib.sha256(repr(self.pixels).encode() if self.pixels is not None else b"")
        if sum(-1 if f is None else f.st_size for f in found) > CONTENT_LIMIT:
            for f in found:
                digest.update(b"-1:-1\n" if f is None else f"{f.st_size}:{f.st_mtime_ns}\n".encode())
            return {"by": "size and time", "sha256": digest.hexdigest()}
        memory = self._memory(rows, found) if len(found) >= _MANY else None
        if memory is not None:
            with suppress(OSError, UnicodeDecodeError):
                kept = memory.read_text("ascii")
                if len(kept) == 64:
                    return {"by": "content", "sha256": kept}
        for row, f in zip(rows, found, strict=True):
            try:
                if f is None:
                    raise OSError
                with open(self.paths[row], "rb") as stream:
                    digest.update(hashlib.sha256(stream.read()).digest())
            except OSError:
                digest.update(b"unreadable\n")
        if memory is not None:
            with suppress(OSError):
                memory.parent.mkdir(parents=True, exist_ok=True)
                temporary = memory.with_name(f"{memory.name}.{os.getpid()}.tmp")
                temporary.write_text(digest.hexdigest(), "ascii")
                os.replace(temporary, memory)
        return {"by": "content", "sha256": digest.hexdigest()}

    def _memory(self, rows: np.ndarray, found: Sequence[os.stat_result | None]) -> Path | None:
        """Where the fingerprint of these files is kept: named by all that the disk knows of them, the time of their
        entries included, which cannot be set back. None when one of them has changed just now.
        """
        stamps = hashlib.sha256(repr(self.pixels).encode())
        newest = 0
        for row, f in zip(rows, found, strict=True):
            if f is None:
                return None
            newest = max(newest, f.st_mtime_ns, f.st_ctime_ns)
            text = f"\0{f.st_size}:{f.st_mtime_ns}:{f.st_ctime_ns}:{f.st_ino}:{f.st_dev}\0"
            stamps.update(os.fsencode(self.paths[row]) + text.encode())
        if newest > time.time_ns() - _QUIET:
            return None
        return cache_root() / "fingerprints" / stamps.hexdigest()[:32]


def _stat(path: str) -> os.stat_result | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


class PlaceImages(ImageSource):
    """Image files of which some are not on this machine, or lie in an archive; they are read when asked for.

    Parameters
    ----------
    pixels : PixelRange, optional
        Of deep images.
    """

    waits = True

    def __init__(self, places: Sequence[Place], pixels: PixelRange | None = None) -> None:
        self.places, self.pixels = list(places), pixels

    def __len__(self) -> int:
        return len(self.places)

    def raw(self, row: int) -> Image.Image:
        place = self.places[row]
        if place.known is not None and (place.size or 0) > _LARGEST:
            raise InputError(f"{place.text}: {place.size} bytes, expected an image")
        return decode(io.BytesIO(place.read()))

    def location(self, row: int) -> str | None:
        return without_passwords(self.places[row].text)

    def fingerprint(self, rows: np.ndarray) -> dict[str, Any]:
        chosen = [self.places[row] for row in rows]
        ask_all(chosen)
        digest = hashlib.sha256(repr(self.pixels).encode() if self.pixels is not None else b"")
        how = "version"
        for place in chosen:
            try:
                version = place.version
                if version is None:
                    how, version = "content", hashlib.sha256(place.read()).hexdigest()
                digest.update(f"{version}\n".encode())
            except (InputError, OSError):
                digest.update(b"unreadable\n")
        return {"by": how, "sha256": digest.hexdigest()}


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

    Raises `InputError`: colours of 12 bits in 16, of which Pillow would keep the upper 4; bytes that are no image.
    """
    try:
        opened = Image.open(file)
    except UnidentifiedImageError:
        if isinstance(file, str | Path):
            raise
        raise InputError("cannot identify an image in these bytes") from None  # Pillow names a place in memory
    with opened as image:
        deep = image.mode in ("RGB", "RGBA") and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        image.load()
        if deep:
            top = int(np.asarray(image)[..., :3].max())
            if 0 < top < 16:
                raise InputError(
                    "16-bit colours that stay below 4096: 12 bits in 16 cannot be told from a dark picture", "scale it"
                )
        return image.copy() if getattr(image, "fp", None) is not None else image
