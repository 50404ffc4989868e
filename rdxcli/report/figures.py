"""A summary as one still picture (PNG, PDF or SVG) for papers and slides."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rdxcli.lazy import matplotlib, matplotlib_agg
from rdxcli.progress import human_count, human_p
from rdxcli.report.charts import histogram, stack
from rdxcli.report.html import HEAT
from rdxcli.report.page import group_colours, matrix_pixels, unit_square
from rdxcli.report.palette import NULL, concept_colours
from rdxcli.report.summary import Chart, Heat, Item, Maps, Section, Summary, Table, written
from rdxcli.report.text import clean

WIDTHS = {"column": 3.3, "page": 6.9}
"""Inches of a figure across one column of a paper, and across a page."""

STYLE: Any = {
    **{"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"},
    **{"font.size": 7, "axes.titlesize": 7, "xtick.labelsize": 6, "ytick.labelsize": 6, "axes.labelsize": 6},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6},
}
"""Fonts that journals take and programs can edit: outlines (Type 42) in PDF, text as text in SVG."""

DPI = 300
MOST_ITEMS = 12
"""Items of a section that are drawn; concepts are drawn all."""
ROWS = 16
"""Rows of a table that is drawn because there is nothing else."""


def figure(summary: Summary, uris: Mapping[str, str], path: Path, form: str, width: float = WIDTHS["page"]) -> None:
    """Draw a summary: what was found in words, then groups, units or images, maps and charts.

    Parameters
    ----------
    uris : mapping
        Sample id to ``data:`` URI.
    form : {"png", "pdf", "svg"}
    width : float
        Inches; the height follows.
    """
    with matplotlib.rc_context(STYLE):
        _draw(summary, uris, width).savefig(path, dpi=DPI, format=form)


def _panels(summary: Summary) -> tuple[list[list[tuple[Any, ...]]], list[str]]:
    """Rows of panels, each a function and its arguments; and what is left out, in words."""
    drawings = [drawing for section in summary.sections for drawing in section.drawings]
    heats = [(_heat, drawing.title, drawing.heat) for drawing in drawings if drawing.heat is not None]
    if heats:  # a picture of its own
        return [[*heats]], []
    groups: list[list[tuple[Any, ...]]] = []
    left_out = []
    for section in summary.sections:
        if section.folded:
            continue
        group: list[tuple[Any, ...]] = []
        if section.printed or not summary.sections[0].items:
            items = section.items if section.noun == "concept" else section.items[:MOST_ITEMS]
            group += [(_item, section, item) for item in items]
            if len(items) < len(section.items):
                left_out.append(f"{len(items)} of {len(section.items)} {section.title.lower()} are drawn")
        if section.maps and summary.maps is not None:
            placed = summary.maps.placed.items()
            group += [(_map, summary.maps, name, side, section.maps) for name, sides in placed for side in sides]
            if section.matrix is not None:
                group.append((_matrix, section.matrix, section.maps))
        group += [(_chart, chart) for chart in section.charts if any(len(line) for line in chart.series.values())]
        if group:
            groups.append(group)
    if not groups:
        groups = [[(_table, table)] for table in list(summary.printed())[:1] or []]
        left_out += [f"{human_count(min(len(g[0][1].rows), ROWS), 'row')} of the table are drawn" for g in groups]
    return groups, left_out


def _draw(summary: Summary, uris: Mapping[str, str], width: float) -> Any:
    groups, left_out = _panels(summary)
    widest = max((len(group) for group in groups), default=1)
    wide = all(panel[0] is _table for group in groups for panel in group)
    hot = [panel[2].colours.shape for group in groups for panel in group if panel[0] is _heat]
    barred = any(panel[0] is _item and _is_bars(panel[2]) for group in groups for panel in group)
    most = (2, 4) if barred else (3, 6 if widest == 6 else 5)  # bars need room for their names
    across = 1 if wide else max(2, min(most[width >= WIDTHS["page"]], widest))
    across = across if not hot else 2 if width >= WIDTHS["page"] else 1
    rows = [-(-len(group) // across) for group in groups]
    edge = width / across
    panel_high = 0.14 * ROWS + 0.3 if wide else edge + 0.34
    if hot:
        panel_high = 0.8 * edge * min(1.0, hot[0][0] / hot[0][1]) + 0.9
    high = panel_high * max(1, sum(rows))
    title = clean(summary.title[:1].upper() + summary.title[1:], 160)
    head = [title, *([summary.chip] if summary.chip else []), *map(clean, summary.said[:4]), *left_out]
    lines = [part for line in head for part in textwrap.wrap(line, int(width * 17))]
    drawn = matplotlib.figure.Figure(figsize=(width, 0.25 + 0.12 * len(lines) + high), layout="constrained")
    matplotlib_agg.FigureCanvasAgg(drawn)
    drawn.suptitle("\n".join(lines), fontsize=7)
    axes = drawn.subplots(max(1, sum(rows)), across, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    start = 0
    for group, count in zip(groups, rows, strict=True):
        for axis, (paint, *what) in zip(axes[start : start + count].flat, group, strict=False):
            paint(axis, uris, *what)
        start += count
    return drawn


def _is_bars(item: Item) -> bool:
    """Whether the bars of an item are drawn: it has one picture or none."""
    return len(item.pictures) <= 1 and bool(item.bars)


def _inches(axis: Any) -> float:
    """Width of the column of panels that a panel is in."""
    return float(axis.figure.get_figwidth() / axis.get_subplotspec().get_gridspec().ncols)


def _wrapped(axis: Any, text: str, points: float, most: int = 3) -> str:
    """Text in lines that fit the panel, the last one cut."""
    lines = textwrap.wrap(text, max(8, int(_inches(axis) * 105 / points)))
    return "\n".join([*lines[: most - 1], lines[most - 1] + " ..."] if len(lines) > most else lines)


def _item(axis: Any, uris: Mapping[str, str], section: Section, item: Item) -> None:
    """The pictures of an item; its bars where it has one picture or none."""
    place = next(i for i, one in enumerate(section.items) if one is item)
    index = item.group[1] - 1 if item.group else place
    colour = concept_colours(index + 1)[index]
    size = next((v for v, c in zip(item.values, section.columns, strict=False) if c.name in ("size", "images")), None)
    p_value = next((v for v, c in zip(item.values, section.columns, strict=False) if c.name == "p"), None)
    facts = ([f"n = {size}"] if size is not None else []) + ([f"p {human_p(p_value)}"] if p_value is not None else [])
    facts += ["uncertain"] if item.doubtful and section.noun == "concept" else []
    title = ": ".join([clean(item.title, 60), ", ".join(facts)] if facts else [clean(item.title, 60)])
    axis.set_title(_wrapped(axis, title, 7, 2))
    if _is_bars(item):
        colour = colour if section.noun == "concept" else concept_colours(1)[0]
        axis.set_axis_on()
        bars = item.bars[:8][::-1]
        axis.barh(
            [clean(bar.label, 22) for bar in bars],
            [bar.value for bar in bars],
            color=[colour if bar.value >= 0 else "#b22222" for bar in bars],
        )
        axis.set_xlim(min(0.0, *(bar.value for bar in bars)), max(section.longest, 1e-9))
        if item.pictures and item.pictures[0].sample_id in uris:
            corner = axis.inset_axes((0.62, 0.0, 0.38, 0.38))
            corner.imshow(_montage(item, uris))
            corner.set_axis_off()
        return
    if item.pictures:
        axis.imshow(_montage(item, uris), interpolation="nearest", alpha=0.5 if item.doubtful else 1.0)
        axis.plot([0, 1], [1.0, 1.0], transform=axis.transAxes, color=colour, lw=2.5, clip_on=False)
        if item.text and section.noun != "concept":
            axis.text(0.5, -0.02, _wrapped(axis, clean(item.text, 120), 6), transform=axis.transAxes,
                      ha="center", va="top", fontsize=6)  # fmt: skip
        return
    axis.text(0.5, 0.5, _wrapped(axis, clean(item.text or item.status, 160), 7, 6), ha="center", va="center")


def _map(axis: Any, uris: Mapping[str, str], maps: Maps, layout: str, side: str, key: str) -> None:
    """Dots of one map, and a legend that says which colour is which concept."""
    points, groups = unit_square(maps.placed[layout][side]), maps.groups[key]
    for group, colour in enumerate(group_colours(groups)):
        own = groups == group
        if own.any():
            name = f"{key}{group}" if group else "none"
            axis.scatter(*points[own].T, s=2 if group else 1, c=colour, linewidths=0, label=name)
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=4 if _inches(axis) > 1.2 else 2,
        fontsize=6,
        frameon=False,
        markerscale=3,
        handletextpad=0.1,
        columnspacing=0.6,
    )
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_title(_wrapped(axis, f"{layout} of {side}, groups of {key}", 7))


def _matrix(axis: Any, uris: Mapping[str, str], values: np.ndarray, key: str) -> None:
    axis.imshow(matrix_pixels(values), interpolation="nearest")
    axis.set_title(_wrapped(axis, f"differences, ordered by groups of {key}", 7))


def _chart(axis: Any, uris: Mapping[str, str], chart: Chart) -> None:
    axis.set_axis_on()
    axis.set_title(_wrapped(axis, clean(chart.title, 90), 7))
    axis.set_xlabel(clean(chart.x, 40))
    axis.set_ylabel(clean(chart.y, 40))
    colours = concept_colours(len(chart.series))
    if chart.shape == "stacked":
        places, layers = stack(chart)
        base = [0.0] * len(places)
        for colour, (name, top) in zip(colours, layers.items(), strict=True):
            axis.fill_between(places, base, top, color=colour, lw=0, label=clean(name, 24))
            base = top
        axis.fill_between(places, base, [100.0] * len(places), color=NULL, lw=0)
    elif chart.shape == "histogram":
        edges, counts = histogram(chart)
        for colour, (name, count) in zip(colours, counts.items(), strict=True):
            axis.stairs(count, edges, color=colour, fill=True, alpha=0.3)
            axis.stairs(count, edges, color=colour, label=clean(name, 24))
    else:
        for colour, (name, line) in zip(colours, chart.series.items(), strict=True):
            if not len(line):
                continue
            xs, ys = [point[0] for point in line], [point[1] for point in line]
            style = {"marker": "o", "ms": 2, "lw": 1 if chart.shape == "curves" else 0}
            axis.plot(xs, ys, color=colour, label=clean(name, 24), **style)
            ends = [(point[0], point[2], point[3]) for point in line if len(point) == 4]
            if ends:
                axis.vlines(*zip(*ends, strict=True), color=colour, alpha=0.35, lw=1)
    if chart.y_range:
        axis.set_ylim(*chart.y_range)
    if len(chart.series) > 1 or chart.shape == "stacked":
        axis.legend(fontsize=6, frameon=False, handlelength=1)


def _heat(axis: Any, uris: Mapping[str, str], title: str, heat: Heat) -> None:
    axis.set_axis_on()
    axis.imshow(heat.colours, interpolation="nearest", aspect="equal")
    for names, place, turned in ((heat.rows, axis.yaxis, 0), (heat.columns, axis.xaxis, 90)):
        shown = [i for i, name in enumerate(names) if name]
        place.set_ticks(shown, [clean(names[i], 24) for i in shown], fontsize=5, rotation=turned)
    light, dark = heat.ends
    ramp = matplotlib.colors.LinearSegmentedColormap.from_list("heat", heat.ramp / 255.0)
    colours = ramp if light < dark else ramp.reversed()
    scale = matplotlib.colors.Normalize(min(heat.ends), max(heat.ends))
    bar = axis.figure.colorbar(matplotlib.cm.ScalarMappable(scale, colours), ax=axis, shrink=0.7)
    bar.ax.tick_params(labelsize=5)
    axis.set_title(f"{clean(title)}\n{heat.beside}")


def _table(axis: Any, uris: Mapping[str, str], table: Table) -> None:
    rows = [
        [clean(written(value, column), 28) for value, column in zip(row, table.columns, strict=True)]
        for row in table.rows[:ROWS]
    ]
    drawn = axis.table(
        rows, colLabels=[clean(column.name, 24) for column in table.columns], loc="upper center", edges=""
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7)


def _montage(item: Item, uris: Mapping[str, str], edge: int = 96) -> np.ndarray:
    """Pictures with their maps in a near-square grid as a uint8 array of shape (h, w, 3)."""
    pictures = item.pictures[:16]
    columns = int(np.ceil(np.sqrt(max(1, len(pictures)))))
    rows = -(-max(1, len(pictures)) // columns)
    sheet = Image.new("RGB", (columns * (edge + 4), rows * (edge + 4)), "white")
    for i, one in enumerate(pictures):
        tile = Image.new("RGB", (edge, edge), "#e8ebef")
        uri = uris.get(one.sample_id)
        if uri is not None:
            picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
            side = min(picture.size)  # the centred square, which maps lie over
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            tile = picture.crop((left, top, left + side, top + side)).resize((edge, edge), Image.Resampling.BICUBIC)
        if one.heat:
            alpha = Image.fromarray(np.rint(190 * np.clip(np.asarray(one.heat), 0, 1)).astype(np.uint8))
            mask = alpha.resize((edge, edge), Image.Resampling.NEAREST)
            tile.paste(Image.new("RGB", (edge, edge), HEAT), mask=mask)
        sheet.paste(tile, ((i % columns) * (edge + 4), (i // columns) * (edge + 4)))
    return np.asarray(sheet)
