"""Ids, labels and names as the text that people wrote, the same from every kind of file."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from rdxcli.progress import log

UNLABELLED = "(none)"
"""Label of a sample that has none while others have one."""


def text_of(value: Any) -> str:
    """One value as text: whole numbers without a point, truth as ``true`` and ``false``, nothing as ``""``."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def texts_of(values: Sequence[Any] | np.ndarray) -> list[str]:
    """A column of values as text.

    Floats that are all whole are written as whole numbers: a table with a gap, or MATLAB, stores the class 3 as 3.0.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "M":
            return [str(value) for value in values]
        values = values.tolist()
    floats = [value for value in values if isinstance(value, float)]
    if floats and all(value is None or isinstance(value, int | float) for value in values):
        known = [value for value in floats if not np.isnan(value)]
        if all(value.is_integer() for value in known):
            if any(abs(value) >= 2**53 for value in known):
                log.warning(
                    "ids or labels above 2^53 were stored as floating-point numbers, which may have rounded them"
                )
            return ["" if value is None or value != value else str(int(value)) for value in values]
    return [text_of(value) for value in values]


def composed(text: str) -> str:
    """Unicode form NFC, in which an accented letter is one character."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def escaped(name: str) -> str:
    r"""A file name as text that can be stored everywhere: bytes that are no UTF-8 are written ``\xe9``."""
    if is_utf8(name):
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether a file name, as the operating system gave it, is text."""
    if name.isascii():
        return True
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def apart(*values: str) -> list[str]:
    """The values as they are shown together: with escapes where different ones would print alike."""
    printed = [" ".join(unicodedata.normalize("NFKC", value).split()) for value in values]
    alike = {text for text in printed if len({v for v, p in zip(values, printed, strict=True) if p == text}) > 1}
    return [ascii(v)[1:-1] if p in alike else v for v, p in zip(values, printed, strict=True)]


def find(wanted: Sequence[str], known: Sequence[str]) -> tuple[np.ndarray, int]:
    """Where each of ``wanted`` is in ``known``.

    A name that is not there as it stands is looked for in its composed Unicode form (macOS stores file names
    decomposed), where that is not ambiguous.

    Parameters
    ----------
    wanted, known : sequence of str
        ``known`` without repetition.

    Returns
    -------
    places : ndarray of shape (len(wanted),), int64
        -1 where it is not.
    composed : int
        How many were found in another Unicode form.
    """
    exact = {name: place for place, name in enumerate(known)}
    places = np.fromiter((exact.get(name, -1) for name in wanted), np.int64, len(wanted))
    if (places >= 0).all() or (all(map(str.isascii, wanted)) and all(map(str.isascii, known))):
        return places, 0
    forms: dict[str, int] = {}
    for place, name in enumerate(known):
        form = composed(name)
        forms[form] = -1 if form in forms else place
    taken = set(places[places >= 0].tolist())
    count = 0
    for row in np.flatnonzero(places < 0).tolist():
        place = forms.get(composed(wanted[row]), -1)
        if place >= 0 and place not in taken:
            places[row] = place
            taken.add(place)
            count += 1
    return places, count


def names_in(text: str, known: Sequence[str]) -> list[str]:
    """Names out of a comma-separated list; commas inside a known name do not separate.

    ``"a, b",c`` in double quotes, and names in another Unicode form, are understood. What is not known is returned as
    it was written, for the caller to refuse.
    """
    known_set = set(known)
    forms = {composed(name): name for name in known}

    def as_known(part: str) -> str | None:
        part = part.strip()
        if part in known_set:
            return part
        if len(part) > 1 and part[0] == part[-1] == '"':
            part = part[1:-1]
        return part if part in known_set else forms.get(composed(part))

    parts = text.split(",")
    names: list[str] = []
    start = 0
    while start < len(parts):
        for end in range(len(parts), start, -1):  # the longest known name first
            found = as_known(",".join(parts[start:end]))
            if found is not None:
                names.append(found)
                start = end
                break
        else:
            names.append(parts[start].strip())
            start += 1
    return names
