"""Explained embeddings in a summary: images with the words that make up their embeddings, classes with theirs.

With several methods (``--method all``) also their scoreboard, curves of deletion and insertion, and both methods' words
for each image side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rdxcli.progress import human_count, human_p
from rdxcli.report.summary import Bar, Chart, Column, Item, Picture, Section, Summary, Table, images_of

BOARD = {
    "method": Column("method"),
    "agreement": Column("agreement", "Share of the images with the teacher's class", "share", "higher"),
    "accuracy": Column("accuracy", "Share of the images with the right class", "share", "higher"),
    "cosine": Column("cosine", "To the teacher's image embedding", better="higher"),
    "i2t_r1": Column("best text, %", "Images that find the text the teacher finds first", better="higher"),
    "t2i_r1": Column("best image, %", "Texts that find the image the teacher finds first", better="higher"),
    "l0": Column("concepts an image", better="lower"),
    "deletion_gain": Column("deletion gain", "Area won over deleting concepts in random order", better="higher"),
    "insertion_gain": Column("insertion gain", "Area won over inserting concepts in random order", better="higher"),
}
"""Key and column of the scoreboard."""
JUDGES = {
    "embedding": "cosine to the teacher's image embedding",
    "prediction": "share of images with the teacher's class",
}


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of an ``attributions`` document."""
    board = document.get("scoreboard")
    dataset = document["samples"].get("dataset")
    # one method's images are what was asked for; several are compared first
    judged = "methods" in document["summary"]
    sections = [*_judgement(document, printed=judged)]
    sections.insert(len(sections) if judged else 0, _images(document, printed=not judged))
    sections += _summary(document)
    lines = _said(document)
    if board and (own := board[0].get("teacher_accuracy")) is not None:
        lines.append(f"accuracy of the teacher itself: {own:.3f}")
    return Summary(
        kind="attributions",
        method=document["method"],
        kicker="Embeddings in words",
        title=f"{images_of(document['n'], None)}, agreement with the teacher" if judged else "concepts of the images",
        facts=f"{images_of(document['n'], dataset)}, method {document['method']}",
        sections=sections,
        said=lines,
        notes=document["notes"],
        dataset=dataset,
    )


def _said(document: Mapping[str, Any]) -> list[str]:
    lines = []
    if "contrast" in document["summary"]:
        found = document["summary"]["contrast"]
        lines.append(
            f"what speaks for {found['class']} and not {found['rival']} in {found['over']}: "
            f"{listed(found['concepts'], 10)}"
        )
    if document["parameters"].get("bias") == "separate":
        lines.append("the scores of all concepts and the bias sum to the cosine with the class")
    for row in document.get("scoreboard") or []:
        if "methods" not in document["summary"]:
            agreement = "" if row["agreement"] is None else f"agreement with the teacher {row['agreement']:.3f}, "
            lines.append(f"{row['method']}: {agreement}cosine {row['cosine']:.3f}, {row['l0']:.1f} concepts per image")
        elif row.get("accuracy") is not None:
            numbers = (100 * row["accuracy"], 100 * row["agreement"], row["l0"], row["cosine"])
            line = "/".join(f"{number:.2f}" for number in numbers)
            lines.append(f"{row['method']} as published (A/F/S/C): ({line})")
    lines += map(_compared, document.get("paired") or [])
    return lines


DIFFERENCES = {"agreement": "agreement", "i2t_r1": "best text %", "t2i_r1": "best image %", "cosine": "cosine"}


def _compared(pair: Mapping[str, Any]) -> str:
    """Two methods on the same images, in a line."""
    said = []
    if "p" in pair:
        said.append(
            f"{pair['only_a']} and {human_count(pair['only_b'], 'image')} on which only one of them "
            "agrees with the teacher "
            f"(p {human_p(pair['p'])})"
        )
    found = pair.get("differences") or {}
    parts = [
        f"{title} {found[key][0]:+.3g} ({found[key][1]:+.3g} to {found[key][2]:+.3g})"
        for key, title in DIFFERENCES.items()
        if key in found
    ]
    if parts:
        said.append(f"difference, with 95 % interval: {', '.join(parts)}")
    return f"{pair['a']} against {pair['b']}: {'; '.join(said)}"


def listed(entries: Sequence[Mapping[str, Any]], most: int = 5) -> str:
    """Concepts with their scores in a line."""
    return ", ".join(f"{entry['concept']} {digits(entry['score'])}" for entry in entries[:most])


def digits(score: float) -> str:
    """Two decimals, or three significant digits of a small number."""
    return f"{score:.2f}" if abs(score) >= 0.01 or score == 0 else f"{score:.2g}"


def _images(document: Mapping[str, Any], printed: bool) -> Section:
    images, several = document["images"], "methods" in document["summary"]
    pictured = bool(document["samples"].get("dataset"))
    contrast = document["summary"].get("contrast")
    columns = [
        Column("prediction", "The teacher's class" if several else "Class that the concepts speak for most"),
        Column("cosine", "To the class's text; concepts and bias add up to it"),
        Column("bias", "Part of the cosine that no concept explains"),
        Column("before the edit", "Predicted with the image's own concepts"),
        Column("concepts", on_card=False),
    ]
    if contrast:
        columns.append(Column(f"why {contrast['class']}, not {contrast['rival']}", on_card=False))
        order = {contrast["class"]: 0, contrast["rival"]: 1}
        images = sorted(images, key=lambda image: order.get(image.get("prediction"), 2))
    items = [_image(image, pictured, contrast is not None) for image in images]
    text = "The surrogate's concepts first, then SpLiCE's words." if several else ""
    return Section("Images", "images", items, "image", columns, text, printed=printed)


