"""Small pictures that live inside the page."""

from __future__ import annotations

import base64
import io

from PIL import Image

EDGE = 128
"""Longest edge of a thumbnail in pixels."""


def plain(image: Image.Image) -> Image.Image:
    """``image`` in grey or RGB, on white where it is transparent."""
    if image.mode in ("L", "RGB"):
        return image
    image = image.convert("RGBA" if "A" in image.mode or image.info.get("transparency") is not None else "RGB")
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image


def square(image: Image.Image, edge: int) -> Image.Image:
    """The centred square of ``image`` at ``edge`` pixels; pixels of small images stay visible."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    how = Image.Resampling.NEAREST if side * 4 <= edge else Image.Resampling.BOX
    return plain(image).convert("RGB").resize((edge, edge), how, (left, top, left + side, top + side))


def data_uri(image: Image.Image, edge: int = EDGE) -> str:
    """``image`` as a ``data:`` URI no larger than ``edge`` pixels.

    Photographs become JPEG. Images that are smaller than a quarter of ``edge`` (digits, icons) are enlarged by a whole
    factor without smoothing and stored as PNG, so that their pixels stay visible.
    """
    image = plain(image)
    longest = max(image.size)
    buffer = io.BytesIO()
    if longest * 4 <= edge:
        factor = edge // longest
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image = image.copy()
        image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=85, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
