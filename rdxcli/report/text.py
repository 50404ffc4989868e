"""Foreign text made safe to show: names and labels come from files, and files may say anything."""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""Characters of a foreign string that are shown."""

_INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}  # parts of words and of emoji


def clean(text: object, longest: int = LONGEST) -> str:
    """``text`` on one line: what steers a terminal or turns the direction of writing is made visible, the rest is cut.

    Parameters
    ----------
    text : object
        Its ``str`` is shown.
    longest : int
        Characters that are kept; a longer text ends in ``...``.

    Examples
    --------
    >>> clean("red\\x1b[31m")
    'red\\\\x1b[31m'
    """
    given = str(text)
    cut = given if len(given) <= longest else given[: max(0, longest - 3)] + "..."
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(_visible(character) for character in cut)


def tail(text: object, most: int = 34) -> str:
    """The end of a path that is too long for its place: what tells it from its neighbours."""
    shown = clean(text, 4000)
    return shown if len(shown) <= most or not set(shown) & set("/\\") else f"\u2026{shown[1 - most :]}"


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
