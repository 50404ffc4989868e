"""The page of directions: where each concept is in the images, what it is called, which logits it moves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdxcli.report.charts import curves
from rdxcli.report.gallery import Bar, Card, Page, Picture, Section

if TYPE_CHECKING:
    from markupsafe import Markup


def page(document: Mapping[str, Any], command: str = "") -> Page:
    """The `Page` of a ``directions`` document."""
    model = document["model"]
    found = document["directions"]
    facts = f"{document['samples']['n']} samples"
    if document["samples"]["dataset"]:
        facts += f" of {document['samples']['dataset']}"
    facts += f", layer {model['layer'] or 'array'}, {len(found)} directions, method {document['method']}"
    bars = "Bars: " + (_EFFECT if any(entry.get("influence") for entry in found) else _LABELS)
    cards = [_card(entry) for entry in found]
    mapped = any(picture.heat is not None for card in cards for picture in card.pictures)
    sections = [Section("Directions", cards, f"{_TEXT}{_WHERE if mapped else '.'} {bars}")]
    names = {entry["index"]: _name(entry) for entry in found}
    if document.get("images"):
        sections.insert(0, Section("Single images", [_image(image, names) for image in document["images"]], _IMAGES))
    if document.get("steering"):
        sections.insert(0, _steering(document["steering"], names))
    fidelity = document["scores"].get("fidelity")
    if fidelity:
        rows = [[_FIDELITY[name], fidelity[name]] for name in _FIDELITY]
        sections.append(
            Section("What the concepts keep of the prediction", table=(["images of the class", "value"], rows))
        )
    masks = document["scores"].get("masks")
    if masks:
        rows = [[_SCORES[name], masks[name]] for name in _SCORES if name in masks]
        sections.append(
            Section("Agreement with the concept masks", table=(["score, on held-out images", "value"], rows))
        )
    recovery = document["scores"].get("recovery")
    if recovery:
        rows = [[name, value] for name, value in recovery.items()]
        sections.insert(0, Section("Agreement with the known directions", table=(["score", "value"], rows)))
    return Page(
        "Directions of feature space",
        f"Which directions of {model['name']} carry concepts",
        facts,
        sections,
        document["notes"],
        [
            ("command", command),
            ("seed", document["seed"]),
            *((name, json.dumps(value)) for name, value in document["parameters"].items()),
        ],
    )


_TEXT = "Images in which the detector of a direction responds most"
_WHERE = "; the colour over an image shows where."
_EFFECT = (
    "what the logits lose when the concept is taken away where it is; only those marked * are more than chance (random "
    "filters, or random images in the place of the concept's)."
)
_LABELS = "labels of the images in which the detector responds."
_IMAGES = (
    "The active concepts of an image, and what the logit of the predicted class would lose without each (bars): "
    "positive ones speak for the prediction, negative ones against it."
)
_FIDELITY = {
    "explained": "share of the variance of the features",
    "same": "images with the same prediction from the concepts alone",
    "same_chance": "the same from mean features",
    "same_best": "the same from as many principal components",
    "logit": "correlation of the logit of the class",
}
_SCORES = {
    "interpretable": "detectors with an IoU of at least 0.04",
    "unique_labels": "different labels among them",
    "mean_iou": "mean IoU",
    "mean_f1": "mean F1",
    "mean_best_f1": "mean F1 with thresholds chosen by the masks",
    "mean_average_precision": "mean average precision",
    "S1": "S1, sum of IoU over detectors",
    "S2": "S2, sum of the best IoU over labels",
    "S2_any": "S2 with detectors of one label joined",
}


def _card(entry: Mapping[str, Any]) -> Card:
    labels = entry.get("sample_labels") or [""] * len(entry["sample_ids"])
    maps = entry.get("concept_maps") or [None] * len(entry["sample_ids"])
    pictures = [
        Picture(sample, label, heat=_heat(heat))
        for sample, label, heat in zip(entry["sample_ids"], labels, maps, strict=True)
    ]
    bars = _signed(
        [(f"{one['class']}{' *' if one['significant'] else ''}", one["effect"]) for one in entry.get("influence", [])]
    )
    if not bars:
        bars = [Bar(name, share, f"{share:.0%}") for name, share in list(entry["labels"].items())[:6]]
    facts: list[tuple[str, Any, str]] = [
        ("images", entry["images"], "Images in which the detector responds"),
        ("of the area", f"{entry['share']:.1%}", "Share of all positions"),
    ]
    if entry.get("health", "sound") != "sound":
        facts.append(
            ("state", entry["health"], "idle: hardly fires; crowded: fires nearly everywhere; copy of another")
        )
    if "stability" in entry:
        facts.append(("stability", entry["stability"], "Cosine with its match when half of the samples are used"))
    if "importance" in entry:
        found = entry["importance"]
        facts.insert(
            0, ("importance", f"{found['total']:.0%} ± {2 * found['error']:.0%}", _SOBOL.format(found["equal"]))
        )
    given = entry.get("concept")
    if given:
        facts.append(
            (
                "told apart",
                f"{given['accuracy']:.0%}",
                "Unseen images of the concept and random ones, balanced accuracy",
            )
        )
        facts.append(("by chance", f"{given['accuracy_chance']:.0%}", "What 95 % of permuted labels stay below"))
        facts.append(("recall", f"{given['recall']:.0%}", "Images of the concept in which the detector responds"))
    mask = entry.get("mask_label")
    if mask:
        facts.append(("IoU", mask["iou"], "Overlap with the concept mask on held-out images"))
        if "random_iou" in mask:
            facts.append(("by chance", mask["random_iou"], "IoU of random filters that fire as often"))
            facts.append(("p", mask["p_value"], "Random filters and maps of other images with an IoU as large"))
        facts.append(("precision", mask["precision"], "Share of the detected positions that are the concept"))
        facts.append(("recall", mask["recall"], "Share of the concept that is detected"))
    words = entry.get("words", [])
    said = _make_up(entry)
    if words:
        said += "; words: " + ", ".join(word["word"] for word in words[:5]) + f" (p = {words[0]['p_value']:.2g})"
    title = f"Direction {entry['index']}"
    if given:
        title += f": {given['name']}"
    elif mask:
        title += f": {mask['concept']}" + ("" if mask["interpretable"] else " (hardly)")
    state = entry.get("health", "sound")
    if state != "sound":
        facts.insert(0, ("state", state, _STATES.get(state, "")))
    return Card(title, facts, pictures, bars, text=said, doubtful=state != "sound")


_SOBOL = (
    "Share of what the logit of the class varies by when concepts are turned down at random (total Sobol index, two "
    "standard errors); {:.0%} if all mattered alike"
)
_STATES = {
    "idle": "Its detector hardly ever responds",
    "crowded": "Its detector responds at most positions",
    "copy": "It points where an earlier direction points",
}


def _make_up(entry: Mapping[str, Any], most: int = 4) -> str:
    """The labels of all images in which the detector responds: the strongest twelve alone may mislead."""
    chance = entry.get("label_chance") or {}
    parts = [
        f"{share:.0%} {name}" + (f" (of all {chance[name]:.0%})" if name in chance else "")
        for name, share in list(entry["labels"].items())[:most]
    ]
    return f"All {entry['images']} images: {', '.join(parts)}" if parts else ""


def _heat(values: Sequence[Sequence[float]] | None) -> Sequence[Sequence[float]] | None:
    """A map that has places."""
    return values if values and len(values) * len(values[0]) > 1 else None


def _signed(values: Sequence[tuple[str, float]], unit: str = "") -> list[Bar]:
    """Bars around zero."""
    return [Bar(name, value, f"{value:+.2f}{unit}") for name, value in values]


def _steering(steering: Mapping[str, Any], names: Mapping[int, str]) -> Section:
    """A card for each step along a direction: what it does to the logits and to the predictions."""
    where = {"all": "at every place", "present": "where it is detected", "absent": "where it is not detected"}
    text = (
        f"What if a concept were stronger or weaker {where[steering['where']]}? Mean change of the logits of "
        f"{steering['images']} images (bars). Amounts are steps along the encoding direction in feature units."
    )
    cards = []
    for step in steering["steps"]:
        gained = ", ".join(f"{name} {count}" for name, count in list(step["to"].items())[:4])
        cards.append(
            Card(
                f"Direction {names[step['direction']].removeprefix('direction ')} by {step['amount']:+.3g}",
                [
                    ("changed", f"{step['changed']:.1%}", "Share of the images whose prediction changes"),
                    ("own strength", step["own_strength"], "Mean signal where it is detected minus where it is not"),
                ],
                bars=_signed([(one["class"], one["change"]) for one in step["classes"]]),
                text=f"newly predicted: {gained}" if gained else "no prediction changes",
            )
        )
    return Section("What if", cards, text, charts=_doses(steering["steps"]))


def _doses(steps: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """For directions with several amounts: change of the logits against the amount."""
    drawn = []
    for index in dict.fromkeys(step["direction"] for step in steps):
        own = sorted((step for step in steps if step["direction"] == index), key=lambda step: step["amount"])
        if len(own) < 2:
            continue
        largest: dict[str, float] = {}
        for step in own:
            for one in step["classes"]:
                largest[one["class"]] = max(largest.get(one["class"], 0.0), abs(one["change"]))
        chosen = sorted(largest, key=lambda name: -largest[name])[:5]
        series = {}
        for name in chosen:
            points = [(s["amount"], one["change"]) for s in own for one in s["classes"] if one["class"] == name]
            series[name] = sorted([*points, (0.0, 0.0)])
        drawn.append(curves(f"Direction {index}: change of the logits", series, "amount"))
    return drawn


def _name(entry: Mapping[str, Any]) -> str:
    """The number of a direction, with its name where it has a clear one."""
    mask, words = entry.get("mask_label"), entry.get("words") or []
    if entry.get("concept"):
        return str(entry["concept"]["name"])
    said = mask["concept"] if mask and mask["interpretable"] else ""
    if not said and words and words[0]["p_value"] < 0.05:
        said = words[0]["word"]
    return f"{entry['index']}: {said}" if said else f"direction {entry['index']}"


def _image(image: Mapping[str, Any], names: Mapping[int, str]) -> Card:
    """One image, once for each active concept, with what that does to the prediction."""
    own = Picture(image["sample_id"], "the image", strong=True)
    pictures = [
        Picture(image["sample_id"], names[one["direction"]], heat=_heat(one["map"])) for one in image["concepts"]
    ]
    values = [
        (names[one["direction"]], one["contribution"]) for one in image["concepts"] if one["contribution"] is not None
    ]
    bars = _signed(values) or [
        Bar(names[one["direction"]], one["activation"], f"{one['activation']:.2f}") for one in image["concepts"]
    ]
    said = []
    if image["label"] is not None:
        said.append(f"label {image['label']}")
    if image["prediction"] is not None:
        said.append(f"predicted {image['prediction']}")
    if not image["concepts"]:
        said.append("no concept is active")
    return Card(image["sample_id"], pictures=[own, *pictures], bars=bars, text=", ".join(said))
