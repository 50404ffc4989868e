"""From a template to a page that needs no network and runs no foreign code."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from rdxcli import __version__
from rdxcli.lazy import jinja2
from rdxcli.progress import human_count
from rdxcli.records import plain
from rdxcli.report.charts import draw
from rdxcli.report.summary import written
from rdxcli.report.text import clean, tail

SCRIPTS = {
    **{"store.js": "", "grid.js": "", "cards.js": ""},
    **{"maps.js": "map-data", "heatmaps.js": "cells", "patches.js": "patch-data"},
    "shell.js": "",
}
"""What a page runs, in this order: with the id of an element only where there is one."""

LONGEST = 4000
"""Characters of a foreign text in a page."""

HEAT = (213, 94, 0)
"""Colour of maps over images."""


_RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+(?:[ .-]+[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+)*"
)
"""Words that are written from the right."""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rdxcli.report"),
        autoescape=jinja2.select_autoescape(default=True, default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["written"] = written
    environment.filters["counted"] = human_count
    environment.filters["prose"] = prose
    environment.filters["tail"] = tail
    environment.filters["id"] = id  # of an object: items are told apart by identity
    environment.filters["script_json"] = script_json
    environment.filters["packed"] = packed
    environment.filters["heat"] = heat
    environment.filters["draw"] = draw
    return environment


def _shown(value: Any) -> Any:
    """Foreign text made visible; what this package wrote itself (markup) as it is."""
    return clean(value, LONGEST) if isinstance(value, str) and not hasattr(value, "__html__") else value


def prose(text: str) -> Markup:
    """Sentences: what stands between backticks is set as code, all else is text; names that are written from the right
    are set apart, so that the numbers after them stay where they are.
    """
    shown = clean(text, LONGEST)
    parts = [shown] if shown.count("`") % 2 else shown.split("`")
    kinds = [Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)]
    return Markup(_RIGHT_TO_LEFT.sub(r"<bdi>\g<0></bdi>", "".join(kinds)))


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a ``script`` element: nothing in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def packed(value: Any) -> Markup:
    """JSON as gzip in base64, which the page opens without a library."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return Markup(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())


def heat(values: Sequence[Sequence[float]], strength: float = 0.6) -> Markup:
    """A small map with values from 0 to 1 as one picture: the more, the less transparent."""
    alpha = np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0) * strength
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = HEAT, np.rint(255 * alpha)
    return png_uri(pixels)


def png_uri(pixels: np.ndarray) -> Markup:
    """Pixels (h, w, 3 or 4) uint8 as a ``data:`` URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return Markup(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def _lean(script: str) -> str:
    """A script without indentation and without lines that are comments: they are for those who read the source."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/**")))


def render(template: str, **values: Any) -> str:
    """The page of ``template``, with style sheet and scripts inside."""
    static = resources.files("rdxcli.report") / "static"
    style = Markup((static / "style.css").read_text("utf-8"))
    page = _environment().get_template(template)
    text = page.render(style=style, script="", version=__version__, **values)
    needed = [name for name, key in SCRIPTS.items() if not key or f'id="{key}"' in text]
    head, end, tail = text.rpartition("</script>")
    return head + "\n".join(_lean((static / name).read_text("utf-8")) for name in needed) + end + tail
