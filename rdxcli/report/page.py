"""A summary as a page that opens without a network: one shell for every kind.

What does not fit into view at first is packed in the page and unfolds when it is looked at: rows of long tables, cards
of items beyond the first, pictures, the points of the maps.
"""

from __future__ import annotations

import base64
import gzip
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from rdxcli.progress import log
from rdxcli.report.html import png_uri, render
from rdxcli.report.palette import NULL, concept_colours
from rdxcli.report.summary import Item, Maps, Section, Summary, Table, written
from rdxcli.report.text import clean

FEW = 8
"""Up to so many items stand side by side; more are a table beside the card of the chosen one."""

LONG = 60
"""Rows of a table that are written out; longer ones draw the rows in view."""

SENTENCE = 1000
"""Characters of a sentence in a notebook."""

LARGEST = 10_000_000
"""Bytes of a page; the pictures of a larger one go to a folder beside it."""


@dataclass(frozen=True)
class Images:
    """Pictures of samples.

    Parameters
    ----------
    uris : mapping
        Sample id to what an ``img`` shows: a ``data:`` URI, or a path from the page.
    sheets : sequence of str
        Sprite sheets of small square pictures, row by row.
    edge, across : int
        Pixels of a small picture; how many stand side by side.
    each : int
        How many are on a full sheet.
    places : sequence of int
        Row of the maps that each small picture shows, in their order on the sheets.
    """

    uris: Mapping[str, str] = field(default_factory=dict)
    sheets: Sequence[str] = ()
    edge: int = 0
    across: int = 1
    each: int = 1
    places: Sequence[int] = ()


def page(summary: Summary, images: Images | None = None, beside: bool = False) -> str:
    """The page of ``summary``.

    `images`: without a picture a sample is shown by its id; `beside`: the pictures are files beside the page.
    """
    images = images or Images()
    anchors = _anchors(summary)
    rows = {} if summary.maps is None else {str(sample): row for row, sample in enumerate(summary.maps.ids.tolist())}
    shared = {sample: place for place, sample in enumerate(images.uris)}
    return render(
        "page.html",
        beside="'self' file:" if beside else "",
        summary=summary,
        anchors=anchors,
        links={
            (section.part, str(item.key)): anchors[id(item)] for section in summary.sections for item in section.items
        },
        images=images.uris,
        shared=shared,
        sheet=list(images.uris.values()),
        rows=rows,
        few=FEW,
        long=LONG,
        packed_table=packed_table,
        matrix=matrix,
        colour=_colour,
        maps=None if summary.maps is None else map_data(summary.maps, images),
        command=next((value for name, value in summary.provenance if name == "command"), ""),
        heated=any(p.heat for s in summary.sections for i in s.items for p in i.pictures),
    )


