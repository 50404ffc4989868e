"""The page of explained embeddings: images with the words that make up their embeddings, classes with theirs.

With several methods (``--method all``) also their scoreboard, curves of deletion and insertion, and both methods' words
for each image side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rdxcli.report import charts
from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

MOST_CLASSES = 40
COLUMNS = {
    "method": "method",
    "agreement": "agreement (95 % interval)",
    "accuracy": "accuracy",
    "cosine": "cosine",
    "i2t_r1": "best text, %",
    "t2i_r1": "best image, %",
    "l0": "concepts an image",
    "deletion_gain": "deletion gain",
    "insertion_gain": "insertion gain",
}
"""Key and title of the columns of the scoreboard."""
JUDGES = {
    "embedding": "cosine to the teacher's image embedding",
    "prediction": "share of images with the teacher's class",
}


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of an ``attributions`` document."""
    images = document["images"]
    facts = f"{document['n']} images, method {document['method']}"
    sections = [*_judgement(document), *_summary(document)]
    pictured = bool(document["samples"].get("dataset"))
    text = "The surrogate's concepts first, then SpLiCE's words" if "methods" in document["summary"] else ""
    sections.append(Section("Images", [_card(image, pictured) for image in images], text))
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


def _summary(document: Mapping[str, Any]) -> list[Section]:
    """The data set as a whole, the classes, and why one class and not another."""
    summary, sections = document["summary"], []
    if "methods" in summary:
        cards = [
            Card(name, bars=_bars(concepts), text="Mean score of each concept")
            for name, concepts in summary["methods"].items()
        ]
    else:
        cards = [Card("All images", bars=_bars(summary["data_set"]), text="Mean score of each concept")]
    if "contrast" in summary:
        found = summary["contrast"]
        title, text = f"Why {found['class']}, not {found['rival']}", f"Mean score in {found['over']}"
        cards.append(Card(title, bars=_bars(found["concepts"]), text=text))
    sections.append(Section("Data set", cards))
    predicted = [entry for entry in summary.get("classes") or () if entry["images"]]
    if predicted:
        chosen = sorted(predicted, key=lambda entry: -entry["images"])[:MOST_CLASSES]
        text = "Mean score of each concept towards the class, over the images predicted as it."
        if len(predicted) > MOST_CLASSES:
            text += f" The {MOST_CLASSES} commonest of {len(predicted)} classes."
        cards = [
            Card(
                entry["class"],
                [("images", entry["images"], "Images predicted as this class")],
                bars=_bars(entry["concepts"]),
            )
            for entry in chosen
        ]
        sections.append(Section("Classes: what speaks for them", cards, text))
    return sections


def _judgement(document: Mapping[str, Any]) -> list[Section]:
    """Scoreboard, ranks of texts, curves."""
    sections: list[Section] = []
    if board := document.get("scoreboard"):
        columns = {key: title for key, title in COLUMNS.items() if any(row.get(key) is not None for row in board)}
        rows = [[_cell(row, key) for key in columns] for row in board]
        text = (
            "How well each method stands in for the teacher. `constant` says the same about every image: what it "
            "reaches needs no explanation. Gains of deletion and insertion are areas won over random orders."
        )
        if (own := board[0].get("teacher_accuracy")) is not None:
            text += f" Accuracy of the teacher itself: {own:.3f}."
        sections.append(Section("Scoreboard", text=text, table=(list(columns.values()), rows)))
    if ranked := document.get("retrieval"):
        keys = [key.partition("/")[2] for key in next(iter(ranked.values()))["faithfulness"] if key.startswith("i2t/")]
        rows = [
            [name, kind, words, *(table[kind][f"{way}/{key}"] for key in keys)]
            for name, table in ranked.items()
            for kind in ("faithfulness", "performance")
            for way, words in (("i2t", "text for image"), ("t2i", "image for text"))
        ]
        gallery = document.get("gallery")
        text = f"Recall in percent and ranks, among {gallery} at a time. " if gallery else ""
        text += "Faithfulness: the target is what the teacher ranks first. Performance: the image's own caption."
        sections.append(Section("Retrieval", text=text, table=(["method", "target", "search", *keys], rows)))
    for judge, words in JUDGES.items():
        shown = [_chart(name, found[judge]) for name, found in (document.get("curves") or {}).items() if judge in found]
        if shown:
            text = (
                "Concepts are taken away, or put in, from the one with the largest score down. Random is the same in "
                "random order: a curve that does not differ from it says nothing."
            )
            sections.append(Section(f"Deletion and insertion of concepts: {words}", text=text, charts=shown))
    return sections


def _chart(title: str, found: Mapping[str, Any]) -> Any:
    names = ("deletion", "random_deletion", "insertion", "random_insertion")
    series = {name.replace("_", " "): list(zip(found["fractions"], found[name], strict=True)) for name in names}
    return charts.curves(title, series, "share of concepts removed or inserted")


def _cell(row: Mapping[str, Any], key: str) -> Any:
    value, interval = row.get(key), row.get(f"{key}_interval")
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if value is not None and interval else value


def _bars(concepts: Sequence[Mapping[str, Any]], prefix: str = "") -> list[Bar]:
    return [Bar(prefix + entry["concept"], entry["score"], _digits(entry["score"])) for entry in concepts]


def _digits(score: float) -> str:
    """Two decimals, or three significant digits of a small number."""
    return f"{score:.2f}" if abs(score) >= 0.01 or score == 0 else f"{score:.2g}"


def _card(image: Mapping[str, Any], pictured: bool) -> Card:
    facts: list[tuple[str, Any, str]] = []
    bars: list[Bar] = []
    if "methods" in image:
        if "prediction" in image:
            facts.append(("teacher", image["prediction"], "The teacher's class"))
        for name, found in image["methods"].items():
            if "prediction" in found:
                facts.append((name, found["prediction"], f"Predicted by {name}"))
            bars += _bars(found["concepts"][:6], "" if name == "surrogate" else f"{name}: ")
    else:
        if "prediction" in image:
            facts.append(("prediction", image["prediction"], ""))
            facts.append(("cosine", image["similarity"], "To the class's text; concepts and bias add up to it"))
            facts.append(("bias", image["bias"], "Part of the cosine that no concept explains"))
        if "before" in image:
            facts.append(("before the edit", image["before"], "Predicted with the image's own concepts"))
        bars = _bars(image.get("for_prediction") or image["concepts"])
        bars += _bars([entry for entry in image.get("contrast", ()) if entry["score"]][:6], "contrast: ")
    sample = image["sample_id"]
    title = PurePosixPath(sample).name or sample
    pictures = [Picture(sample, " ")] if pictured else []
    return Card(title, facts, pictures, bars, text=image.get("remark", ""))
