"""How near the way without downloads comes to the published one, on the golden captions: the figures of the docs."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rdxcli.methods.surrogate.encoding import Encodings, encode
from rdxcli.methods.surrogate.extraction import Concept, load_extractor
from rdxcli.methods.surrogate.vocabulary import ConceptCounts, count_concepts, fit_vocabulary

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "data" / "explain_r"


class Stored:
    """Gives the published concepts of a golden caption."""

    def __init__(self, stages: dict, captions: dict) -> None:
        self.found = {
            text: [Concept(*concept) for concept in stage["concepts"]]
            for name, texts in captions.items()
            for text, stage in zip(texts, stages[name], strict=True)
        }

    def concepts(self, caption: str) -> list[Concept]:
        return self.found[caption]


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    stages = json.loads((GOLDEN / "concept_stages.json").read_text("utf-8"))["stages"]
    captions = json.loads((GOLDEN / "captions.json").read_text("utf-8"))
    packaged, published = load_extractor("packaged"), Stored(stages, captions)
    equal, coarse, words = 0, 0, 0
    both = mine = theirs = 0
    for name, texts in captions.items():
        for text, stage in zip(texts, stages[name], strict=True):
            tags = packaged.tagger.tag(stage["tokens"])
            words += len(tags)
            equal += sum(a == b for a, b in zip(tags, stage["tags"], strict=True))
            coarse += sum(kind(a) == kind(b) for a, b in zip(tags, stage["tags"], strict=True))
            # the published way keeps case; here it is folded, so that only the concept counts
            a = Counter(packaged.concepts(text))
            b = Counter(Concept(c.lemma.lower(), c.pos) for c in published.concepts(text))
            both, mine, theirs = both + (a & b).total(), mine + a.total(), theirs + b.total()
    counts = [count_concepts(captions, one) for one in (packaged, published)]
    sets = [set(fit_vocabulary(one, min_count=2, max_threshold=0.25).concepts) for one in counts]
    return {
        "captions": sum(map(len, captions.values())),
        "tags": equal / words,
        "coarse": coarse / words,
        "precision": both / mine,
        "recall": both / theirs,
        "f1": 2 * both / (mine + theirs),
        "jaccard": len(sets[0] & sets[1]) / len(sets[0] | sets[1]),
        "cosine": cosine(counts, sorted(sets[0] | sets[1])),
    }


def kind(tag: str) -> str:
    return tag[0] if tag[0] in "NJV" else "-"


def cosine(counts: list[ConceptCounts], concepts: list[Concept]) -> float:
    """Mean over images of the cosine between both encodings over the union of both vocabularies."""
    from rdxcli.methods.surrogate.vocabulary import given_vocabulary

    found: list[Encodings] = [encode(one, given_vocabulary(one, concepts)) for one in counts]
    a, b = (one.dense(np.float64) for one in found)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.einsum("nc,nc->n", a, b)[norms > 0] / norms[norms > 0]).mean())


def test_agreement_is_what_the_docs_say(figures: dict[str, float]) -> None:
    print({name: round(value, 3) for name, value in figures.items()})
    assert figures["tags"] > 0.9
    assert figures["coarse"] > 0.92
    assert figures["f1"] > 0.88
    assert figures["jaccard"] > 0.7
    assert figures["cosine"] > 0.85
    text = " ".join((ROOT / "docs" / "methods" / "explain_r.md").read_text("utf-8").split())
    stated = re.search(
        r"\((\d+) captions.*?tags ([\d.]+) % \(.*?([\d.]+) %\).*?precision ([\d.]+), recall ([\d.]+), F1 ([\d.]+);"
        r".*?overlap ([\d.]+) by Jaccard; mean cosine of the encodings ([\d.]+)\.",
        text,
    )
    assert stated is not None
    named = zip(figures, map(float, stated.groups()), strict=True)
    for name, value in named:
        scale = 100 if name in ("tags", "coarse") else 1
        assert figures[name] * scale == pytest.approx(value, abs=0.051 if scale == 100 else 0.0051), name
