"""Which language captions are written in, by the share of their words that a dictionary lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

ENGLISH_ENOUGH = 0.6
"""Share of English words from which captions are taken for English without looking further."""
_MARGIN = 0.2  # another language must have that many more of the words: names are in every dictionary
_SAMPLE = 400
NAMES = {
    **{"en": "English", "de": "German", "nl": "Dutch", "fr": "French", "es": "Spanish", "it": "Italian"},
    **{"pt": "Portuguese", "pl": "Polish", "cs": "Czech", "sv": "Swedish", "ru": "Russian"},
}
_ROUNDS = (("de", "nl", "fr", "es", "it", "pt"), ("pl", "cs", "sv", "ru"))


class Language(NamedTuple):
    """A language and how sure it is: the shares of words that its dictionary and the English one list."""

    code: str | None
    share: float
    english: float

    @property
    def name(self) -> str:
        """In words; `unknown` for a language that none of the dictionaries is of."""
        return NAMES.get(self.code or "", "an unknown language")


def detect(texts: Sequence[str]) -> Language:
    """The language of captions, from up to 400 of them spread over the whole."""
    import simplemma

    step = max(1, len(texts) // _SAMPLE)
    text = " ".join(texts[::step][:_SAMPLE]).lower()
    english = float(simplemma.in_target_language(text, lang="en"))
    if english >= ENGLISH_ENOUGH:
        return Language("en", english, english)
    if not re.search(r"[a-z\u00c0-\u024f\u0400-\u04ff]{2}", text):
        return Language(None, 0.0, english)  # letters of none of these languages
    text = " ".join(texts[::step][:_SAMPLE])  # German nouns are listed with their capital
    best = ("", 0.0)
    for codes in _ROUNDS:  # a dictionary takes most of a second to open
        shares = [(code, float(simplemma.in_target_language(text, lang=code))) for code in codes]
        best = max([best, *shares], key=lambda entry: entry[1])
        if best[1] >= 0.8:
            break
    code, share = best
    if share < english + _MARGIN:
        return Language("en", english, english) if english else Language(None, share, english)
    return Language(code if share >= 0.5 else None, share, english)
