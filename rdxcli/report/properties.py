"""What the images of a group share, in words; the same for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rdxcli.progress import human_p
from rdxcli.records import relied_on
from rdxcli.report.text import clean

CLEAR_NUMBER, CLEAR_SHARE = 0.28, 0.1
"""Least differences that are worth a sentence: a medium effect (Cohen's d of a half), and ten points."""

MOST = 3  # sentences of a group

REPEATED = {f"{what} {side}" for side in "ab" for what in ("prediction of", "confidence of")} | {"a is", "b is"}
"""Columns whose news the predictions and the make-up of a group tell already."""

_WORDS = {
    "brightness": ("brighter", "darker"),
    "contrast": ("of more contrast", "of less contrast"),
    "colourfulness": ("more colourful", "less colourful"),
    "sharpness": ("sharper", "softer"),
    "megapixels": ("larger", "smaller"),
    "aspect": ("wider", "narrower"),
    "border": ("with a larger border", "with a smaller border"),
}


def said(shared: Mapping[str, Any]) -> str:
    """One property of a group, with what all other images have."""
    name = clean(shared["property"], 60)
    p = f"p {human_p(shared['p_corrected'])}"
    if shared["kind"] == "category":
        text = f"{name} is {clean(shared['value'], 40)} in {shared['inside']:.0%} (of all others {shared['rest']:.0%}"
        return f"{text}; difference {shared['low']:.0%} to {shared['high']:.0%}, {p}{_within(shared)})"
    up = shared["difference"] > 0.0
    ends = [0.5 + 0.5 * shared[key] for key in ("low", "high")]
    low, high = ends if up else (1.0 - ends[1], 1.0 - ends[0])
    words = _WORDS.get(name)
    how = f"{words[not up]} than" if words else f"{name} {'above' if up else 'below'}"
    medians = " against ".join(_number(shared[key], shared["kind"]) for key in ("inside", "rest"))
    return (
        f"{how} {0.5 + 0.5 * abs(shared['difference']):.0%} of the others ({low:.0%} to {high:.0%}; median "
        f"{f'{name} ' if words else ''}{medians}, {p}{_within(shared)})"
    )


def _within(shared: Mapping[str, Any]) -> str:
    found = shared["within_labels"]
    if found is None:
        return ""
    return "; also among images of one label" if found <= 0.05 else "; not among images of one label"


def _number(value: float, kind: str) -> str:
    if kind == "date":
        return str(np.datetime64(round(value * 86400), "s"))[:10]
    return f"{value:.3g}"


def clear(document: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """What is worth a sentence, by group: what a group has before what it lacks, largest difference first."""
    out: dict[str, list[Mapping[str, Any]]] = {}
    for shared in (document.get("properties") or {}).get("shared", []):
        least = CLEAR_SHARE if shared["kind"] == "category" else CLEAR_NUMBER
        if abs(shared["difference"]) >= least and shared["property"] not in REPEATED:
            out.setdefault(shared["group"], []).append(shared)
    for found in out.values():
        found.sort(key=lambda shared: shared["kind"] == "category" and shared["difference"] < 0.0)
    return out


def property_lines(document: Mapping[str, Any]) -> list[str]:
    """A sentence per group that can be relied on."""
    return [
        f"The images of {group} are: {'; '.join(said(shared) for shared in found[:MOST])}."
        for group, found in clear(document).items()
        if relied_on(document.get("reliability"), group[0], int(group[1:]))
    ]
