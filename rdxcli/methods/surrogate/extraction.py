"""Captions in, concepts out: a concept is a (lemma, part of speech) pair, or a phrase."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from rdxcli.errors import installed
from rdxcli.progress import human_count

from .caption_tagger import CaptionTagger
from .compounds import LONGEST
from .lexicon import CaptionLexicon, Lexicon, PackagedLexicon, WordNetLexicon
from .nltk_data import find
from .tokenising import LexiconTagger, PerceptronTagger, Tagger, recase, split_sentences, tokenise

POS_NAMES = {"n": "noun", "a": "adjective", "v": "verb", "m": "name", "p": "phrase", "*": "any"}
_CLOSE_UP = re.compile(r"\b(close)(?:\s*-\s*|\s+)up\b", re.I)
SOURCES = ("auto", "hanta", "published", "packaged")
PHRASES = ("none", "merged", "compounds", "noun-phrases")
_PACKAGES = {
    "nltk": SOURCES,
    "textblob": ("auto", "hanta", "packaged"),
    "lemminflect": ("auto", "hanta", "packaged"),
    "HanTa": ("auto", "hanta"),
    "simplemma": ("auto", "hanta"),
}
"""What the sources need of the extra ``captions``; each is imported under the name it is installed by."""
_CODE = {"N": "n", "J": "a", "V": "v"}


class Concept(NamedTuple):
    """A lemma and its part of speech: ``n`` noun, ``a`` adjective, ``v`` verb, ``m`` name, ``p`` phrase, ``*`` any."""

    lemma: str
    pos: str

    def __str__(self) -> str:
        return self.lemma if self.pos == "*" else f"{self.lemma}/{self.pos}"

    @classmethod
    def parse(cls, text: str) -> Concept:
        """Read ``dog/n``; a bare ``dog`` or ``hot dog`` means any part of speech.

        Raises `ValueError` when the text is empty.
        """
        lemma, slash, pos = text.strip().rpartition("/")
        if slash and pos in POS_NAMES and lemma:
            return cls(lemma, pos)
        if not text.strip():
            raise ValueError("Got an empty concept, expected `lemma` or `lemma/pos`")
        return cls(text.strip(), "*")


class ConceptExtractor:
    """Captions in, concepts out.

    Parameters
    ----------
    normalisation : {"original", "improved"}
        ``original`` tags the caption as it is, as one string. ``improved`` splits sentences and lower-cases the first
        word of a sentence and shouted captions before tagging.
    phrases : {"none", "merged", "compounds", "noun-phrases"}
        Concepts of several words. ``merged``: words that are one entry of the lexicon (``hot dog``) are one noun, in
        place of their own concepts. In addition to their words, with part of speech ``p``: ``compounds``, neighbouring
        nouns that are one entry, or ``noun-phrases``, every run of up to ``max_words`` adjectives and nouns that ends
        in a noun.
    max_words : int
        Longest phrase.
    terms : iterable of Concept or str, optional
        Words and phrases to look for whatever the tagger says (part of speech ``*``): matched against the words of a
        caption and against their lemmas. A user's vocabulary of plain words goes here.
    names : bool
        Proper nouns are names (``m``), not nouns.
    """

    def __init__(
        self,
        tagger: Tagger,
        lexicon: Lexicon,
        *,
        normalisation: str = "original",
        phrases: str = "none",
        max_words: int = 3,
        terms: Iterable[Concept | str] | None = None,
        names: bool = False,
    ) -> None:
        if normalisation not in {"original", "improved"}:
            raise ValueError(f"Got normalisation {normalisation!r}, expected `original` or `improved`")
        if phrases not in PHRASES:
            raise ValueError(f"Got phrases {phrases!r}, expected one of {', '.join(PHRASES)}")
        if max_words < 2:
            raise ValueError(f"Got max_words={max_words}, expected at least 2")
        self.tagger, self.lexicon = tagger, lexicon
        self.normalisation, self.phrases, self.max_words, self.names = normalisation, phrases, max_words, names
        self._lemmas: dict[tuple[str, str, str], str | None] = {}
        self._terms: dict[str, list[tuple[tuple[str, ...], Concept]]] = {}
        self.look_for(terms or ())

    def look_for(self, terms: Iterable[Concept | str]) -> None:
        """Add words and phrases to look for whatever the tagger says, like the argument ``terms``."""
        for term in terms:
            concept = Concept.parse(term) if isinstance(term, str) else Concept(*term)
            words = tuple(concept.lemma.lower().split())
            if not words:
                raise ValueError("Got an empty term, expected a word or a phrase")
            self._terms.setdefault(words[0], []).append((words, concept))

    def finds(self, concept: Concept) -> bool:
        """Whether a noun of several words is found as one of the lexicon's compounds."""
        return self.phrases == "merged" and self.lexicon.compound(tuple(concept.lemma.lower().split()))

    def describe(self) -> dict[str, Any]:
        """Everything the result depends on, for provenance."""
        return {
            "tokeniser": f"nltk {metadata.version('nltk')} treebank",
            **self.tagger.describe(),
            **self.lexicon.describe(),
            "normalisation": self.normalisation,
            "phrases": self.phrases,
            "max_words": self.max_words,
            "terms": sum(map(len, self._terms.values())),
        }

    def _lemma(self, word: str, pos: str, tag: str = "") -> str | None:
        key = (word, pos, tag)
        if key not in self._lemmas:
            self._lemmas[key] = self.lexicon.lookup(word, pos, tag)
        return self._lemmas[key]

    def concepts(self, caption: str) -> list[Concept]:
        """Concepts of one caption in order of emission: nouns, adjectives, verbs, phrases, terms; repeats kept."""
        if self.normalisation == "original":
            return self.from_tags(words := tokenise(caption), self.tagger.tag(words))
        caption = _CLOSE_UP.sub(r"\1-up", caption)
        parts = [recase(tokenise(sentence)) for sentence in split_sentences(caption)]
        found = [self.from_tags(words, self.tagger.tag(words)) for words in parts]
        if len(found) == 1:
            return found[0]
        order = {pos: rank for rank, pos in enumerate(POS_NAMES)}
        return sorted((concept for part in found for concept in part), key=lambda concept: order[concept.pos])

    def from_tags(self, words: Sequence[str], tags: Sequence[str]) -> list[Concept]:
        """Concepts of words with given Penn tags."""
        if len(words) != len(tags):
            raise ValueError(
                f"Got {human_count(len(words), 'word')} and {human_count(len(tags), 'tag')}, expected as "
                "many tags as words"
            )
        codes = ["m" if self.names and tag.startswith("NNP") else _CODE.get(tag[:1]) for tag in tags]
        lemmas = [
            self._lemma(word, code, tag) if code else None for word, code, tag in zip(words, codes, tags, strict=True)
        ]
        found: dict[str, list[Concept]] = {"n": [], "a": [], "v": [], "m": []}
        merged = self._merged(words, codes, lemmas) if self.phrases == "merged" else {}
        place = 0
        while place < len(words):
            if place in merged:
                length, compound = merged[place]
                found["n"].append(Concept(compound, "n"))
                place += length
                continue
            code, lemma = codes[place], lemmas[place]
            if code == "m" and lemma is not None and self.phrases == "merged":
                end = place + 1
                while end < len(words) and codes[end] == "m" and lemmas[end] is not None and end not in merged:
                    end += 1
                found["m"].append(Concept(" ".join(map(str, lemmas[place:end])), "m"))  # Los Angeles
                place = end
                continue
            if code and lemma is not None:
                if self.names and code == "n" and lemma[:1].isupper() and not words[place][:1].isupper():
                    code = "m"  # a name that was written in lower case
                found[code].append(Concept(lemma, code))
            place += 1
        out = found["n"] + found["a"] + found["v"] + found["m"]
        if self.phrases not in ("none", "merged"):
            out += self._phrases(words, codes, lemmas)
        if self._terms:
            out += self._matches(words, lemmas)
        return out

    def _merged(
        self, words: Sequence[str], codes: Sequence[str | None], lemmas: Sequence[str | None]
    ) -> dict[int, tuple[int, str]]:
        """Where compounds begin, of how many words they are, and their lemmas; the longest first, none overlap."""
        found: dict[int, tuple[int, str]] = {}
        start = 0
        while start < len(words) - 1:
            for length in range(min(LONGEST, len(words) - start), 1, -1):
                last = start + length - 1
                if codes[last] not in ("n", "m", "a") or any(code is None for code in codes[start:last]):
                    continue  # an adjective too: `tank top`
                first = tuple(word.lower() for word in words[start:last])
                ends = dict.fromkeys([(lemmas[last] or "").lower(), words[last].lower()])
                compound = next((end for end in ends if self.lexicon.compound((*first, end))), None)
                if compound is not None:
                    found[start] = (length, " ".join((*first, compound)))
                    start = last
                    break
            start += 1
        return found

    def _phrases(
        self, words: Sequence[str], codes: Sequence[str | None], lemmas: Sequence[str | None]
    ) -> list[Concept]:
        allowed = {"n"} if self.phrases == "compounds" else {"n", "a"}
        out, start = [], 0
        while start < len(words):
            if codes[start] not in allowed:
                start += 1
                continue
            end = start
            while end < len(words) and codes[end] in allowed:
                end += 1
            for first in range(start, end - 1):
                for last in range(first + 1, min(first + self.max_words, end)):
                    head = lemmas[last]
                    if codes[last] != "n" or head is None:
                        continue
                    phrase = (*(word.lower() for word in words[first:last]), head)
                    if self.phrases == "noun-phrases" or self.lexicon.compound(phrase):
                        out.append(Concept(" ".join(phrase), "p"))
            start = end
        return out

    def _matches(self, words: Sequence[str], lemmas: Sequence[str | None]) -> list[Concept]:
        forms = [
            # Without a lemma of its own (say, a preposition) a word may still be a plural in a longer term.
            {word.lower(), lemma or "", self._lemma(word, "n") or ""}
            for word, lemma in zip(words, lemmas, strict=True)
        ]
        out = []
        for i, here in enumerate(forms):
            for form in sorted(here):
                for term, concept in self._terms.get(form, ()):
                    if len(term) <= len(forms) - i and all(
                        part in forms[i + offset] for offset, part in enumerate(term)
                    ):
                        out.append(concept)
        return out


