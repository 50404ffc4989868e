"""Samples as people name them: targets by id, by row, or by a word about their class or prediction."""

from __future__ import annotations

from rdxcli.errors import InputError, did_you_mean
from rdxcli.records import Representation

WORDS = ("all", "class", "predicted", "misclassified")
"""What a target may start with besides ids and rows."""


def targets_of(target: str, source: Representation) -> str | list[int]:
    """What ``--target`` means: a word (``class:NAME`` ...) as it is, else the rows of the ids or row numbers.

    Raises `InputError` (no such sample; near ids are named).
    """
    if target.partition(":")[0] in WORDS:
        return target
    place = {sample: row for row, sample in reversed(list(enumerate(source.ids())))}
    rows = []
    for part in target.split(","):
        text = part.strip()
        if text in place:
            rows.append(place[text])
        elif text.isdecimal() and int(text) < source.n:
            rows.append(int(text))
        else:
            hint = did_you_mean(text, place, "give a sample id, a row, or a word such as class:NAME")
            raise InputError(f"--target: no sample `{text}` among {source.n}", hint)
    return rows


def needs_predictions(target: str | None) -> bool:
    """Whether a target is chosen by what the model says."""
    return (target or "").startswith(("misclassified", "predicted"))
