"""Which numbers of a deep image are black and white: by its type and its content, stated, or refused.

Pillow clips what does not fit 8 bits: a scientific TIFF of 0..1 becomes black, one of 0..65535 white. The range is
found once for all images of a source, from the same sample of them: a dim picture stays dim, and it does not matter
which picture comes first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rdxcli.errors import InputError, UsageError
from rdxcli.progress import log

_HOW = "; `?range=LOW,HIGH` says what is black and white"
_BITS = (8, 10, 12, 14, 16)
_LOOKED_AT = 512  # headers
_DECODED = 32  # images of one type


@dataclass(frozen=True)
class PixelRange:
    """Pixel values that become 0 and 255."""

    low: float
    high: float

    def scale(self, values: np.ndarray) -> np.ndarray:
        """``values`` as uint8; values outside are clipped. Whole powers of two lose their low bits, as in Pillow."""
        if self.low == 0 and values.dtype.kind in "iu" and self.high in [2**bits - 1 for bits in _BITS]:
            return (np.clip(values, 0, int(self.high)) >> (int(self.high).bit_length() - 8)).astype(np.uint8)
        share = (values.astype(np.float64) - self.low) / (self.high - self.low)
        return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def parse_range(text: str) -> PixelRange:
    """``LOW,HIGH`` or ``HIGH``."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    low, high = (0.0, numbers[0]) if len(numbers) == 1 else numbers if len(numbers) == 2 else (0.0, 0.0)
    if not high > low or not np.isfinite([low, high]).all():
        raise UsageError(f"range: got `{text}`, expected the values of black and white, like `0,4095`")
    return PixelRange(low, high)


def range_of(values: np.ndarray, name: str) -> PixelRange:
    """The range of one array of pixels.

    Raises `InputError` (it cannot be known: negative values, values beyond 65,535, nothing but 0 and 1, NaN or
    infinity).
    """
    low, high, whole = _extent(values)
    return _decide(low, high, whole, values.dtype.kind == "f", name)


def kind_of(image: Image.Image) -> str | None:
    """``float``, ``16-bit`` or ``32-bit`` for images that do not fit 8 bits, else None."""
    if image.mode == "F":
        return "float"
    if image.mode.startswith("I"):
        return "16-bit" if "16" in image.mode else "32-bit"
    return None


class Ranges:
    """The ranges of a source's deep images, found when the first one is met.

    Parameters
    ----------
    count : int
        Images of the source.
    raw : callable
        ``raw(row)`` gives the decoded image in its own mode.
    given : PixelRange, optional
        What a person says; nothing is looked at then.
    """

    def __init__(self, count: int, raw: Callable[[int], Image.Image], given: PixelRange | None = None) -> None:
        self.count, self.raw, self.given = count, raw, given
        self._found: dict[str, tuple[PixelRange | None, str]] = {}
        self._lock = threading.Lock()

    def eight_bits(self, image: Image.Image) -> Image.Image:
        """``image``, with deep pixels scaled to 8 bits.

        Raises `InputError` (the range of its pixels cannot be known).
        """
        kind = kind_of(image)
        if kind is None:
            return image.copy() if getattr(image, "fp", None) is not None else image
        values = np.asarray(image)
        if self.given is not None:
            return Image.fromarray(self.given.scale(values))
        low, high, whole = _extent(values)
        with self._lock:
            if kind not in self._found:
                self._found[kind] = self._look(kind)
        wanted, why = self._found[kind]
        if wanted is None and why:
            raise InputError(why)
        own = wanted or _decide(low, high, whole, kind == "float", f"this {kind} image")
        if low < own.low or high > own.high * 1.0001:
            raise InputError(
                f"its values go from {low:g} to {high:g}, those of other {kind} images from {own.low:g} to {own.high:g}"
                f"{_HOW}"
            )
        if kind == "float" and 0 < high <= 1 < own.high and not whole:
            raise InputError(
                f"its values go up to {high:g}, those of other float images to {own.high:g}: its range is not known"
                f"{_HOW}"
            )
        return Image.fromarray(own.scale(values))

    def taken(self) -> dict[str, str]:
        """``LOW,HIGH`` of each kind that was met, or of all when it was given."""
        if self.given is not None:
            return {"given": f"{self.given.low:g},{self.given.high:g}"}
        return {kind: f"{found.low:g},{found.high:g}" for kind, (found, _) in self._found.items() if found is not None}

    def _look(self, kind: str) -> tuple[PixelRange | None, str]:
        """The range that fits a sample of the images of one kind, which depends on the source alone."""
        step = max(1, self.count // _LOOKED_AT)
        extents = []
        for row in range(0, self.count, step):
            try:
                image = self.raw(row)
                if kind_of(image) == kind:
                    extents.append(_extent(np.asarray(image)))
            except Exception:
                continue
            if len(extents) == _DECODED:
                break
        if not extents:
            return None, ""
        low, high = min(e[0] for e in extents), max(e[1] for e in extents)
        try:
            found = _decide(low, high, all(e[2] for e in extents), kind == "float", f"{kind} images")
        except InputError as error:
            return None, error.message
        log.warning(
            "%s images: values from %g to %g in %d of them; %g is taken as black and %g as white "
            "(`?range=LOW,HIGH` says otherwise)",
            kind,
            low,
            high,
            len(extents),
            found.low,
            found.high,
        )
        return found, ""


def _extent(values: np.ndarray) -> tuple[float, float, bool]:
    """Least value, largest value, whether all are whole."""
    if values.size == 0:
        raise InputError("the image is empty")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise InputError("its pixels hold NaN or infinity")
    whole = values.dtype.kind in "iub" or bool(np.all(values == np.floor(values)))
    return low, high, whole


def _decide(low: float, high: float, whole: bool, is_float: bool, name: str) -> PixelRange:
    seen = f"{name}: the pixel values go from {low:g} to {high:g}"
    if low < 0 or high > 65535:
        raise InputError(f"{seen}, which is no known range{_HOW}")
    if is_float and high <= 1.0001 and not (whole and high == 0):
        return PixelRange(0, 1)
    if high == 1:
        raise InputError(f"{seen}: nothing but 0 and 1, which is a mask or nearly black{_HOW}")
    if whole:
        return next(PixelRange(0, 2**bits - 1) for bits in _BITS if high < 2**bits)
    return PixelRange(0, 255 if high <= 255 else 65535)
