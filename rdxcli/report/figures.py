"""A comparison as one still picture (PNG, PDF or SVG) for papers and slides."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.report.comparison import _colours, unit_square, verdict_lines
from rdxcli.report.text import clean

PAGE = 6.9
"""Inches across a page of a paper."""

STYLE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "font.size": 7, "axes.titlesize": 7}
"""Fonts that journals take and programs can edit: outlines (Type 42) in PDF, text as text in SVG."""

DPI = 300


def comparison_figure(
    document: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    thumbnails: Mapping[str, str],
    path: Path,
    form: str,
    width: float = PAGE,
) -> None:
    """Draw a comparison: per direction the grids of its concepts and both maps, whose dots are vectors.

    Parameters
    ----------
    document, arrays, thumbnails
        As for `rdxcli.report.comparison.page`.
    path : Path
    form : {"png", "pdf", "svg"}
    width : float
        Inches; the height follows.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        _draw(document, arrays, thumbnails, width).savefig(path, dpi=DPI, format=form)


def _draw(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], thumbnails: Mapping[str, str], width: float
) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps = [side for side in ("a", "b") if f"map_{side}" in arrays]
    across = 3 if width < PAGE else max(3, min(5, max(2, int(document["k"])) + len(maps)))
    panels: dict[str, list[Any]] = {
        key: [*(c for c in document["concepts"] if c["closer_in"] == key), *maps] for key in ("a", "b")
    }
    rows = {key: -(-len(found) // across) for key, found in panels.items()}
    edge = width / across
    figure = Figure(figsize=(width, 0.75 + (edge + 0.34) * max(1, sum(rows.values()))), layout="constrained")
    FigureCanvasAgg(figure)
    a, b = (clean(document[side]["name"], 40) for side in ("a", "b"))
    head = [f"{a} (a) and {b} (b): {document['difference'].get('verdict', 'not tested')}", *verdict_lines(document)]
    figure.suptitle("\n".join(_wrapped(head, int(width * 15))), fontsize=7)
    axes = figure.subplots(max(1, sum(rows.values())), across, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    start = 0
    for key, found in panels.items():
        places = axes[start : start + rows[key]].flat
        start += rows[key]
        colours = _colours([one for one in found if not isinstance(one, str)])
        for axis, one in zip(places, found, strict=False):
            if isinstance(one, str):
                _map(axis, arrays, one, key, colours)
                axis.set_title(f"map of {one}, groups of {key}")
                continue
            axis.imshow(_montage([thumbnails.get(str(s)) for s in one["sample_ids"]]), interpolation="nearest")
            p_value = "" if one["p_value"] is None else f", p = {one['p_value']:.2g}"
            axis.set_title(f"{key}{one['index']}: n = {one['size']}{p_value}")
            axis.plot([0, 1], [1.0, 1.0], transform=axis.transAxes, color=colours[one["index"]], lw=2.5, clip_on=False)
    return figure


def _wrapped(lines: list[str], columns: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, columns)]


def _map(axis: Any, arrays: Mapping[str, np.ndarray], side: str, key: str, colours: list[str]) -> None:
    """Dots of one map, and a legend that says which colour is which concept."""
    points, labels = unit_square(arrays[f"map_{side}"]), arrays[f"labels_{key}"]
    for group, colour in enumerate(colours):
        own = np.minimum(labels, len(colours) - 1) == group
        name = f"{key}{group}" if group else "none"
        axis.scatter(*points[own].T, s=2 if group else 1, c=colour, linewidths=0, label=name)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=4, fontsize=6, frameon=False, markerscale=3,
                handletextpad=0.1, columnspacing=0.6)  # fmt: skip
    axis.set_aspect("equal", adjustable="datalim")


def _montage(uris: list[str | None], edge: int = 96) -> np.ndarray:
    """Thumbnails in a near-square grid as a uint8 array of shape (h, w, 3)."""
    from PIL import Image

    columns = int(np.ceil(np.sqrt(max(1, len(uris)))))
    rows = -(-max(1, len(uris)) // columns)
    sheet = Image.new("RGB", (columns * (edge + 4), rows * (edge + 4)), "white")
    for i, uri in enumerate(uris):
        tile = Image.new("RGB", (edge, edge), "#e8ebef")
        if uri is not None:
            picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
            picture.thumbnail((edge, edge))
            tile.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
        sheet.paste(tile, ((i % columns) * (edge + 4), (i // columns) * (edge + 4)))
    return np.asarray(sheet)
