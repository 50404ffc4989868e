"""From a template to a page that needs no network and runs no foreign code."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from rdxcli import __version__
from rdxcli.records import plain
from rdxcli.report.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment


HEAT = (213, 94, 0)
"""Colour of maps over images."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rdxcli.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["percent"] = lambda value: "-" if value is None else f"{100 * value:.0f} %"
    environment.filters["script_json"] = script_json
    environment.filters["packed"] = packed
    environment.filters["heat"] = heat
    return environment


def number(value: Any) -> str:
    """A number as people read it: three significant digits, ``-`` for a missing one."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return clean(value)


def script_json(value: Any) -> Any:
    """JSON that may stand inside a ``script`` element: nothing in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def packed(value: Any) -> str:
    """JSON as gzip in base64, which the page opens without a library."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def heat(values: Sequence[Sequence[float]], strength: float = 0.75) -> str:
    """A small map with values from 0 to 1 as one picture: the more, the less transparent."""
    from PIL import Image

    alpha = np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0) * strength
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = HEAT, np.rint(255 * alpha)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(template: str, **values: Any) -> str:
    """The page of ``template``, with style sheet and scripts inside."""
    static = resources.files("rdxcli.report") / "static"
    style = Markup((static / "style.css").read_text("utf-8"))
    scripts = ("maps.js", "cards.js", "heatmaps.js", "patches.js")
    script = Markup("\n".join((static / name).read_text("utf-8") for name in scripts))
    page = _environment().get_template(template)
    return page.render(style=style, script=script, version=__version__, **values)
