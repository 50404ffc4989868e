"""From class names to the sentences whose text embeddings stand for classes."""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE = "a photo of a {}."
_VOWELS = frozenset("aeiouAEIOU")


def clean(name: str) -> str:
    """A class name as a person would write it: ``apple_pie`` and ``apartment_building/outdoor`` lose their marks.

    Examples
    --------
    >>> clean("apartment_building/outdoor")
    'apartment building outdoor'
    """
    return " ".join(name.replace("_", " ").replace("/", " ").split())


def prompts(
    names: Sequence[str], template: str = TEMPLATE, *, cleaned: bool = True, article: bool = False
) -> list[str]:
    """One sentence per class.

    Raises `ValueError` for a template without exactly one ``{}``.

    Parameters
    ----------
    template : str
        With one ``{}``.
    cleaned : bool
        See `clean`; the publication uses raw names.
    article : bool
        Turn ``a`` into ``an`` in front of a name that begins with a vowel letter.
    """
    if template.count("{}") != 1:
        raise ValueError(f"Got template {template!r}, expected exactly one {{}}")
    before, after = template.split("{}")
    out = []
    for name in names:
        word = clean(name) if cleaned else name
        fits = article and word[:1] in _VOWELS and (before == "a " or before.endswith(" a "))
        out.append(f"{before[:-1] + 'n ' if fits else before}{word}{after}")
    return out


def duplicates(names: Sequence[str]) -> dict[str, list[int]]:
    """Names that occur more than once, with their positions.

    The later one can never win an argmax over equal texts: ImageNet's published names hold ``missile`` and
    ``sunglasses`` twice.
    """
    places: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        places.setdefault(name, []).append(position)
    return {name: where for name, where in places.items() if len(where) > 1}
