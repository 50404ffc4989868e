"""A tagger for captions: HanTa's hidden Markov model, a dictionary, and what is known of the grammar of captions.

The path of tags with the highest probability under HanTa's second-order model is taken, after the probabilities of an
English word's tags were moved by what the British newspapers and novels it was trained on do not know:

1. a tag that the SPECIALIST dictionary excludes for the word is less likely, one it allows and the model lacks can be;
2. a base form is a finite verb only behind something plural ("two men stand"; not in "a fruit stand"), an infinitive
   only behind ``to``, a modal or a verb of perception;
3. behind ``a``, ``every``, ``this`` the head of the noun phrase is singular, so that "a plane lands" has a verb;
4. a form in ``ing`` behind a noun and before no noun is a participle ("a fish swimming in a pond"), and so it is, a
   little less surely, behind the subject ("a girl holding poles") and behind a colour that is worn ("in green");
5. a caption without a word that can only be a verb probably has one among those that can be;
6. a clause has one finite verb, which agrees with its subject: behind one, or a plural, ``bars`` and ``uniforms`` are
   nouns, and behind "a man and a woman" ``stand`` is a verb.

German and Dutch captions are tagged by HanTa's models as they are. Tags are of the Penn set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from . import hanta
from .lexicon import PackagedLexicon

_FAR = 7.0  # tags that are a thousand times rarer for a word are not tried
_START, _END, _UNKNOWN = (0, 1), 2, 3
_BEAM, _SLACK, _UNSEEN = 5, 2.0, -12.0
# Natural logarithms, set on 100 tagged sentences and 60 written for the purpose, none of which is among those of the
# figures in docs/methods/explain_r.md; a change by 1 moves few decisions.
_ADDED, _EXCLUDED, _NO_PLURAL, _NO_SUBJECT, _NO_TRIGGER, _NOT_PLURAL = 3.0, 3.0, 3.0, 2.0, 2.0, 3.0
_SEEN = 1.5  # more of `_ADDED` for a word of which the model knows all its uses
_PARTICIPLE = 2.5
_LIGHT = frozenset(["be", "have", "do"])
_NEEDS_VERB = {"VVZ": 2.0, "VVB": 1.5}
_COORDINATED, _SECOND, _OBJECT, _WELL = 3.5, 3.0, 1.0, 3.0

_PENN = {
    **{"NN0": "NN", "NN1": "NN", "NN2": "NNS", "NP0": "NNP", "AJ0": "JJ", "AJC": "JJR", "AJS": "JJS"},
    **{"VVZ": "VBZ", "VVB": "VBP", "VVI": "VB", "VVD": "VBD", "VVN": "VBN", "VVG": "VBG"},
    **{"AT0": "DT", "PRP": "IN", "PRF": "IN", "TO0": "TO", "CRD": "CD", "CJC": "CC", "AV0": "RB", "VM0": "MD"},
}
_GERMAN = (("NE", "NNP"), ("NN", "NN"), ("ADJ(A)", "JJ"), ("VV", "VB"))
_DUTCH = (("N(eigen", "NNP"), ("N(soort", "NN"), ("ADJ", "JJ"), ("WW", "VB"))
_AUXILIARIES = {"nl": frozenset(["zijn", "is", "was", "waren", "wordt", "worden", "heeft", "hebben", "kan", "kunnen"])}

_FINITE = frozenset(["VVZ", "VVB", "VVI", "VVD", "VVN", "VVG"])
_SUBJECTS = frozenset(["NN0", "NN1", "NN2", "NP0", "PNI", "PNP", "PNQ", "DTQ", "DT0"])
_PLURAL_WITHOUT_S = frozenset(
    [
        "people", "police", "sheep", "deer", "fish", "cattle", "folk", "folks", "staff", "crew", "youth",
        "and", "&", "who", "that", "they", "we", "i", "you"
    ]
)  # fmt: skip
_SINGULAR = frozenset(
    [
        "a", "an", "another", "every", "each", "this", "that", "one"
    ]
)  # fmt: skip
_NOT_SINGULAR = frozenset(
    [
        "few", "lot", "and", "or", "-"
    ]
)  # fmt: skip
_SUBORDINATORS = frozenset(
    [
        "while", "whilst", "as", "when", "where", "who", "which", "that", "but", "or", "because", "if", "then", "what",
        "how", "why", "whose", ";", ":"
    ]
)  # fmt: skip
_CONJUNCTIONS = frozenset(["and", "&", ",", "-", "--"])
_NOT_FINITE = frozenset(["be", "been", "being", "having", "doing", "done"])
_LIGHT_TAGS = ("VB", "VH", "VD", "VM")
_TRIGGERS = frozenset(
    [
        "to", "can", "could", "will", "would", "should", "may", "might", "must", "do", "does", "did", "let",
        "lets", "help", "helps", "make", "makes", "watch", "watches", "watching", "see", "sees", "n't",
        "not"
    ]
)  # fmt: skip
_ADVERBS = {("upside", "down"), ("on", "top")}
_PREPOSITIONS = {("in", "front", "of"), ("on", "top", "of"), ("in", "case", "of"), ("by", "means", "of")}


class CaptionTagger:
    """Penn tags of the words of captions; auxiliaries (``be``, ``have``, ``do``, modals) are tagged ``MD``.

    Parameters
    ----------
    language : {"en", "de", "nl"}
    lexicon : PackagedLexicon, optional
        Which parts of speech an English word can have.

    Notes
    -----
    About 0.1 ms a sentence. HanTa's data are read when the tagger is made, which takes a second.
    """

    def __init__(self, language: str = "en", lexicon: PackagedLexicon | None = None) -> None:
        self.language = language
        self._model: Any = hanta.load(language)
        self._name: dict[int, str] = {code: name for code, name in self._model.int2tag.items() if code > 0}
        self._code = {name: code for code, name in self._name.items()}
        self._lexicon = (lexicon or PackagedLexicon()) if language == "en" else None
        self._emissions: Callable[[str, bool], tuple[tuple[int, float], ...]] = lru_cache(maxsize=None)(self._read)

    def describe(self) -> dict[str, Any]:
        """Name and version of the package that holds the model."""
        return {"tagger": "hanta-captions", "hanta": hanta.version(), "language": self.language}

    def tag(self, words: Sequence[str]) -> list[str]:
        """Penn tags of ``words``."""
        if not words:
            return []
        codes = self._decode(words)
        found = [self._name[code] for code in codes]
        if self.language != "en":
            table, auxiliaries = (_GERMAN if self.language == "de" else _DUTCH), _AUXILIARIES.get(self.language, ())
            return [
                "MD"
                if word.lower() in auxiliaries
                else next((penn for start, penn in table if tag.startswith(start)), "XX")
                for word, tag in zip(words, found, strict=True)
            ]
        tags = [_PENN.get(tag, "MD" if tag.startswith("V") else "XX") for tag in found]
        lower = tuple(map(str.lower, words))
        for i in range(1, len(words) - 1):
            if lower[i - 1 : i + 2] in _PREPOSITIONS:
                tags[i] = "IN"
        for i in range(len(words) - 1):
            if lower[i : i + 2] in _ADVERBS:
                tags[i : i + 2] = "RB", "RB"
        return tags

    def _read(self, word: str, cased: bool) -> tuple[tuple[int, float], ...]:
        """Log probabilities log p(word | tag), up to a constant, of the tags that the word can have."""
        joint = {
            code: float(value)
            for code, value in self._model._tag_word(word, 5, cased, False)
            if code != _UNKNOWN and math.isfinite(value)
        }
        if joint and self._lexicon is not None and word.isalpha():
            self._consult(word.lower(), joint)
        own, least = self._model.LP_wtag, max(joint.values(), default=0.0) - _FAR
        return tuple((code, value - own.get(code, -15.0)) for code, value in joint.items() if value >= least)

    def _consult(self, word: str, joint: dict[int, float]) -> None:
        """Move the probabilities of an English word by what the dictionary says of it."""
        assert self._lexicon is not None
        forms = self._lexicon.forms(word)
        if not forms or not _LIGHT.isdisjoint(forms.get("v", ())):
            return
        added = _ADDED + _SEEN * (word in self._model.cache)
        wanted = set()
        if "v" in forms:
            if word in forms["v"]:
                wanted |= {"VVB", "VVI"}
            elif word.endswith("s"):
                wanted.add("VVZ")
            elif word.endswith("ing"):
                wanted.add("VVG")
            else:
                wanted |= {"VVD", "VVN"}
        if "n" in forms:
            wanted.add("NN1" if word in forms["n"] else "NN2")
        elif "a" in forms:
            wanted.add("AJ0")
        best = max(joint.values())
        for name in wanted:
            joint.setdefault(self._code[name], best - added)
        for code in joint:
            part = _part(self._name[code])
            if part is not None and part not in forms:
                joint[code] -= _EXCLUDED

    def _decode(self, words: Sequence[str]) -> list[int]:
        emissions = [dict(self._emissions(word, i > 0)) for i, word in enumerate(words)]
        if self.language == "en":
            self._agree(words, emissions)
        transitions = self._model.LP_trans_word
        table: list[dict[tuple[int, int], tuple[float, tuple[int, int]]]] = []
        previous: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {_START: (0.0, _START)}
        for here in emissions:
            bound = -math.inf
            if len(previous) > _BEAM:
                bound = sorted((value for value, _ in previous.values()), reverse=True)[_BEAM] - _SLACK
            row: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {}
            for state, (value, _) in previous.items():
                if value < bound:
                    continue
                following = transitions.get(state, {})
                candidates = here or dict.fromkeys((code for code in following if code in self._name), 0.0)
                last = state[1]
                for code, score in (candidates or {self._fallback: 0.0}).items():
                    score += value + following.get(code, _UNSEEN)
                    known = row.get((last, code))
                    if known is None or score > known[0]:
                        row[last, code] = (score, state)
            table.append(row)
            previous = row
        state = max(previous, key=lambda at: previous[at][0] + transitions.get(at, {}).get(_END, _UNSEEN))
        out = []
        for row in reversed(table):
            out.append(state[1])
            state = row[state][1]
        return out[::-1]

    @property
    def _fallback(self) -> int:
        return next(iter(self._name))

    def _agree(self, words: Sequence[str], emissions: list[dict[int, float]]) -> None:
        """Rules 2 to 6 of the module: what stands to the left decides whether a word can be a verb."""
        name, code, own = self._name, self._code, self._model.LP_wtag
        lowered = [word.lower() for word in words]
        finite = [self._is_finite(word, here) for word, here in zip(lowered, emissions, strict=True)]
        clauses = _clauses(lowered, finite)
        complete = {clause for clause, found in zip(clauses, finite, strict=True) if found}
        certain = any(here and all(name[tag] in _FINITE or name[tag][:2] == "VB" for tag in here) for here in emissions)
        state = _Clause()
        plural = subject = singular = trigger = False
        before = ("", "")
        for i, (lower, here) in enumerate(zip(lowered, emissions, strict=True)):
            if i and clauses[i] != clauses[i - 1]:
                state = _Clause()
            following = words[i + 1] if i + 1 < len(words) else ""
            nouns_follow = i + 1 < len(words) and self._may_be(emissions[i + 1], "nm")
            in_colour = before[1] == "AJ0" and state.colour
            if code["VVB"] in here and i > 0:
                needed = 0.0 if certain else _NEEDS_VERB["VVB"]
                if state.coordinated and clauses[i] not in complete and self._may_be(here, "v"):
                    needed = _COORDINATED
                here[code["VVB"]] += (needed if plural else -_NO_PLURAL) - _SECOND * state.finite
            if code["VVI"] in here and not trigger:
                here[code["VVI"]] -= _NO_TRIGGER
            if code["NN2"] in here and singular and not nouns_follow and following not in ("'s", "'"):
                here[code["NN2"]] -= _NOT_PLURAL
            if code["VVG"] in here:
                behind_noun = _part(before[1]) in ("n", "m") or before[1] == "CJS" or in_colour
                if behind_noun and not nouns_follow:
                    here[code["VVG"]] += _PARTICIPLE
                elif behind_noun and state.opening:
                    here[code["VVG"]] += _OBJECT
                if before[1][:2] == "VB" and not nouns_follow and code["NN1"] in here:
                    here[code["NN1"]] -= _PARTICIPLE  # a man is typing
            likeliest = name[max(here, key=lambda tag: here[tag] + own.get(tag, -15.0))] if here else ""
            if lower in _SINGULAR:
                singular = True
            elif lower in _NOT_SINGULAR or likeliest == "VVG" or not _in_phrase([name[tag] for tag in here]):
                singular = False
            trigger = trigger or lower in _TRIGGERS
            if code["VVZ"] in here:
                needed = 0.0 if certain else _NEEDS_VERB["VVZ"]
                verb = here[code["VVZ"]] + own.get(code["VVZ"], -15.0)
                noun = here.get(code["NN2"], -math.inf) + own.get(code["NN2"], -15.0)
                if in_colour and verb > noun - 0.5 and clauses[i] not in complete:
                    needed = _COORDINATED
                here[code["VVZ"]] += needed if subject and not state.plural else -_NO_SUBJECT
                here[code["VVZ"]] -= _SECOND * state.finite
            before = before[1], likeliest
            state.read(lower, likeliest, finite[i], nouns_follow, code["NN1"] in here)
            plural = plural or code["NN2"] in here or lower in _PLURAL_WITHOUT_S
            plural = plural or (likeliest == "CRD" and lower != "one")
            subject = subject or likeliest in _SUBJECTS or code["NN1"] in here

    def _is_finite(self, word: str, here: dict[int, float]) -> bool:
        """Whether a word can only be a finite verb or an auxiliary."""
        names = [self._name[tag] for tag in here]
        return (
            bool(names)
            and word not in _NOT_FINITE
            and all(tag in ("VVZ", "VVB") or tag[:2] in _LIGHT_TAGS for tag in names)
        )

    def _may_be(self, here: dict[int, float], parts: str) -> bool:
        """Whether a word is one of the parts of speech, or can well be one."""
        score = {tag: value + self._model.LP_wtag.get(tag, -15.0) for tag, value in here.items()}
        least = max(score.values(), default=0.0) - _WELL
        return any(value >= least and (_part(self._name[tag]) or " ") in parts for tag, value in score.items())


def _in_phrase(tags: Sequence[str]) -> bool:
    """Whether a word with these tags can stand between a determiner and its noun; unknown words can."""
    return not tags or any(_part(tag) in ("n", "a") or tag in ("ORD", "AV0") for tag in tags)


def _part(tag: str) -> str | None:
    """Noun, name, adjective or full verb of an English tag of HanTa; None for all others."""
    return {"NP": "m", "NN": "n", "AJ": "a", "VV": "v"}.get(tag[:2])


def _clauses(words: Sequence[str], finite: Sequence[bool]) -> list[int]:
    """The clause of every word, by its number; ``and`` and commas end one that has its finite verb."""
    out: list[int] = []
    clause, has_verb = 0, False
    for word, verb in zip(words, finite, strict=True):
        if word in _SUBORDINATORS or (has_verb and word in _CONJUNCTIONS):
            clause, has_verb = clause + 1, False
        has_verb = has_verb or verb
        out.append(clause)
    return out


class _Clause:
    """What has been read of a clause: the number of its subject, and whether it has its finite verb."""

    def __init__(self) -> None:
        self.opening = True  # neither verb nor preposition so far: the words belong to the subject
        self.plural = self.finite = self.coordinated = self.colour = False
        self._noun = self._joined = self._worn = False

    def read(self, word: str, tag: str, finite: bool, nouns_follow: bool, is_noun: bool) -> None:
        """Go on behind a word with its likeliest tag; ``is_noun``: it can be a noun in the singular."""
        part = _part(tag)
        self.colour = self._worn and tag == "AJ0" and is_noun  # in black
        self._worn = word in ("in", "wearing", "wears") or (self._worn and word == "all")
        if part in ("n", "m"):
            self.coordinated = self.coordinated or (self._joined and self.opening)
            if self.opening and not nouns_follow:
                self.plural = self.coordinated or tag == "NN2"
            self._noun = True
        elif part == "v" or tag in ("PRP", "PRF") or finite:
            self.opening = False
        self._joined = self._noun and (word in ("and", "&") or (self._joined and part not in ("n", "m")))
        self.finite = self.finite or finite
