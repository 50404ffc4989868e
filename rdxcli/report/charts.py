"""Small charts as inline SVG: distributions, curves, stacked areas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from rdxcli.report.palette import NULL, concept_colours

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 8, 22

Point = tuple[float, float]


def curves(title: str, series: Mapping[str, Sequence[Point]], x_label: str, y_range: Point | None = None) -> Markup:
    """Lines with dots, one per name.

    Parameters
    ----------
    title : str
    series : mapping of name to points (x, y)
        At least one point in all.
    x_label : str
    y_range : (float, float), optional
        By default from 0 (or the lowest) to the highest value.
    """
    points = [point for line in series.values() for point in line]
    low, high = y_range or (min(0.0, *(y for _, y in points)), max(y for _, y in points))
    scale = _Scale(min(x for x, _ in points), max(x for x, _ in points), low, high)
    parts = []
    for colour, line in zip(concept_colours(len(series)), series.values(), strict=True):
        places = [scale(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in places]
    return _figure(title, scale, parts, x_label, list(series))


def histogram(title: str, series: Mapping[str, Sequence[float]], x_label: str, bins: int = 20) -> Markup:
    """How many values fall into each bin, one outline per name.

    Parameters
    ----------
    series : mapping of name to values
        At least one value in all.
    """
    values = np.concatenate([np.asarray(line, dtype=np.float64) for line in series.values()])
    low, high = min(0.0, float(values.min())), max(1e-9, float(values.max()))
    counts = {name: np.histogram(line, bins=bins, range=(low, high))[0] for name, line in series.items()}
    edges = np.linspace(low, high, bins + 1)
    scale = _Scale(low, high, 0.0, float(max(count.max() for count in counts.values())))
    parts = []
    for colour, count in zip(concept_colours(len(series)), counts.values(), strict=True):
        corners = [(edges[0], 0.0)]
        for i, number in enumerate(count):
            corners += [(edges[i], float(number)), (edges[i + 1], float(number))]
        corners.append((edges[-1], 0.0))
        path = " ".join("{:.1f},{:.1f}".format(*scale(x, y)) for x, y in corners)
        parts.append(f'<polygon points="{path}" fill="{colour}" fill-opacity=".25" stroke="{colour}"/>')
    return _figure(title, scale, parts, x_label, list(series))


def stacked(title: str, edges: Sequence[float], share: Mapping[str, Sequence[float | None]], x_label: str) -> Markup:
    """Stacked areas of percentages over bands; what is left to 100 is drawn grey. Empty bands take their neighbours'.

    Parameters
    ----------
    edges : sequence of float, length bands + 1
    share : mapping of name to percentages, length bands
        None for an empty band.
    """
    scale = _Scale(edges[0], edges[-1], 0.0, 100.0)
    xs = [edges[0], *((a + b) / 2 for a, b in pairwise(edges)), edges[-1]]
    base = [0.0] * len(xs)
    parts = [_area(scale, xs, base, [100.0] * len(xs), NULL)]
    for colour, values in zip(concept_colours(len(share)), share.values(), strict=True):
        filled = _filled(values)
        ends = [filled[0], *filled, filled[-1]]
        top = [low + high for low, high in zip(base, ends, strict=True)]
        parts.append(_area(scale, xs, base, top, colour))
        base = top
    return _figure(title, scale, parts, x_label, list(share))


class _Scale:
    """From data to pixels."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_low, self.x_high = x_low, x_high if x_high > x_low else x_low + 1.0
        self.y_low, self.y_high = y_low, y_high if y_high > y_low else y_low + 1.0

    def __call__(self, x: float, y: float) -> Point:
        across = (x - self.x_low) / (self.x_high - self.x_low)
        up = (y - self.y_low) / (self.y_high - self.y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _filled(values: Sequence[float | None]) -> list[float]:
    known = [i for i, value in enumerate(values) if value is not None]
    filled = []
    for i in range(len(values)):
        nearest = values[min(known, key=lambda j: abs(j - i))] if known else None
        filled.append(0.0 if nearest is None else float(nearest))
    return filled


def _area(scale: _Scale, xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> str:
    outline = [scale(x, y) for x, y in zip(xs, high, strict=True)]
    outline += [scale(x, y) for x, y in reversed(list(zip(xs, low, strict=True)))]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
    return f'<polygon points="{path}" fill="{colour}"/>'


def _figure(title: str, scale: _Scale, parts: Sequence[str], x_label: str, names: Sequence[str]) -> Markup:
    """Axes, the drawing, a legend. Every text is escaped."""
    left, bottom = scale(scale.x_low, scale.y_low)
    right, top = scale(scale.x_high, scale.y_high)
    axes = (
        f'<path d="M{left:.1f},{top:.1f} V{bottom:.1f} H{right:.1f}" fill="none" stroke="currentColor" '
        'stroke-opacity=".4"/>'
        f'<text x="{left - 4:.1f}" y="{top + 8:.1f}" text-anchor="end">{scale.y_high:.3g}</text>'
        f'<text x="{left - 4:.1f}" y="{bottom:.1f}" text-anchor="end">{scale.y_low:.3g}</text>'
        f'<text x="{left:.1f}" y="{bottom + 14:.1f}">{scale.x_low:.3g}</text>'
        f'<text x="{right:.1f}" y="{bottom + 14:.1f}" text-anchor="end">{scale.x_high:.3g}</text>'
        f'<text x="{(left + right) / 2:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{escape(x_label)}</text>'
    )
    legend = "".join(
        f'<span class="key"><span class="swatch" style="background: {colour}"></span>{escape(name)} </span>'
        for colour, name in zip(concept_colours(len(names)), names, strict=True)
    )
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
    heading = escape(title)
    return Markup(  # every text in it is escaped above
        f'<figure class="chart">{drawing}<title>{heading}</title>{"".join(parts)}{axes}</svg>'
        f"<figcaption>{heading}<br>{legend}</figcaption></figure>"
    )
