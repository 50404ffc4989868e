"""From a word and its part of speech to a lemma: which words are concepts, and under which name.

Parts of speech are one letter: ``n`` noun, ``a`` adjective, ``v`` verb, ``m`` name. The lexicons share one interface:

- `CaptionLexicon`: the SPECIALIST lexicon, then simplemma's dictionaries (MIT; no download);
- `WordNetLexicon`: WordNet 3.0's index and exception files (the published path; a download);
- `PackagedLexicon`: the NIH SPECIALIST lexicon alone, as shipped inside the lemminflect wheel (MIT; no download);
- `TableLexicon`: an explicit table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from . import nltk_data
from .compounds import ENGLISH

PARTS = ("n", "a", "v")

# Morphological rules of WordNet: ending -> replacement, each applied once.
SUFFIX_RULES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "n": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "v": (
        *(("s", ""), ("ies", "y"), ("es", "e"), ("es", "")),
        *(("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
}


class Lexicon(Protocol):
    """Lemmas and membership."""

    def lookup(self, word: str, pos: str, tag: str = "") -> str | None:
        """Lemma of ``word`` as ``pos``, or None when it is no concept; its Penn tag chooses between several lemmas."""
        ...

    def compound(self, words: tuple[str, ...]) -> bool:
        """Whether the words together are one entry (``hot dog``)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, version and digests, for provenance."""
        ...


def suffix_forms(word: str, pos: str) -> list[str]:
    """Every single application of a suffix rule, in the order of the rules.

    Examples
    --------
    >>> suffix_forms("riding", "v")
    ['ride', 'rid']
    """
    return [word[: -len(old)] + new for old, new in SUFFIX_RULES[pos] if word.endswith(old)]


def _check_part(pos: str) -> None:
    if pos not in PARTS:
        raise ValueError(f"Got part of speech {pos!r}, expected one of {PARTS}")


class WordNetLexicon:
    """Lemmas and acceptance as in the published concept extraction, from index and exception files alone.

    Parameters
    ----------
    index : mapping of str to set of str
        Lemmas (lower case, spaces as underscores) of each part of speech that have a synset.
    irregular : mapping of str to mapping of str to sequence of str
        Irregular forms of each part of speech: form -> lemmas.
    improved : bool
        False: case-sensitive, the shortest candidate wins (``riding`` becomes ``rid``, ``men`` stays, ``Dogs`` is not
        ``dog``). True: words are lower-cased, irregular forms go first, then the word itself, then the longest
        candidate (``ride``, ``man``, ``dog``).
    digests : mapping, optional
        sha256 of the files, for provenance.
    """

    def __init__(
        self,
        index: Mapping[str, Iterable[str]],
        irregular: Mapping[str, Mapping[str, Iterable[str]]],
        *,
        improved: bool = False,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self._index = {pos: frozenset(index.get(pos, ())) for pos in PARTS}
        self._irregular = {
            pos: {form: tuple(lemmas) for form, lemmas in irregular.get(pos, {}).items()} for pos in PARTS
        }
        self.improved = improved
        self._digests = dict(digests or {})

    @classmethod
    def from_folder(cls, folder: str | Path, *, improved: bool = False) -> WordNetLexicon:
        """Load from an ``nltk_data`` folder (package ``wordnet``, unpacked or zipped); about half a second."""
        files = {"n": "noun", "a": "adj", "v": "verb"}
        index, irregular, digests = {}, {}, {}
        for pos, name in files.items():
            raw = nltk_data.read(folder, nltk_data.WORDNET, f"index.{name}")
            digests[f"index.{name}"] = nltk_data.sha256(raw)
            # Licence lines begin with a space.
            index[pos] = {
                line.split(" ", 1)[0] for line in raw.decode("utf-8").splitlines() if line and not line.startswith(" ")
            }
            raw = nltk_data.read(folder, nltk_data.WORDNET, f"{name}.exc")
            digests[f"{name}.exc"] = nltk_data.sha256(raw)
            irregular[pos] = {
                parts[0]: parts[1:] for parts in map(str.split, raw.decode("utf-8").splitlines()) if parts
            }
        return cls(index, irregular, improved=improved, digests=digests)

    def describe(self) -> dict[str, Any]:
        """Name and digests of the files."""
        return {"lexicon": "wordnet-3.0", "improved": self.improved, "sha256": self._digests}

    def _present(self, forms: Iterable[str], pos: str) -> list[str]:
        entries = self._index[pos]
        return list(dict.fromkeys(form for form in forms if form in entries))

    def _candidates(self, word: str, pos: str) -> list[str]:
        irregular = self._irregular[pos].get(word)
        return self._present([word, *(suffix_forms(word, pos) if irregular is None else irregular)], pos)

    def lemma(self, word: str, pos: str) -> str:
        """Lemma of ``word``; the word itself when WordNet knows none of its candidates."""
        _check_part(pos)
        if not self.improved:
            return min(self._candidates(word, pos), key=len, default=word)
        word = word.lower()
        for forms in (self._irregular[pos].get(word, ()), [word]):
            found = self._present(forms, pos)
            if found:
                return found[0]
        return max(self._present(suffix_forms(word, pos), pos), key=len, default=word)

    def accepts(self, lemma: str, pos: str) -> bool:
        """Whether a synset is found for ``lemma``: looked up in lower case, with the same morphology."""
        _check_part(pos)
        return bool(self._candidates(lemma.lower(), pos))

    def lookup(self, word: str, pos: str, tag: str = "") -> str | None:
        """Lemma if accepted, else None."""
        lemma = self.lemma(word, pos)
        return lemma if self.accepts(lemma, pos) else None

    def compound(self, words: tuple[str, ...]) -> bool:
        """Whether WordNet has the noun ``a_b_c``."""
        return "_".join(words).lower() in self._index["n"]


class TableLexicon:
    """An explicit table of (word, pos) -> (lemma, accepted); words that are not listed are not accepted.

    Parameters
    ----------
    rows : iterable of (word, pos, lemma, accepted)
    """

    def __init__(self, rows: Iterable[tuple[str, str, str, bool]]) -> None:
        self._table = {(word, pos): lemma if accepted else None for word, pos, lemma, accepted in rows}

    def describe(self) -> dict[str, Any]:
        """Size of the table."""
        return {"lexicon": "table", "entries": len(self._table)}

    def lookup(self, word: str, pos: str, tag: str = "") -> str | None:
        """Lemma if listed and accepted, else None."""
        return self._table.get((word, pos))

    def compound(self, words: tuple[str, ...]) -> bool:
        """Never."""
        return False


_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_CATEGORY = {"n": "NOUN", "a": "ADJ", "v": "VERB"}
_VOWELS = frozenset("aeiouy")


class PackagedLexicon:
    """Lemmas from the SPECIALIST lexicon of the lemminflect package; words it lacks are cut by rule.

    Case is folded. No ending is cut that would leave an unknown word (``christmas``). A word is accepted when it is
    made of letters (inner hyphens and apostrophes allowed) and has at least ``min_letters``: captions name things that
    no dictionary lists (``selfie``, ``wetsuit``), and the vocabulary's minimum count removes misspellings.

    Parameters
    ----------
    min_letters : int
        Shortest accepted word that is not in the dictionary.
    """

    def __init__(self, min_letters: int = 3) -> None:
        from lemminflect import getAllLemmas
        from textblob.en import lexicon

        self._all: Callable[..., Mapping[str, tuple[str, ...]]] = getAllLemmas
        self._tags: Mapping[str, str] = lexicon
        self.min_letters = min_letters
        self._forms = lru_cache(maxsize=None)(self._read)

    def describe(self) -> dict[str, Any]:
        """Name and version of the package."""
        return {
            "lexicon": "specialist",
            "lemminflect": metadata.version("lemminflect"),
            "min_letters": self.min_letters,
        }

    def _read(self, word: str) -> dict[str, tuple[str, ...]]:
        found = self._all(word)
        return {pos: found[category] for pos, category in _CATEGORY.items() if category in found}

    def forms(self, word: str) -> Mapping[str, tuple[str, ...]]:
        """Lemmas of ``word`` (in lower case) for each part of speech that the dictionary lists."""
        return self._forms(word)

    def possible(self, word: str, pos: str) -> bool:
        """Whether the dictionary lists ``word`` as ``pos``."""
        return pos in self._forms(word.lower())

    def lookup(self, word: str, pos: str, tag: str = "") -> str | None:
        """Lemma if accepted, else None."""
        _check_part(pos)
        word = word.lower()
        if not _WORD.fullmatch(word):
            return None
        forms = self._forms(word)
        if pos in forms:
            return self._choose(forms[pos], pos)
        if len(word) < self.min_letters:
            return None
        return self._cut(word, pos)

    def _known(self, word: str) -> bool:
        return bool(self._forms(word)) or word in self._tags

    def _choose(self, lemmas: tuple[str, ...], pos: str) -> str:
        """Of several lemmas (``leaves``: leave, leaf) the first whose most frequent tag is of this part of speech.

        One of which no tag is known counts as well (``reeds``: reed).
        """
        if len(lemmas) == 1:
            return lemmas[0]
        letter = {"n": "N", "a": "J", "v": "V"}[pos]
        return next((lemma for lemma in lemmas if self._tags.get(lemma, letter).startswith(letter)), lemmas[0])

    def _cut(self, word: str, pos: str) -> str:
        """Lemma of a word that the dictionary lacks: a suffix form that is known, else the word as it is."""
        if pos == "n" and not word.endswith(("ss", "us", "is")):
            known = max((form for form in suffix_forms(word, "n") if self._known(form)), key=len, default=None)
            if known is None and word.endswith("s"):
                # `placemats`: a known word and the plural of another, written together
                parts = ((word[:at], word[at:]) for at in range(3, len(word) - 3))
                ends = ((first, self._forms(last).get("n", ())) for first, last in parts if self._known(first))
                known = next((first + end for first, found in ends for end in found if word != first + end), None)
                return known or word
            if known is not None:
                # Through the dictionary once more, for `womens`.
                return self._choose(self._forms(known).get("n", (known,)), "n")
        if pos == "v":
            forms = suffix_forms(word, "v")
            forms += [form[:-1] for form in forms if len(form) > 3 and form[-1] == form[-2] and form[-1] not in _VOWELS]
            return max((form for form in forms if "v" in self._forms(form)), key=len, default=word)
        return word

    def compound(self, words: tuple[str, ...]) -> bool:
        """Whether the dictionary lists the words together, hyphenated or with a space."""
        return any("n" in self._forms(mark.join(words).lower()) for mark in (" ", "-"))


_PLURAL_ONLY = frozenset(
    [
        *("pants", "shorts", "sunglasses", "eyeglasses", "headphones", "earphones", "binoculars", "tights", "leggings"),
        *("trousers", "pajamas", "pyjamas", "goggles", "jeans", "scissors", "overalls", "sweatpants", "clothes"),
        *("dungarees", "briefs", "knickers", "suspenders", "tweezers", "pliers", "groceries", "surroundings"),
    ]
)
"""Nouns that are looked for in the plural, whatever a dictionary says (`short`, `pant`)."""
_NO_CONCEPTS = frozenset(
    [
        *(
            "it",
            "one",
            "ones",
            "something",
            "someone",
            "anything",
            "anyone",
            "nothing",
            "everything",
            "everyone",
            "this",
        ),
        *("be", "is", "are", "was", "were", "being", "been", "am", "have", "has", "had", "having", "do", "does", "did"),
        *("doing", "done", "other", "others", "such", "many", "much", "few", "own", "same", "several", "various"),
    ]
)
"""Pronouns, quantifiers and auxiliaries: they name nothing, whatever a tagger says."""
_NAME = re.compile(r"[^\W\d_]+(?:[-'.][^\W\d_]+)*\.?")
_INFLECTED = frozenset(["VBD", "VBN", "JJR", "JJS"])


class CaptionLexicon(PackagedLexicon):
    """Lemmas from the SPECIALIST lexicon, and from simplemma's dictionary for words that it lacks.

    A noun whose dictionary form is written with a capital is a name (``christmas`` is `Christmas`). A word that
    neither knows stays as it is. German and Dutch words are looked up in simplemma's dictionaries alone.

    Parameters
    ----------
    language : {"en", "de", "nl"}
    """

    def __init__(self, language: str = "en") -> None:
        super().__init__()
        import simplemma

        self.language = language
        self._lemmatise: Callable[..., str] = simplemma.lemmatize
        self._listed: Callable[..., bool] = simplemma.is_known

    def describe(self) -> dict[str, Any]:
        """Names and versions of the packages."""
        versions = {name: metadata.version(name) for name in ("lemminflect", "simplemma")}
        return {"lexicon": "specialist and simplemma", **versions, "language": self.language}

    def lookup(self, word: str, pos: str, tag: str = "") -> str | None:
        """Lemma if accepted, else None."""
        if pos == "m":
            if not _NAME.fullmatch(word) or len(word) < 2:
                return None
            return self._lemmatise(word, lang=self.language) if word.islower() else word
        _check_part(pos)
        if not _WORD.fullmatch(word):
            return None
        if self.language != "en":
            return self._foreign(word, pos)
        word = word.lower()
        if word in _NO_CONCEPTS:
            return None
        if pos == "n" and word in _PLURAL_ONLY:
            return word
        listed = self._forms(word).get(pos)
        if listed is not None:
            others = [lemma for lemma in listed if lemma != word]
            # `fell` and `best` are lemmas too (to fell a tree), but not as a past tense and a superlative
            return others[0] if tag in _INFLECTED and others else self._choose(listed, pos)
        if len(word) < self.min_letters:
            return None
        lemma = self._lemmatise(word, lang="en")
        if pos == "n" and lemma[:1].isupper() and not self._forms(word):
            return lemma
        inflected = word.endswith("s") if pos == "n" else pos == "v"
        if inflected and lemma != word and self._listed(word, lang="en") and not lemma[:1].isupper():
            return lemma
        return self._cut(word, pos)

    def _foreign(self, word: str, pos: str) -> str | None:
        if len(word) < self.min_letters:
            return None
        lemma = self._lemmatise(word, lang=self.language)
        # German nouns keep their capital, by which they are told from adjectives and verbs
        return lemma if self.language == "de" and pos == "n" else lemma.lower()

    def _known(self, word: str) -> bool:
        return super()._known(word) or self._listed(word, lang="en")

    def compound(self, words: tuple[str, ...]) -> bool:
        """Whether the words are in the list of compounds."""
        return self.language == "en" and " ".join(words) in ENGLISH
