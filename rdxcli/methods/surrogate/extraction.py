"""Captions in, concepts out: a concept is a (lemma, part of speech) pair, or a phrase."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .lexicon import Lexicon, PackagedLexicon, WordNetLexicon
from .nltk_data import find
from .tokenising import LexiconTagger, PerceptronTagger, Tagger, recase, split_sentences, tokenise

POS_NAMES = {"n": "noun", "a": "adjective", "v": "verb", "p": "phrase", "*": "any"}
_CODE = {"N": "n", "J": "a", "V": "v"}


class Concept(NamedTuple):
    """A lemma and its part of speech: ``n`` noun, ``a`` adjective, ``v`` verb, ``p`` phrase, ``*`` any."""

    lemma: str
    pos: str

    def __str__(self) -> str:
        return self.lemma if self.pos == "*" else f"{self.lemma}/{self.pos}"

    @classmethod
    def parse(cls, text: str) -> Concept:
        """Read ``dog/n``; a bare ``dog`` or ``hot dog`` means any part of speech.

        Raises
        ------
        ValueError
            When the text is empty.
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
    tagger : Tagger
    lexicon : Lexicon
    normalisation : {"original", "improved"}
        ``original`` tags the caption as it is, as one string. ``improved`` splits sentences and lower-cases the first
        word of a sentence and shouted captions before tagging.
    phrases : {"none", "compounds", "noun-phrases"}
        Multi-word concepts in addition to their words, with part of speech ``p``: neighbouring nouns that are one
        entry of the lexicon (``hot dog``), or every run of up to ``max_words`` adjectives and nouns that ends in a
        noun.
    max_words : int
        Longest phrase.
    terms : iterable of Concept or str, optional
        Words and phrases to look for whatever the tagger says (part of speech ``*``): matched against the words of a
        caption and against their lemmas. A user's vocabulary of plain words goes here.
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
    ) -> None:
        if normalisation not in {"original", "improved"}:
            raise ValueError(f"Got normalisation {normalisation!r}, expected `original` or `improved`")
        if phrases not in {"none", "compounds", "noun-phrases"}:
            raise ValueError(f"Got phrases {phrases!r}, expected `none`, `compounds` or `noun-phrases`")
        if max_words < 2:
            raise ValueError(f"Got max_words={max_words}, expected at least 2")
        self.tagger, self.lexicon = tagger, lexicon
        self.normalisation, self.phrases, self.max_words = normalisation, phrases, max_words
        self._terms: dict[str, list[tuple[tuple[str, ...], Concept]]] = {}
        for term in terms or ():
            concept = Concept.parse(term) if isinstance(term, str) else Concept(*term)
            words = tuple(concept.lemma.lower().split())
            if not words:
                raise ValueError("Got an empty term, expected a word or a phrase")
            self._terms.setdefault(words[0], []).append((words, concept))
        self._lemmas: dict[tuple[str, str], str | None] = {}

    def describe(self) -> dict[str, Any]:
        """Everything the result depends on, for provenance."""
        from importlib import metadata

        return {
            "tokeniser": f"nltk {metadata.version('nltk')} treebank",
            **self.tagger.describe(),
            **self.lexicon.describe(),
            "normalisation": self.normalisation,
            "phrases": self.phrases,
            "max_words": self.max_words,
            "terms": sum(map(len, self._terms.values())),
        }

    def _lemma(self, word: str, pos: str) -> str | None:
        key = (word, pos)
        if key not in self._lemmas:
            self._lemmas[key] = self.lexicon.lookup(word, pos)
        return self._lemmas[key]

    def concepts(self, caption: str) -> list[Concept]:
        """Concepts of one caption in order of emission: nouns, adjectives, verbs, phrases, terms; repeats kept.

        Parameters
        ----------
        caption : str
        """
        if self.normalisation == "original":
            return self.from_tags(words := tokenise(caption), self.tagger.tag(words))
        parts = [recase(tokenise(sentence)) for sentence in split_sentences(caption)]
        found = [self.from_tags(words, self.tagger.tag(words)) for words in parts]
        if len(found) == 1:
            return found[0]
        order = {pos: rank for rank, pos in enumerate(POS_NAMES)}
        return sorted((concept for part in found for concept in part), key=lambda concept: order[concept.pos])

    def from_tags(self, words: Sequence[str], tags: Sequence[str]) -> list[Concept]:
        """Concepts of words with given Penn tags.

        Parameters
        ----------
        words, tags : sequence of str, equally long
        """
        if len(words) != len(tags):
            raise ValueError(f"Got {len(words)} words and {len(tags)} tags, expected as many tags as words")
        codes = [_CODE.get(tag[:1]) for tag in tags]
        lemmas = [self._lemma(word, code) if code else None for word, code in zip(words, codes, strict=True)]
        found: dict[str, list[Concept]] = {"n": [], "a": [], "v": []}
        for code, lemma in zip(codes, lemmas, strict=True):
            if code and lemma is not None:
                found[code].append(Concept(lemma, code))
        out = found["n"] + found["a"] + found["v"]
        if self.phrases != "none":
            out += self._phrases(words, codes, lemmas)
        if self._terms:
            out += self._matches(words, lemmas)
        return out

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


def load_extractor(source: str = "auto", *, nltk_data: Any = None, **options: Any) -> ConceptExtractor:
    """The published or the packaged way from captions to concepts.

    Parameters
    ----------
    source : {"auto", "published", "packaged"}
        ``published``: NLTK's perceptron tagger and WordNet 3.0, from NLTK data on this machine, normalisation
        ``original`` by default. ``packaged``: lexicons that come with installed packages, normalisation ``improved``.
        ``auto``: published when its data is there, else packaged; `ConceptExtractor.describe` says which.
    nltk_data : path, optional
        Folder to look in instead of NLTK's search path.
    **options
        Further arguments of `ConceptExtractor`.

    Raises
    ------
    ValueError
        For an unknown source.
    FileNotFoundError
        When ``published`` is asked for and the data is not there.
    """
    if source not in {"auto", "published", "packaged"}:
        raise ValueError(f"Got source {source!r}, expected `auto`, `published` or `packaged`")
    folder = find(nltk_data) if source != "packaged" else None
    if folder is not None:
        options.setdefault("normalisation", "original")
        lexicon = WordNetLexicon.from_folder(folder, improved=options["normalisation"] == "improved")
        return ConceptExtractor(PerceptronTagger.from_folder(folder), lexicon, **options)
    if source == "published":
        raise FileNotFoundError(
            "Got no NLTK data, expected the packages averaged_perceptron_tagger_eng and wordnet "
            f"{'under ' + str(nltk_data) if nltk_data else 'on the search path of NLTK'}"
        )
    packaged = PackagedLexicon()
    options.setdefault("normalisation", "improved")
    return ConceptExtractor(LexiconTagger(packaged.possible), packaged, **options)