def brief(summary: Summary, most: int = 20) -> str:
    """The tables that the terminal shows as HTML without style or script, for a notebook; foreign text is escaped."""
    parts = [f"<h4>{escape(clean(summary.title))}{f': {escape(summary.chip)}' if summary.chip else ''}</h4>"]
    for table in summary.printed():
        head = "".join(f"<th>{escape(column.name)}</th>" for column in table.columns)
        rows = [
            "".join(f"<td>{escape(written(v, c))}</td>" for v, c in zip(row, table.columns, strict=True))
            for row in table.rows[:most]
        ]
        parts.append(f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
        left_out = table.left_out + len(table.rows) - len(rows)
        parts += [f"<p>and {left_out:,} more</p>"] if left_out else []
    words = "".join(f"<li>{escape(clean(line, SENTENCE))}</li>" for line in (*summary.said, *summary.notes))
    return "".join([*parts, f"<ul>{words}</ul>"])


def _anchors(summary: Summary) -> dict[int, str]:
    """The id of every item in the page: that of the terminal, with what it is where that is a number or a name."""
    found: dict[int, str] = {}
    taken = {section.key for section in summary.sections} | {"verdict", "notes", "selection"}
    for section in summary.sections:
        for item in section.items:
            name = str(item.key) if section.noun == "concept" else f"{section.noun}-{item.key}"
            anchor = "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
            while anchor in taken:
                anchor += "-"
            taken.add(anchor)
            found[id(item)] = anchor
    return found


def _colour(section: Section, item: Item) -> str:
    """The colour of an item: that of its group in the maps, or its place."""
    count = max(1, min(len(section.items), 64))
    place = item.group[1] - 1 if item.group else next(i for i, one in enumerate(section.items) if one is item)
    return concept_colours(max(count, place + 1) if item.group else count)[place % count if not item.group else place]


def packed_table(table: Table, anchors: Sequence[str] = ()) -> dict[str, Any]:
    """A table for the script: cells as text, or as text and number; ``anchors`` are the ids of its rows."""
    rows = [[_cell(value, column) for value, column in zip(row, table.columns, strict=True)] for row in table.rows]
    return {"rows": rows, "anchors": list(anchors)}


def _cell(value: Any, column: Any) -> Any:
    text = written(value, column)
    if isinstance(value, tuple | list) and value:
        value = value[0]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return [text, value] if number and np.isfinite(value) else text


def map_data(maps: Maps, images: Images) -> dict[str, Any]:
    """Every row of both maps: packed coordinates (16 bits an axis), groups, ids, labels, neighbours, small pictures."""
    n = len(maps.ids)
    colours = {key: group_colours(group) for key, group in maps.groups.items()}
    names, codes = np.unique(maps.labels if maps.labels is not None else np.full(n, ""), return_inverse=True)
    data: dict[str, Any] = {
        "n": n,
        "ids": pack("\n".join(clean(sample) for sample in maps.ids.tolist())),
        "layouts": {
            name: {side: pack(np.rint(unit_square(points) * 65535)) for side, points in sides.items()}
            for name, sides in maps.placed.items()
        },
        "groups": {key: pack(np.clip(group, 0, len(colours[key]) - 1)) for key, group in maps.groups.items()},
        "colours": colours,
        "names": [clean(name) for name in names.tolist()],
        "labels": pack(codes),
        "sides": dict(maps.names),
    }
    if maps.shown is not None and maps.neighbours:
        data["shown"] = maps.shown.tolist()
        data["neighbours"] = {side: rows.tolist() for side, rows in maps.neighbours.items()}
    if images.sheets:
        data["sprites"] = {
            **{"sheets": list(images.sheets), "edge": images.edge, "across": images.across, "each": images.each},
            "places": pack(np.asarray(images.places)) if n <= 65536 else None,
        }
    return data


def group_colours(groups: np.ndarray) -> list[str]:
    """Colour of each group of a map: index 0 is that of no group."""
    return [NULL, *concept_colours(max(int(groups.max(initial=0)), 0))]


def pack(values: np.ndarray | str) -> str:
    """Text, or numbers as little-endian uint16: gzip, then base64. The page opens it without a library."""
    raw = values.encode() if isinstance(values, str) else np.ascontiguousarray(values).astype("<u2").tobytes()
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def unit_square(points: np.ndarray) -> np.ndarray:
    """Points of shape (n, 2) scaled to [0, 1]; outliers beyond the 0.5 % quantiles are drawn at the edge."""
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    return np.clip((points - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)


def matrix_pixels(values: np.ndarray) -> np.ndarray:
    """Colours (m, m, 3) of a difference matrix in [-1, 1]: negative (closer) blue, positive red."""
    scale = max(float(np.abs(values).max()), 1e-12)
    value = np.clip(values / scale, -1, 1)[..., None]
    white = np.array([247.0, 247.0, 247.0])
    blue, red = np.array([31.0, 95.0, 168.0]), np.array([178.0, 34.0, 34.0])
    return np.where(value < 0, white + (blue - white) * -value, white + (red - white) * value).astype(np.uint8)


def matrix(values: np.ndarray) -> Markup:
    """Picture of a difference matrix as a ``data:`` URI."""
    return png_uri(matrix_pixels(values))


def sprites(pictures: Mapping[int, Any], edge: int, across: int = 20) -> tuple[list[str], list[int]]:
    """Small pictures on sheets.

    Parameters
    ----------
    edge : int
        Pixels of each.
    across : int
        How many stand side by side; a sheet is square.

    Returns
    -------
    sheets : list of str
        ``data:`` URIs.
    places : list of int
        Rows, in their order on the sheets.
    """
    sheets, rows = [], list(pictures)
    for start in range(0, len(rows), across * across):
        part = rows[start : start + across * across]
        sheet = Image.new("RGB", (across * edge, -(-len(part) // across) * edge), "white")
        for place, row in enumerate(part):
            sheet.paste(pictures[row], ((place % across) * edge, (place // across) * edge))
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=72, method=4)
        sheets.append(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return sheets, rows


def write_page(summary: Summary, images: Images, temporary: Path, path: Path, whole: bool = False) -> list[Path]:
    """The page; the pictures of one that would be too large go to ``NAME.data`` beside it."""
    text = page(summary, images)
    folder = path.with_name(f"{path.stem}.data")
    if whole or len(text) <= LARGEST:
        temporary.write_text(text, "utf-8")
        return []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def put(number: int, uri: str) -> str:
        head, _, content = uri.partition(",")
        name = f"{number}.{'png' if 'png' in head else 'webp' if 'webp' in head else 'jpg'}"
        (folder / name).write_bytes(base64.b64decode(content))
        return quote(f"{folder.name}/{name}")

    uris = {sample: put(number, uri) for number, (sample, uri) in enumerate(images.uris.items())}
    sheets = [put(len(uris) + number, sheet) for number, sheet in enumerate(images.sheets)]
    text = page(summary, replace(images, uris=uris, sheets=sheets), beside=True)
    temporary.write_text(text, "utf-8")
    log.info("the pictures of this page are in %s: move both together", folder)
    return [folder]
