"""Small pictures that live inside the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

EDGE = 128
"""Longest edge of a thumbnail in pixels."""


def data_uri(image: Image.Image, edge: int = EDGE) -> str:
    """``image`` as a ``data:`` URI no larger than ``edge`` pixels.

    Photographs become JPEG. Images that are smaller than a quarter of ``edge`` (digits, icons) are enlarged by a whole
    factor without smoothing and stored as PNG, so that their pixels stay visible.
    """
    from PIL import Image as Pillow

    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA" if "A" in image.mode or image.info.get("transparency") is not None else "RGB")
        if image.mode == "RGBA":
            white = Pillow.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            image = white
    longest = max(image.size)
    buffer = io.BytesIO()
    if longest * 4 <= edge:
        factor = edge // longest
        image = image.resize((image.width * factor, image.height * factor), Pillow.Resampling.NEAREST)
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image = image.copy()
        image.thumbnail((edge, edge), Pillow.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=85, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
