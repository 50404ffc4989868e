"""From a caption to words with their parts of speech.

Taggers speak the Penn tag set; `rdxcli.methods.surrogate.caption_tagger` has a third one, the default:

- `PerceptronTagger`: the published one, NLTK's averaged perceptron, from its JSON weights (a download);
- `LexiconTagger`: needs no download. Brill's lexicon and rules as shipped inside the TextBlob wheel (MIT), corrected
  by a few rules for the short present-tense sentences that captions are.

Words are NLTK's Treebank tokens in both cases (no data needed for that).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import nltk_data

_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "jr", "sr", "no", "vol", "fig", "inc", "ltd", "co", "mt", "ft"]
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+")
_WORD = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_PLAIN = re.compile(rf"(?:{_WORD}|,)(?: (?:{_WORD}|,))*(?:(?<=[A-Za-z0-9]) ?\.)?")
"""Words of letters, digits and hyphens, commas that stand alone, a full stop at the end."""
_CUT = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.I)
"""Words that the Treebank cuts in two."""
_START, _START2, _END, _END2 = "-START-", "-START2-", "-END-", "-END2-"


class Tagger(Protocol):
    """Anything that gives one Penn tag per word."""

    def tag(self, words: Sequence[str]) -> list[str]:
        """Penn tags of the words of one sentence or caption."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, version and digests, for provenance."""
        ...


@cache
def _treebank() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def tokenise(caption: str) -> list[str]:
    """Treebank tokens of a whole caption, without sentence splitting and without lower-casing.

    This is NLTK's ``word_tokenize(caption, preserve_line=True)``: a full stop is detached at the very end only, so
    ``"grass. It"`` keeps ``grass.`` as one word. NLTK releases differ on a single quote directly before a letter.
    Raises `ValueError` when the caption is not a string.
    """
    if not isinstance(caption, str):
        raise ValueError(f"Got a caption of type {type(caption).__name__}, expected str")
    if _PLAIN.fullmatch(caption) and not _CUT.search(caption):  # then nothing else is cut: 23 patterns are saved
        words = caption.split(" ")
        return [*words[:-1], words[-1][:-1], "."] if words[-1][1:].endswith(".") else words
    return _treebank().tokenize(caption)


def split_sentences(caption: str) -> list[str]:
    """Cut after ``. ! ?`` followed by white space, except behind abbreviations and initials.

    Examples
    --------
    >>> split_sentences("a dog on grass. It barks at Mr. Smith")
    ['a dog on grass.', 'It barks at Mr. Smith']
    """
    pieces, start = [], 0
    for match in _SENTENCE_END.finditer(caption):
        before = caption[start : match.start()].rstrip("\"')").split()
        last = before[-1].rstrip(".!?").lower() if before else ""
        if not last or last in _ABBREVIATIONS or (len(last) == 1 and last.isalpha() and before[-1].endswith(".")):
            continue
        pieces.append(caption[start : match.end()].strip())
        start = match.end()
    pieces.append(caption[start:].strip())
    return [piece for piece in pieces if piece]


def recase(words: Sequence[str]) -> list[str]:
    """Lower-case what upper case says nothing about: the first word of a sentence, and shouted sentences.

    A tagger takes capitals for names; captions often begin with one, and some are written in capitals throughout.
    """
    letters = [word for word in words if word.isalpha()]
    shouted = [word for word in letters if word.isupper() and len(word) > 1]
    if len(shouted) * 2 > len(letters):
        return [word.lower() for word in words]
    first = next((i for i, word in enumerate(words) if word[:1].isalpha()), None)
    return [word.lower() if i == first and word.istitle() and word != "I" else word for i, word in enumerate(words)]


class PerceptronTagger:
    """NLTK's averaged perceptron tagger: greedy, left to right, 14 features a word.

    Parameters
    ----------
    weights : mapping of str to mapping of str to float
        Feature -> tag -> weight, as in ``averaged_perceptron_tagger_eng.weights.json``.
    known : mapping of str to str
        Words (exact spelling) with a fixed tag.
    tags : sequence of str
        The tag set.
    digest : str, optional
        sha256 of the weights file, for provenance.

    Notes
    -----
    The weights are kept as one row of numbers per feature, so that scoring a word is one gather and one sum. Ties go
    to the alphabetically last tag, as in NLTK, and the sum runs over the features in NLTK's order.
    """

    def __init__(
        self,
        weights: Mapping[str, Mapping[str, float]],
        known: Mapping[str, str],
        tags: Sequence[str],
        digest: str | None = None,
    ) -> None:
        if not tags:
            raise ValueError("Got an empty tag set, expected at least one tag")
        self._tags = sorted(set(tags), reverse=True)  # argmax takes the first: the alphabetically last on ties
        column = {tag: i for i, tag in enumerate(self._tags)}
        self._row = {feature: i + 1 for i, feature in enumerate(weights)}
        # Row 0 stands for every unknown feature.
        self._table = np.zeros((len(self._row) + 1, len(self._tags)))
        for feature, row in self._row.items():
            for tag, weight in weights[feature].items():
                if tag not in column:
                    raise ValueError(f"Got the tag {tag!r} in the weights, expected one of {sorted(column)}")
                self._table[row, column[tag]] = weight
        self._known = dict(known)
        self._digest = digest

    @classmethod
    def from_folder(cls, folder: str | Path) -> PerceptronTagger:
        """Load from an ``nltk_data`` folder (package ``averaged_perceptron_tagger_eng``, unpacked or zipped)."""
        raw = [nltk_data.read(folder, nltk_data.TAGGER, name) for name in nltk_data.TAGGER_FILES]
        weights, known, tags = (json.loads(content) for content in raw)
        return cls(weights, known, tags, nltk_data.sha256(raw[0]))

    def describe(self) -> dict[str, Any]:
        """Name and digest of the weights."""
        return {"tagger": "averaged_perceptron_tagger_eng", "weights_sha256": self._digest}

    @staticmethod
    def _normal(word: str) -> str:
        if "-" in word and word[0] != "-":
            return "!HYPHEN"
        if word.isdigit() and len(word) == 4:
            return "!YEAR"
        if word and word[0].isdigit():
            return "!DIGITS"
        return word.lower()

    def tag(self, words: Sequence[str]) -> list[str]:
        """Penn tags of ``words``; about 6 microseconds for a word that is not in the table."""
        context = [_START, _START2, *map(self._normal, words), _END, _END2]
        before, before2 = _START, _START2
        row, out = self._row, []
        for i, word in enumerate(words):
            tag = self._known.get(word)
            if not tag:
                two_left, left, here, right, two_right = context[i : i + 5]
                features = (
                    "bias",
                    f"i suffix {word[-3:]}",
                    f"i pref1 {word[:1]}",
                    f"i-1 tag {before}",
                    f"i-2 tag {before2}",
                    f"i tag+i-2 tag {before} {before2}",
                    f"i word {here}",
                    f"i-1 tag+i word {before} {here}",
                    f"i-1 word {left}",
                    f"i-1 suffix {left[-3:]}",
                    f"i-2 word {two_left}",
                    f"i+1 word {right}",
                    f"i+1 suffix {right[-3:]}",
                    f"i+2 word {two_right}",
                )
                scores = self._table[[row.get(feature, 0) for feature in features]].sum(axis=0)
                tag = self._tags[int(scores.argmax())]
            out.append(tag)
            before2, before = before, tag
        return out


