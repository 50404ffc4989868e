"""A comparison as one still picture (PNG or PDF) for papers and slides."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.report.comparison import _colours, unit_square, verdict_lines


def comparison_figure(
    document: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    thumbnails: Mapping[str, str],
    path: Path,
    form: str,
) -> None:
    """Draw a comparison: per direction the grids of its concepts and both maps.

    Parameters
    ----------
    document, arrays, thumbnails
        As for `rdxcli.report.comparison.page`.
    path : Path
    form : {"png", "pdf"}
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    concepts = {key: [c for c in document["concepts"] if c["closer_in"] == key] for key in ("a", "b")}
    columns = max(1, *(len(chosen) for chosen in concepts.values())) + 2
    figure = Figure(figsize=(2.6 * columns, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    lines = [
        f"{document['a']['name']} and {document['b']['name']}: {document['difference'].get('verdict', 'not tested')}"
    ]
    figure.suptitle("\n".join([*lines, *verdict_lines(document)]), fontsize=10)
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (key, chosen) in enumerate(concepts.items()):
        for axis in axes[row]:
            axis.set_axis_off()
        colours = _colours(chosen)
        for axis, concept in zip(axes[row], chosen, strict=False):
            axis.imshow(_montage([thumbnails.get(str(s)) for s in concept["sample_ids"]]), interpolation="nearest")
            axis.set_title(
                f"alike for {document[key]['name']}\nconcept {concept['index']}, n = {concept['size']}"
                + ("" if concept["affinity"] is None else f", affinity {concept['affinity']:.1f}"),
                fontsize=8,
                color=colours[concept["index"]],
            )
        for axis, side in zip(axes[row, -2:], ("a", "b"), strict=True):
            if f"map_{side}" not in arrays:
                continue
            points, labels = unit_square(arrays[f"map_{side}"]), arrays[f"labels_{key}"]
            order = np.argsort(labels > 0, kind="stable")
            axis.scatter(
                *points[order].T, s=3, c=[colours[min(k, len(colours) - 1)] for k in labels[order]], linewidths=0
            )
            axis.set_title(f"map of {document[side]['name']}", fontsize=8)
    figure.savefig(path, dpi=160, format=form)


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