def _image(image: Mapping[str, Any], pictured: bool, contrast: bool) -> Item:
    sample, beside = image["sample_id"], []
    if "methods" in image:
        bars, words = [], []
        for name, found in image["methods"].items():
            if "prediction" in found:
                beside.append(f"{name} says {found['prediction']}")
            bars += _bars(found["concepts"][:6], "" if name == "surrogate" else f"{name}: ")
            words.append(f"{name}: {listed(found['concepts'])}")
        said = "; ".join(words)
    else:
        entries = image.get("for_prediction") or image["concepts"]
        said = listed(entries) or image.get("remark", "")
        bars = _bars(entries) + _bars([one for one in image.get("contrast", ()) if one["score"]][:6], "contrast: ")
    values = [image.get(name) for name in ("prediction", "similarity", "bias", "before")]
    return Item(
        sample,
        PurePosixPath(sample).name or sample,
        [*values, said, *([listed(image["contrast"]) if "contrast" in image else None] if contrast else [])],
        image.get("remark", ""),
        pictures=[Picture(sample)] if pictured else [],
        bars=bars,
        beside=beside,
    )


def _summary(document: Mapping[str, Any]) -> list[Section]:
    """The data set as a whole, the classes, and why one class and not another."""
    summary = document["summary"]
    whole = summary.get("methods") or {"all images": summary["data_set"]}
    items = [
        Item(name, name, [listed(concepts)], "Mean score of each concept", bars=_bars(concepts))
        for name, concepts in whole.items()
    ]
    if "contrast" in summary:
        found = summary["contrast"]
        title = f"why {found['class']}, not {found['rival']}"
        text = f"Mean score in {found['over']}"
        items.append(Item(title, title, [listed(found["concepts"])], text, bars=_bars(found["concepts"])))
    sections = [
        Section("Data set", "data-set", items, "what", [Column("concepts", "Mean score of each", on_card=False)])
    ]
    predicted = [entry for entry in summary.get("classes") or () if entry["images"]]
    if predicted:
        chosen = sorted(predicted, key=lambda entry: -entry["images"])
        columns = [
            Column("images", "Images predicted as this class"),
            Column("concepts", "Mean score of each", on_card=False),
        ]
        cards = [
            Item(
                entry["class"],
                entry["class"],
                [entry["images"], listed(entry["concepts"])],
                bars=_bars(entry["concepts"]),
            )
            for entry in chosen
        ]
        text = "Mean score of each concept towards the class, over the images predicted as it."
        sections.append(Section("Classes: what speaks for them", "classes", cards, "class", columns, text))
    return sections


def _judgement(document: Mapping[str, Any], printed: bool) -> list[Section]:
    """Scoreboard, ranks of texts, curves."""
    sections: list[Section] = []
    if board := document.get("scoreboard"):
        keys = [key for key in BOARD if any(row.get(key) is not None for row in board)]
        columns: list[Column] = []
        for key in keys:
            columns.append(BOARD[key])
            if any(row.get(f"{key}_interval") for row in board):
                columns.append(Column("95 %", f"Interval of {BOARD[key].name} over images", BOARD[key].unit))
        rows = []
        for row in board:
            cells: list[Any] = []
            for key in keys:
                cells.append(row.get(key))
                if any(other.get(f"{key}_interval") for other in board):
                    interval = row.get(f"{key}_interval")
                    cells.append(tuple(interval) if interval else None)
            rows.append(cells)
        text = (
            "How well each method stands in for the teacher. `constant` says the same about every image: what it "
            "reaches needs no explanation. Gains of deletion and insertion are areas won over random orders."
        )
        sections.append(
            Section("Scoreboard", "scoreboard", text=text, tables=[Table("", columns, rows)], printed=printed)
        )
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
        columns = [Column(name) for name in ("method", "target", "search", *keys)]
        sections.append(Section("Retrieval", "retrieval", text=text, tables=[Table("", columns, rows)]))
    for judge, words in JUDGES.items():
        shown = [
            _chart(name, found[judge], words)
            for name, found in (document.get("curves") or {}).items()
            if judge in found
        ]
        if shown:
            text = (
                "Concepts are taken away, or put in, from the one with the largest score down. Random is the same in "
                "random order: a curve that does not differ from it says nothing."
            )
            title = f"Deletion and insertion of concepts: {words}"
            sections.append(Section(title, f"curves-{judge}", text=text, charts=shown))
    return sections


def _chart(title: str, found: Mapping[str, Any], judge: str) -> Chart:
    names = ("deletion", "random_deletion", "insertion", "random_insertion")
    series = {name.replace("_", " "): list(zip(found["fractions"], found[name], strict=True)) for name in names}
    return Chart(title, "curves", series, "share of concepts removed or inserted", judge)


def _bars(concepts: Sequence[Mapping[str, Any]], prefix: str = "") -> list[Bar]:
    return [Bar(prefix + entry["concept"], entry["score"], digits(entry["score"])) for entry in concepts]