def missing_packages(source: str = "auto") -> list[str]:
    """What a source of `load_extractor` needs and is not installed (``pip install 'rdx-vision[captions]'``)."""
    return [name for name, sources in _PACKAGES.items() if source in sources and not installed(name)]


def load_extractor(
    source: str = "auto", *, nltk_data: Any = None, language: str = "en", **options: Any
) -> ConceptExtractor:
    """One of the ways from captions to concepts.

    Raises `ValueError` (for an unknown source, or a language that it does not know), `ModuleNotFoundError` (what
    `missing_packages` lists is not installed) or `FileNotFoundError` (when ``published`` is asked for and the data is
    not there).

    Parameters
    ----------
    source : {"auto", "hanta", "published", "packaged"}
        ``hanta``: HanTa's models, corrected for captions, and simplemma's dictionaries; compounds and names are
        concepts of their own (``pip install 'rdx-vision[captions]'``). ``published``: NLTK's perceptron tagger and
        WordNet 3.0, from NLTK data on this machine, normalisation ``original`` by default. ``packaged``: Brill's
        lexicon. ``auto`` is ``hanta``. All are in the extra.
    nltk_data : path, optional
        Folder to look in instead of NLTK's search path.
    language : {"en", "de", "nl"}
        Of the captions; ``published`` and ``packaged`` know English only.
    **options
        Further arguments of `ConceptExtractor`.
    """
    if source not in SOURCES:
        raise ValueError(f"Got source {source!r}, expected one of {', '.join(SOURCES)}")
    if source in ("auto", "hanta"):
        lexicon = CaptionLexicon(language)
        tagger = CaptionTagger(language, lexicon)
        return ConceptExtractor(
            tagger, lexicon, **{"normalisation": "improved", "phrases": "merged", "names": True, **options}
        )
    if language != "en":
        raise ValueError(f"Got language {language!r}, but `{source}` knows English only; `hanta` knows en, de, nl")
    if source == "packaged":
        packaged = PackagedLexicon()
        options.setdefault("normalisation", "improved")
        return ConceptExtractor(LexiconTagger(packaged.possible), packaged, **options)
    folder = find(nltk_data)
    if folder is None:
        raise FileNotFoundError(
            "Got no NLTK data, expected the packages averaged_perceptron_tagger_eng and wordnet "
            f"{'under ' + str(nltk_data) if nltk_data else 'on the search path of NLTK'}"
        )
    options.setdefault("normalisation", "original")
    wordnet = WordNetLexicon.from_folder(folder, improved=options["normalisation"] == "improved")
    return ConceptExtractor(PerceptronTagger.from_folder(folder), wordnet, **options)
