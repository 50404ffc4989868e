"""Ids, labels and names as the text that people wrote, the same from every kind of file."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rdxcli.progress import human_count, log

_ENDING = re.compile(r"(?<=[^/])\.[A-Za-z][A-Za-z0-9]{0,5}$")  # of a file; not the 5 of v1.5

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


def find(wanted: Sequence[str], known: Sequence[str]) -> tuple[np.ndarray, str]:
    """Where each of ``wanted`` is in ``known``: the one way in which rows are joined by their ids.

    An id that is not there as it stands is looked for in its composed Unicode form (macOS stores file names decomposed;
    Windows separates folders by a backslash), then with and without leading folders and the ending of a file:
    ``/data/dog/1.jpg``, ``dog/1.jpg`` and ``dog/1`` are one where the one is a part of the other, and ``dog/1`` and
    ``1.jpg``, which do not contradict each other. An id that could be several is none of them, and a row that has been
    found by its own name is not given away. `wanted`, `known`: of an id that ``known`` repeats, the first row is meant.

    Returns
    -------
    places : ndarray of shape (len(wanted),), int64
        -1 where it is not.
    note : str
        How many were found by another form, as "3 ids differ in their folder"; empty when none was.
    """
    exact: dict[str, int] = {}
    for place, name in enumerate(known):
        exact.setdefault(name, place)
    places = np.fromiter((exact.get(name, -1) for name in wanted), np.int64, len(wanted))
    if (places >= 0).all():
        return places, ""
    taken = {known[place] for place in places[places >= 0].tolist()}
    whole, parts, bare = _forms({name: place for name, place in exact.items() if name not in taken})
    claims: dict[int, set[str]] = {}
    found: dict[str, tuple[int, str]] = {}
    for name in {wanted[row] for row in np.flatnonzero(places < 0).tolist()}:
        spelled = _spelled(name)
        place = whole.get(spelled, parts.get(spelled, -1))
        if place < 0 and spelled not in whole and spelled not in parts:
            place = next((whole[part] for part in _parts(spelled) if whole.get(part, -1) >= 0), -1)
            if place < 0:
                place = _by_stem(spelled, bare)
        if place >= 0:
            claims.setdefault(place, set()).add(name)
            found[name] = place, _difference(spelled, _spelled(known[place]))
    counts: dict[str, int] = {}
    for row in np.flatnonzero(places < 0).tolist():
        place, how = found.get(wanted[row], (-1, ""))
        if place >= 0 and len(claims[place]) == 1:
            places[row] = place
            counts[how] = counts.get(how, 0) + 1
    said = [
        f"{human_count(count, 'id', 'differ')} in their {how}" if count > 1 else f"1 id differs in its {how}"
        for how, count in counts.items()
    ]
    return places, " and ".join(said)


def find_all(
    wanted: Sequence[str], known: Sequence[str], lacking: Callable[[int, str, str], Exception]
) -> tuple[np.ndarray, str]:
    """`find` for rows that must all be there.

    `lacking`: the error for so many ids that are not there, of which one is given, and one of ``known`` beside it.
    """
    places, note = find(wanted, known)
    missing = np.flatnonzero(places < 0)
    if len(missing):
        shown = apart(wanted[missing[0]], *known[:1])
        raise lacking(len(missing), shown[0], shown[-1])
    return places, note


def same_words(wanted: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Which of ``known`` each of ``wanted`` is another spelling of: classes as two lists name them.

    A class may have several names: ``n01532829<tab>house finch, linnet`` and ``Haemorhous mexicanus (House Finch)``
    share one. Names are the whole text and its parts at tabs, commas, semicolons and brackets, without case, with one
    space for underscores, hyphens and spaces. The whole text goes first. What could be several is none, and no two of
    ``wanted`` are the same one of ``known``, unless they are the same text.

    Returns
    -------
    ndarray of shape (len(wanted),), int64
        -1 where there is none.
    """
    whole: dict[str, int] = {}
    parts: dict[str, int] = {}
    for place, text in enumerate(known):
        for names, table in ((_class_names(text)[:1], whole), (set(_class_names(text)[1:]), parts)):
            for name in names:
                table[name] = -1 if name in table else place
    found: dict[str, int] = {}
    for text in dict.fromkeys(wanted):
        first, *others = _class_names(text)
        if first in whole:
            found[text] = whole[first]
            continue
        places = {table[name] for name in (first, *others) for table in (whole, parts) if name in table}
        found[text] = places.pop() if len(places) == 1 else -1
    taken: dict[int, int] = {}
    for place in found.values():
        taken[place] = taken.get(place, 0) + 1
    return np.array([found[text] if taken[found[text]] == 1 else -1 for text in wanted], dtype=np.int64)


def _class_names(text: str) -> list[str]:
    """The names that a text gives a class, as they are compared; the whole text first."""
    every = [text, *re.split(r"[\t,;()\[\]]", text)]
    plain = [" ".join(re.sub(r"[_\-\s]+", " ", composed(name)).split()).casefold() for name in every]
    return [plain[0], *dict.fromkeys(name for name in plain[1:] if name and name != plain[0])]


def taken_as_one(note: str, a: str, b: str) -> str:
    """The sentence for a note of `find`."""
    return f"{note} between {a} and {b}: taken as one"


def _forms(known: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Places by the whole name, by each part of it and what `_by_stem` asks for; -1 where several names are alike."""
    whole: dict[str, int] = {}
    parts: dict[str, int] = {}
    bare: dict[str, int] = {}
    for name, place in known.items():
        spelled = _spelled(name)
        stem, own = _ENDING.sub("", spelled), _parts(spelled)
        alone = [f"{stem}."] if stem != spelled else own
        for table, forms in ((whole, [spelled]), (parts, own), (bare, alone)):
            for form in forms:
                table[form] = -1 if form in table else place
    return whole, parts, bare


def _by_stem(name: str, bare: Mapping[str, int]) -> int:
    """The place of an id where one of the two has folders and the other an ending; -1 where there is none.

    `bare`: ids without an ending by what follows their folders, those with one by all before it and its point.
    """
    stem = _ENDING.sub("", name)
    if stem != name:
        return bare.get(stem, -1)
    return next((bare[f"{part}."] for part in _parts(name) if f"{part}." in bare), -1)


def _spelled(name: str) -> str:
    return composed(name).replace("\\", "/").removeprefix("./")


def _parts(name: str) -> list[str]:
    """A path without its ending, and both without one and more of its leading folders; the longest first."""
    stem = _ENDING.sub("", name)
    parts = [stem] if stem != name else []
    while "/" in name:
        name = name.partition("/")[2]
        stem = stem.partition("/")[2]
        parts += [name, stem] if stem != name else [name]
    return [part for part in parts if part]


def _difference(a: str, b: str) -> str:
    """What tells two forms of one id apart."""
    if a == b:
        return "spelling"
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    folder, ending = not longer.startswith(shorter), not longer.endswith(shorter)
    return " and ".join(word for word, differs in (("folder", folder), ("ending", ending)) if differs)


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
