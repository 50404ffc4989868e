"""The page of explained embeddings: images with the words that make up their embeddings, classes with theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

MOST_IMAGES, MOST_CLASSES = 64, 40


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of an ``attributions`` document."""
    images, classes = document["images"], document["summary"].get("classes")
    facts = f"{document['n']} images, method {document['method']}"
    if len(images) > MOST_IMAGES:
        facts += f"; the first {MOST_IMAGES} are shown"
    whole = Card("All images", bars=_bars(document["summary"]["data_set"]), text="Mean score of each concept")
    sections = [Section("Data set", [whole])]
    if classes:
        cards = [
            Card(entry["class"], [("images", entry["images"], "Images predicted as this class")], (),
                 _bars(entry["concepts"]))
            for entry in sorted(classes, key=lambda entry: -entry["images"])[:MOST_CLASSES]
            if entry["images"]
        ]  # fmt: skip
        sections.append(Section("Classes: what speaks for them", cards))
    sections.append(Section("Images", [_card(image) for image in images[:MOST_IMAGES]]))
    return Page(
        "Embeddings in words",
        "Which words explain these embeddings",
        facts,
        sections,
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


def _bars(concepts: Sequence[Mapping[str, Any]], prefix: str = "") -> list[Bar]:
    largest = max((abs(entry["score"]) for entry in concepts), default=1.0) or 1.0
    return [Bar(prefix + entry["concept"], entry["score"] / largest, f"{entry['score']:.2f}") for entry in concepts]


def _card(image: Mapping[str, Any]) -> Card:
    facts = []
    if "prediction" in image:
        facts = [("prediction", image["prediction"], ""), ("cosine", image["similarity"], "To the class's text")]
    bars = _bars(image.get("for_prediction") or image["concepts"])
    bars += _bars(image.get("contrast", ()), "contrast: ")
    return Card(image["sample_id"], facts, [Picture(image["sample_id"])], bars, text=image.get("remark", ""))
