"""Colours of concepts: the Okabe-Ito set, which colour-blind people can tell apart, then evenly spaced hues."""

from __future__ import annotations

import colorsys

NULL = "#c9ced6"
"""Samples that belong to no concept."""

_OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f")


def concept_colours(count: int) -> list[str]:
    """``count`` different colours as ``#rrggbb``."""
    colours = list(_OKABE_ITO[:count])
    for i in range(count - len(colours)):
        red, green, blue = colorsys.hls_to_rgb((0.11 + i * 0.618034) % 1.0, 0.42 + 0.12 * (i % 3), 0.6)
        colours.append(f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}")
    return colours
