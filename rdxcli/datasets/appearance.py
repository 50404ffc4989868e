"""What can be measured of a picture without a model: brightness, contrast, colour, sharpness, size, margins, quality.

Every measurement is made at a fixed scale (at most 256 pixels a side), so that large and small copies of a picture
agree in all but their size.

References: Hasler and Suesstrunk, "Measuring colourfulness in natural images", 2003; the scaling of the tables of the
JPEG standard (annex K) by the library of the Independent JPEG Group.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from PIL import Image

from rdxcli.datasets.base import Dataset
from rdxcli.numerics.threads import map_in_threads
from rdxcli.progress import track

SIDE = 256
COLOURS = 64  # pixels a side from which colours are taken
SMALL = 16  # pixels a side of what is compared for near-duplicates
ALIKE = 0.99  # correlation of two small grey pictures from which on they are near-duplicates
ONE_COLOUR = 10  # grey levels that a margin may vary by

PROPERTIES = {
    "brightness": "mean luma, 0 black to 1 white",
    "contrast": "standard deviation of the luma",
    "colourfulness": "Hasler and Suesstrunk's, 0 for grey pictures",
    "sharpness": "standard deviation of the Laplacian over that of the luma",
    "megapixels": "width times height",
    "aspect": "width over height",
    "border": "share of the picture in margins of one colour",
    "JPEG quality": "from 1 to 100, from the quantisation table; unknown for other files",
    "near-duplicates": "other pictures that are nearly the same",
}
"""What is measured, and what it means."""

_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def measure(dataset: Dataset, rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Properties of some pictures of a data set.

    Parameters
    ----------
    rows : sequence of int
        Samples; -1 for one that the data set does not have.

    Returns
    -------
    dict of str to (len(rows),) float64
        The keys of `PROPERTIES`; NaN where a picture cannot be read.
    """

    def one(row: int) -> tuple[list[float], np.ndarray] | None:
        if row < 0:
            return None
        try:
            return look(dataset.image(int(row)))
        except MemoryError:
            raise
        except Exception:  # a broken picture is unknown, as it is for everything that reads pictures
            return None

    names = [name for name in PROPERTIES if name != "near-duplicates"]
    values = np.full((len(rows), len(names)), np.nan)
    small = np.zeros((len(rows), SMALL * SMALL), dtype=np.float32)
    readable = np.zeros(len(rows), dtype=bool)
    with track("measure pictures", len(rows), "images") as advance:
        for place, found in enumerate(map_in_threads(one, rows)):
            if found is not None:
                values[place], small[place], readable[place] = found[0], found[1], True
            advance(1)
    out = {name: values[:, place] for place, name in enumerate(names)}
    out["near-duplicates"] = np.where(readable, _near_duplicates(small), np.nan)
    return out


def seconds_of_one(dataset: Dataset, tries: int = 4) -> float | None:
    """CPU seconds of a look at one picture, from a few of them; None when none of these can be read."""
    took = []
    for row in np.linspace(0, len(dataset) - 1, min(tries, len(dataset))).astype(int):
        begun = time.process_time()
        with suppress(Exception):
            look(dataset.image(int(row)))
            took.append(time.process_time() - begun)
    return float(np.median(took)) if took else None  # the first one loads the decoder


def look(image: Image.Image) -> tuple[list[float], np.ndarray]:
    """The properties of one picture but near-duplicates, in their order, and its small copy of mean 0 and length 1."""
    width, height = image.size
    quality = jpeg_quality(image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB").convert("RGB")
    if max(width, height) > SIDE:
        scale = SIDE / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    spread = float(grey.std())
    colours = 0.0
    if image.mode == "RGB":
        red, green, blue = np.moveaxis(np.asarray(image.resize((COLOURS, COLOURS)), dtype=np.float32), 2, 0)
        first, second = red - green, (red + green) / 2.0 - blue
        colours = float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))
    small = np.asarray(Image.fromarray(grey).resize((SMALL, SMALL), Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    values = [
        float(grey.mean()) / 255.0,
        spread / 255.0,
        colours,
        _laplacian(grey) / spread if spread > 0.0 else np.nan,
        width * height / 1e6,
        width / height,
        margins(grey),
        quality,
    ]
    return values, small / length if length > 1.0 else np.zeros_like(small)


def _laplacian(grey: np.ndarray) -> float:
    """Standard deviation of the Laplacian of a picture."""
    if min(grey.shape) < 3:
        return 0.0
    inner = 4.0 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(inner.std())


def margins(grey: np.ndarray) -> float:
    """Share of a picture that lies in margins of one colour, on any of its sides."""
    inside = []
    for lines in (grey, grey.T):
        low, high = lines.min(axis=1), lines.max(axis=1)
        flat = high - low <= ONE_COLOUR
        # A margin ends where its colour does, too.
        from_start = int(np.argmin(np.append(flat & (np.abs(low - low[0]) <= ONE_COLOUR), False)))
        from_end = int(np.argmin(np.append((flat & (np.abs(low - low[-1]) <= ONE_COLOUR))[::-1], False)))
        inside.append(max(0, len(lines) - from_start - from_end) / len(lines))
    return 1.0 - inside[0] * inside[1]


def jpeg_quality(image: Image.Image) -> float:
    """The quality with which a JPEG was written, from its first quantisation table; NaN for other pictures."""
    tables = getattr(image, "quantization", None)
    if not tables:
        return float("nan")
    table = np.asarray(tables[min(tables)], dtype=np.float64)
    if table.shape != _LUMINANCE.shape:
        return float("nan")
    # The order in the table differs between versions of Pillow; a mean over sorted entries does not.
    scale = 100.0 * float(np.sort(table).sum() / np.sort(_LUMINANCE).sum())
    return float(round(np.clip((200.0 - scale) / 2.0 if scale <= 100.0 else 5000.0 / scale, 1.0, 100.0)))


def _near_duplicates(small: np.ndarray) -> np.ndarray:
    """How many other pictures correlate by more than `ALIKE`: (n,) float64."""
    counts = np.empty(len(small))
    for start in range(0, len(small), 1024):
        counts[start : start + 1024] = (small[start : start + 1024] @ small.T > ALIKE).sum(axis=1)
    return counts - np.any(small != 0.0, axis=1)
