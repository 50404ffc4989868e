"""Small charts as inline SVG: distributions, curves, stacked areas, scatters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from rdxcli.report.palette import NULL, concept_colours
from rdxcli.report.summary import Chart
from rdxcli.report.text import clean

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 8, 22

Point = tuple[float, float]


def draw(chart: Chart) -> Markup:
    """The chart as inline SVG with a legend; nothing where there is nothing to draw."""
    if not any(len(line) for line in chart.series.values()):
        return Markup("")
    parts, scale = SHAPES[chart.shape](chart)
    return _figure(chart, scale, parts)


def _curves(chart: Chart) -> tuple[list[str], _Scale]:
    """Lines with dots, one per name; from 0 (or the lowest) to the highest value."""
    points = [point for line in chart.series.values() for point in line]
    low, high = chart.y_range or (min(0.0, *(y for _, y in points)), max(y for _, y in points))
    scale = _Scale(min(x for x, _ in points), max(x for x, _ in points), low, high)
    parts = []
    for colour, line in zip(concept_colours(len(chart.series)), chart.series.values(), strict=True):
        places = [scale(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_dots(places, colour, 4.4))
    return parts, scale


def _dots(places: Sequence[Point], colour: str, width: float) -> str:
    """Any number of dots as one element."""
    path = "".join(f"M{x:.1f},{y:.1f}h0" for x, y in places)
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>'


def _scatter(chart: Chart) -> tuple[list[str], _Scale]:
    """Dots, with their intervals where points are (x, y, low, high)."""
    points = [point for line in chart.series.values() for point in line]
    xs = [point[0] for point in points]
    ys = [end for point in points for end in point[1:]]
    scale = _Scale(min(xs), max(xs), min(0.0, *ys), max(ys))
    parts = []
    for colour, line in zip(concept_colours(len(chart.series)), chart.series.values(), strict=True):
        bars = [(scale(x, ends[0]), scale(x, ends[1])) for x, _, *ends in line if len(ends) == 2]
        if bars:
            path = "".join(f"M{x:.1f},{low:.1f}V{high:.1f}" for (x, low), (_, high) in bars)
            parts.append(f'<path d="{path}" stroke="{colour}" stroke-opacity=".35" stroke-width="2"/>')
        parts.append(_dots([scale(point[0], point[1]) for point in line], colour, 4))
    return parts, scale


def _histogram(chart: Chart, bins: int = 20) -> tuple[list[str], _Scale]:
    """How many values fall into each bin, one outline per name."""
    edges, counts = histogram(chart, bins)
    scale = _Scale(float(edges[0]), float(edges[-1]), 0.0, float(max(count.max() for count in counts.values())))
    parts = []
    for colour, count in zip(concept_colours(len(chart.series)), counts.values(), strict=True):
        corners = [(edges[0], 0.0)]
        for i, number in enumerate(count):
            corners += [(edges[i], float(number)), (edges[i + 1], float(number))]
        corners.append((edges[-1], 0.0))
        path = " ".join("{:.1f},{:.1f}".format(*scale(x, y)) for x, y in corners)
        parts.append(f'<polygon points="{path}" fill="{colour}" fill-opacity=".25" stroke="{colour}"/>')
    return parts, scale


def histogram(chart: Chart, bins: int = 20) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Edges of the bins and how many values of each name fall into them; 0 is among the edges' range."""
    values = np.concatenate([np.asarray(line, dtype=np.float64) for line in chart.series.values()])
    low, high = min(0.0, float(values.min())), max(1e-9, float(values.max()))
    counts = {name: np.histogram(line, bins=bins, range=(low, high))[0] for name, line in chart.series.items()}
    return np.linspace(low, high, bins + 1), counts


def _stacked(chart: Chart) -> tuple[list[str], _Scale]:
    """Areas of percentages over bands; what is left to 100 is drawn grey."""
    scale = _Scale(chart.edges[0], chart.edges[-1], 0.0, 100.0)
    xs, layers = stack(chart)
    base = [0.0] * len(xs)
    parts = [_area(scale, xs, base, [100.0] * len(xs), NULL)]
    for colour, top in zip(concept_colours(len(layers)), layers.values(), strict=True):
        parts.append(_area(scale, xs, base, top, colour))
        base = top
    return parts, scale


def stack(chart: Chart) -> tuple[list[float], dict[str, list[float]]]:
    """Places, and the upper edge of each layer at them. Empty bands take their neighbours' values."""
    edges = chart.edges
    xs = [edges[0], *((a + b) / 2 for a, b in pairwise(edges)), edges[-1]]
    base, layers = [0.0] * len(xs), {}
    for name, values in chart.series.items():
        filled = _filled(values)
        ends = [filled[0], *filled, filled[-1]]
        base = layers[name] = [low + high for low, high in zip(base, ends, strict=True)]
    return xs, layers


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


def _figure(chart: Chart, scale: _Scale, parts: Sequence[str]) -> Markup:
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
        f'<text x="{(left + right) / 2:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">'
        f"{escape(clean(chart.x, 40))}</text>"
    )
    names = list(chart.series)
    legend = "".join(
        f'<span class="key"><span class="swatch" style="background: {colour}"></span>{escape(clean(name))} </span>'
        for colour, name in zip(concept_colours(len(names)), names, strict=True)
    )
    heading = escape(clean(chart.title))
    up = f"<br>upwards: {escape(clean(chart.y))}" if chart.y else ""
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{heading}">'
    )
    return Markup(  # every text in it is escaped above
        f'<figure class="chart">{drawing}{"".join(parts)}{axes}</svg>'
        f"<figcaption>{heading}{up}<br>{legend}</figcaption></figure>"
    )


SHAPES = {"curves": _curves, "histogram": _histogram, "stacked": _stacked, "scatter": _scatter}
"""What draws each shape."""