_DETERMINERS = frozenset(["DT", "PRP$", "PDT", "POS", "WP$"])
_NOUN_OPENERS = _DETERMINERS | {"JJ", "JJR", "JJS", "CD", "NN"}
_ING_OPENERS = _DETERMINERS | {"JJ"}
_OBJECT_OPENERS = frozenset(["DT", "PRP$", "PRP", "RP", "RB", "CD"])
_BASE_VERBS = frozenset(["VB", "VBP"])
_ONLY = {"N": "n", "V": "v"}


class LexiconTagger:
    """Most frequent tag of a word (Brill's lexicon), his rules for unknown words and contexts, then caption rules.

    Needs no download: the lexicon is part of the TextBlob wheel. Which parts of speech a word can have at all comes
    from the SPECIALIST lexicon in the lemminflect wheel (see `PackagedLexicon`).

    Parameters
    ----------
    possible : callable, optional
        ``possible(word, pos) -> bool`` for pos ``n``, ``a`` and ``v``: may the word be a noun, an adjective, a verb?
        Without it the caption rules are not applied.
    """

    def __init__(self, possible: Any = None) -> None:
        from textblob.en import parser

        self._parser = parser
        self._possible = possible

    def describe(self) -> dict[str, Any]:
        """Name and version of the package that holds the lexicon."""
        return {"tagger": "brill-lexicon", "textblob": metadata.version("textblob")}

    def tag(self, words: Sequence[str]) -> list[str]:
        """Penn tags of ``words``; about 3 microseconds a word."""
        if not words:
            return []
        tags = [str(tag) for _, tag in self._parser.find_tags(list(words))]
        # Entity rules append a kind to names, for example NNP-PERS.
        tags = [tag.split("-")[0] if tag[:1] == "N" else tag for tag in tags]
        if self._possible is not None:
            self._correct([word.lower() for word in words], tags)
        return tags

    def _correct(self, words: list[str], tags: list[str]) -> None:
        """Rules for noun or verb where the lexicon's most frequent tag cannot stand.

        1. A base-form verb right after a determiner, adjective, numeral or singular noun is a noun ("a bathroom sink"),
           and so is an ``ing`` form right after a determiner or adjective ("a living room").
        2. A plural noun between a singular noun and the opening of an object is a verb ("a dog chases a ball").
        3. A singular noun between a plural noun and the opening of an object or a preposition is a verb ("geese fly").
        4. A noun behind ``to`` and before the opening of an object is a verb ("tries to catch the ball").
        5. A noun or verb tag that the dictionary excludes gives way to the word's only other part of speech
           (``awning/VBG`` is a noun).
        """
        possible = self._possible
        for i, (word, tag) in enumerate(zip(words, tags, strict=True)):
            left = tags[i - 1] if i else ""
            right = tags[i + 1] if i + 1 < len(tags) else ""
            openers = _NOUN_OPENERS if tag in _BASE_VERBS else _ING_OPENERS if tag == "VBG" else ()
            if left in openers and possible(word, "n"):
                tags[i] = "NN"
            elif tag == "NNS" and left in {"NN", "NNP"} and right in _OBJECT_OPENERS and possible(word, "v"):
                tags[i] = "VBZ"
            elif tag == "NN" and left == "NNS" and right in _OBJECT_OPENERS | {"IN"} and possible(word, "v"):
                tags[i] = "VBP"
            elif tag == "NN" and left == "TO" and right in _OBJECT_OPENERS and possible(word, "v"):
                tags[i] = "VB"
            elif tag[:1] in _ONLY and not possible(word, _ONLY[tag[:1]]):
                others = [pos for pos in "nav" if possible(word, pos)]
                if len(others) == 1:
                    plural = others == ["n"] and word.endswith("s") and not word.endswith("ss")
                    tags[i] = "NNS" if plural else {"n": "NN", "a": "JJ", "v": "VB"}[others[0]]
