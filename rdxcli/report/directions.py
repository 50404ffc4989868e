"""Directions in a summary: where each concept is in the images, what it is called, which logits it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdxcli.progress import human_count, human_p
from rdxcli.report.summary import Bar, Chart, Column, Item, Picture, Section, Summary, Table, images_of
from rdxcli.report.text import clean

COLUMNS = (
    Column("images", "Images in which the detector responds"),
    Column(
        "importance",
        "Share of what the logit of the class varies by when concepts are turned down at random (total Sobol index)",
        "share",
        "higher",
    ),
    Column("95 %", "Interval of the importance", "share", brief=False),
    Column("if all mattered alike", "The importance of each then", "share", brief=False),
    Column("share", "Share of all positions at which it responds", "share"),
    Column("state", "idle: hardly fires; crowded: fires nearly everywhere; copy of another", on_card=False),
    Column("stability", "Cosine with its match when half of the samples are used", better="higher"),
    Column(
        "label",
        "Its name with what chance reaches, else the labels of its images with their shares of all",
        on_card=False,
    ),
    Column("clarity", "How far its signal differs where it is detected, in units of its spread", better="higher"),
    Column("clarity by chance", "That of random filters that fire as often", brief=False),
    Column("gives to the logits of", "Classes that it moves clearly, see the text", on_card=False),
    Column("IoU", "Overlap with the concept mask on held-out images", better="higher", brief=False),
    Column("by chance", "IoU of random filters that fire as often", brief=False),
    Column("p", "Random filters and maps of other images with an IoU as large", better="lower", brief=False),
    Column("precision", "Share of the detected positions that are the concept", "share", "higher", False),
    Column("recall", "Share of the concept that is detected", "share", "higher", False),
    Column("told apart", "Unseen images of the concept and random ones, balanced accuracy", "share", "higher", False),
    Column("told apart by chance", "What 95 % of permuted labels stay below", "share", brief=False),
    Column("concept found", "Images of the concept in which the detector responds", "share", "higher", False),
)

SCORES = {
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

FIDELITY = {
    "explained": "share of the variance of the features",
    "same": "images with the same prediction from the concepts alone",
    "same_chance": "the same from mean features",
    "same_best": "the same from as many principal components",
    "logit": "correlation of the logit of the class",
}

VALUE = (Column("score"), Column("value"))

IN_SHORT = 3
"""Single images that the sentences name; the section has all."""


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``directions`` document."""
    model, found, scores = document["model"], document["directions"], document["scores"]
    layer = model["layer"] or "array"
    facts = images_of(document["samples"]["n"], document["samples"]["dataset"], "sample")
    facts += f", layer {layer}, {human_count(len(found), 'direction')}, method {document['method']}"
    # the strongest effects on a prediction first
    items = sorted(map(_item, sorted(found, key=_strength)), key=lambda item: item.doubtful)
    mapped = any(picture.heat is not None for item in items for picture in item.pictures)
    bars = "Bars: " + (_EFFECT if any(entry.get("influence") for entry in found) else _LABELS)
    names = {entry["index"]: _name(entry) for entry in found}
    sections = [
        Section(
            "Directions", "directions", items, "direction", COLUMNS, f"{_TEXT}{_WHERE if mapped else '.'} {bars}",
            printed=True,
        )
    ]  # fmt: skip
    if "numbers" in scores:
        sections.append(_numbers(scores["numbers"]))
    if document.get("images"):
        wrong_first = sorted(document["images"], key=lambda image: not _is_wrong(image))
        shown = [_image(image, names) for image in wrong_first]
        sections.append(Section("Single images", "images", shown, "image", IMAGE, _IMAGES))
    if document.get("steering"):
        sections.append(_steering(document["steering"], names))
    masks, recovery, fidelity = (scores.get(name) for name in ("masks", "recovery", "fidelity"))
    if fidelity:
        rows = [[FIDELITY[name], fidelity[name]] for name in FIDELITY]
        tables = [Table("", VALUE, rows, "Of the images of the class.")]
        sections.append(Section("What the concepts keep of the prediction", "fidelity", tables=tables))
    if masks:
        rows = [[SCORES[name], masks[name]] for name in SCORES if name in masks]
        sections.append(
            Section("Agreement with the concept masks", "masks", tables=[Table("", VALUE, rows, "On held-out images.")])
        )
    if recovery:
        rows = [[name, value] for name, value in recovery.items() if isinstance(value, int | float)]
        sections.append(Section("Agreement with the known directions", "recovery", tables=[Table("", VALUE, rows)]))
    return Summary(
        kind="directions",
        method=document["method"],
        kicker="Directions of feature space",
        title=f"directions of {model['name']} ({layer})",
        facts=facts,
        sections=sections,
        said=_lines(document),
        notes=document["notes"],
        dataset=document["samples"]["dataset"],
    )


NUMBERS = (
    Column("directions"),
    Column("explained", "Share of the variance of samples that the directions were not found on", "share", "higher"),
    Column("random", "That of as many random directions", "share"),
    Column("found again", "Correlation of the detectors of two halves of the samples", better="higher"),
    Column("by chance", "That with random filters"),
    Column("cosine", "Of the matched encoding directions of both halves", better="higher"),
    Column("labels", "Labels that some detector tells on samples it was not found on", better="higher"),
    Column("labels by chance", "The same for permuted labels"),
)


def _numbers(found: Mapping[str, Any]) -> Section:
    """What speaks for each number of directions."""
    names = ("number", "explained", "random", "stability", "chance", "cosine", "labels", "labels_chance")
    rows = [[row.get(name) for name in names] for row in found["rows"]]
    text = f"{found['reason'][0].upper()}{found['reason'][1:]}."
    return Section("How many directions?", "numbers", tables=[Table("", NUMBERS, rows, text)])


_TEXT = "Images in which the detector of a direction responds most"
_WHERE = "; the colour over an image shows where."
_EFFECT = (
    "what the logits lose when the concept is taken away where it is; those marked * are more than chance: the "
    "detector is clearer than nearly all random filters, and moves the class no less than these do (for given images: "
    "more than random images in the place of the concept's)."
)
_LABELS = "labels of the images in which the detector responds."
_IMAGES = (
    "The active concepts of an image, and what the logit of the predicted class would lose without each (bars): "
    "positive ones speak for the prediction, negative ones against it."
)


def _lines(stored: Mapping[str, Any]) -> list[str]:
    lines = _quality(stored["scores"])
    found = stored["scores"].get("recovery")
    if found:
        lines.insert(0, ", ".join(f"{name} {value:.3g}" for name, value in found.items() if isinstance(value, float)))
    for step in (stored.get("steering") or {}).get("steps", []):
        moved = [f"{one['class']} {one['change']:+.2f}" for one in step["classes"][:4]]
        gained = [f"{name} {count}" for name, count in list(step["to"].items())[:3]]
        lines.append(
            f"direction {step['direction']} by {step['amount']:+.3g}: logits of {', '.join(moved)}; "
            f"{step['changed']:.1%} of the predictions change" + (f", to {', '.join(gained)}" if gained else "")
        )
    images = stored.get("images") or []
    for image in images[:IN_SHORT]:
        parts = [
            f"direction {one['direction']}"
            + (f" {one['contribution']:+.2f}" if one["contribution"] is not None else f" {one['activation']:.2f}")
            for one in image["concepts"][:4]
        ]
        said = f"{image['sample_id']}" + (f", said to be {image['prediction']}" if image["prediction"] else "")
        lines.append(f"{said}: {', '.join(parts) or 'no concept is active'}")
    left = len(images) - IN_SHORT
    return [*lines, f"and {human_count(left, 'more image')} under Single images"] if left > 0 else lines


def _quality(scores: Mapping[str, Any]) -> list[str]:
    """One line on how good the fit is."""
    parts = []
    if "numbers" in scores:
        parts.append(scores["numbers"]["reason"])
    if "dictionary" in scores:
        d = scores["dictionary"]
        parts.append(
            f"dictionary: explained variance {d['explained_variance']:.0%} with {d['l0']:.1f} latents at a position, "
            f"{d['dead']:.0%} dead"
        )
    elif "variance" in scores:
        v = scores["variance"]
        parts.append(f"explained variance {v['explained']:.0%} (random {v['random']:.0%}, best {v['best']:.0%})")
    if "fidelity" in scores:
        f = scores["fidelity"]
        parts.append(
            f"from the concepts alone {f['same']:.0%} of the predictions stay (from mean features "
            f"{f['same_chance']:.0%}, best {f['same_best']:.0%}), the logit correlates {f['logit']:.2f}"
        )
    if "stability" in scores:
        again = scores["stability"]
        parts.append(
            f"found again on half of the samples with cosine {again['mean']:.2f} (chance {again['chance']:.2f})"
        )
    state = scores.get("health", {}).get("summary")
    if state:
        parts.append(", ".join(f"{count} {name}" for name, count in state.items() if count))
    if "influence" in scores:
        found = scores["influence"]
        parts.append(
            f"directions that move a class {_OF_CHANCE.get(found.get('null'), 'more clearly than random filters')} do: "
            f"{found['directions']}"
            if found.get("null") != "published"
            else f"{found['directions']} with significant sensitivity"
        )
    return ["; ".join(parts)] if parts else []


def _labelled(entry: Mapping[str, Any]) -> str:
    """The name of a direction with its chance, else the labels of its images with theirs."""
    mask, words, given = entry.get("mask_label"), entry.get("words"), entry.get("concept")
    if given:
        return f"{given['name']} (told apart {given['accuracy']:.0%}, chance {given['accuracy_chance']:.0%})"
    if mask:
        chance = f", random {mask['random_iou']:.2f}, p {human_p(mask['p_value'])}" if "random_iou" in mask else ""
        return f"{mask['concept']} (IoU {mask['iou']:.2f}{chance})"
    if words:
        return ", ".join(word["word"] for word in words[:3]) + f" (p {human_p(words[0]['p_value'])})"
    return _shares(entry, 3)


def _shares(entry: Mapping[str, Any], most: int) -> str:
    chance = entry.get("label_chance") or {}
    return ", ".join(
        f"{share:.0%} {clean(name, 40)}" + (f" (of all {chance[name]:.0%})" if name in chance else "")
        for name, share in list(entry["labels"].items())[:most]
    )


def _moved(entry: Mapping[str, Any]) -> str:
    moved = [f"{one['class']} {one['effect']:+.2f}" for one in entry.get("influence", []) if one["significant"]]
    return ", ".join(moved[:3])


def _strength(entry: Mapping[str, Any]) -> float:
    return -max((abs(one["effect"]) for one in entry.get("influence", []) if one["significant"]), default=0.0)


def _item(entry: Mapping[str, Any]) -> Item:
    labels = entry.get("sample_labels") or [""] * len(entry["sample_ids"])
    maps = entry.get("concept_maps") or [None] * len(entry["sample_ids"])
    pictures = [
        Picture(sample, label, heat=_heat(heat))
        for sample, label, heat in zip(entry["sample_ids"], labels, maps, strict=True)
    ]
    chance = entry.get("label_chance") or {}
    bars = _signed(
        [(f"{one['class']}{' *' if one['significant'] else ''}", one["effect"]) for one in entry.get("influence", [])]
    )
    if not bars:
        bars = [Bar(name, share, f"{share:.0%}", chance.get(name)) for name, share in list(entry["labels"].items())[:6]]
    words, mask, state = entry.get("words", []), entry.get("mask_label") or {}, entry.get("health")
    # the strongest twelve alone may mislead
    said = f"All {human_count(entry['images'], 'image')}: {_shares(entry, 4)}" if entry["labels"] else ""
    if words:
        said += "; words: " + ", ".join(word["word"] for word in words[:5]) + f" (p {human_p(words[0]['p_value'])})"
    title = f"Direction {entry['index']}"
    given, sobol = entry.get("concept") or {}, entry.get("importance") or {}
    if given:
        title += f": {given['name']}"
    elif mask:
        title += f": {mask['concept']}" + ("" if mask["interpretable"] else " (hardly)")
    return Item(
        entry["index"],
        title,
        [
            entry["images"],
            sobol.get("total"),
            (sobol["total"] - 2 * sobol["error"], sobol["total"] + 2 * sobol["error"]) if sobol else None,
            sobol.get("equal"),
            entry["share"],
            state,
            entry.get("stability"),
            _labelled(entry),
            entry.get("clarity"),
            entry.get("clarity_chance"),
            _moved(entry),
            *(mask.get(name) for name in ("iou", "random_iou", "p_value", "precision", "recall")),
            *(given.get(name) for name in ("accuracy", "accuracy_chance", "recall")),
        ],
        said,
        STATES.get(state or "sound", ""),
        (state or "sound") != "sound",
        pictures,
        bars,
    )


_OF_CHANCE = {"images": "more than random images in their place"}

STATES = {
    "idle": "idle: its detector hardly ever responds",
    "crowded": "crowded: its detector responds at most positions",
    "copy": "copy: it points where an earlier direction points",
}


def _heat(values: Sequence[Sequence[float]] | None) -> Sequence[Sequence[float]] | None:
    """A map that has places."""
    return values if values and len(values) * len(values[0]) > 1 else None


def _signed(values: Sequence[tuple[str, float]]) -> list[Bar]:
    """Bars around zero."""
    return [Bar(name, value, f"{value:+.2f}") for name, value in values]


STEP = (
    Column("changed", "Share of the images whose prediction changes", "share"),
    Column("own strength", "Mean signal where it is detected minus where it is not"),
)


def _steering(steering: Mapping[str, Any], names: Mapping[int, str]) -> Section:
    """Each step along a direction: what it does to the logits and to the predictions."""
    where = {"all": "at every place", "present": "where it is detected", "absent": "where it is not detected"}
    text = (
        f"What if a concept were stronger or weaker {where[steering['where']]}? Mean change of the logits of "
        f"{human_count(steering['images'], 'image')} (bars). Amounts are steps along the encoding direction in feature "
        "units."
    )
    items = []
    for step in steering["steps"]:
        gained = ", ".join(f"{name} {count}" for name, count in list(step["to"].items())[:4])
        name = names[step["direction"]].removeprefix("direction ")
        items.append(
            Item(
                f"{step['direction']} by {step['amount']:+.3g}",
                f"Direction {name} by {step['amount']:+.3g}",
                [step["changed"], step["own_strength"]],
                f"newly predicted: {gained}" if gained else "no prediction changes",
                bars=_signed([(one["class"], one["change"]) for one in step["classes"]]),
            )
        )
    return Section("What if", "steering", items, "step", STEP, text, charts=_doses(steering["steps"]))


def _doses(steps: Sequence[Mapping[str, Any]]) -> list[Chart]:
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
        drawn.append(Chart(f"Direction {index}: change of the logits", "curves", series, "amount", "change"))
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


IMAGE = (Column("label"), Column("prediction"), Column("active", "Concepts that are active in it"))


def _is_wrong(image: Mapping[str, Any]) -> bool:
    """Whether an image is known to be predicted wrong."""
    label, guess = image["label"], image["prediction"]
    return None not in (label, guess) and str(label) != str(guess)


def _image(image: Mapping[str, Any], names: Mapping[int, str]) -> Item:
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
    label, guess = image["label"], image["prediction"]
    return Item(
        image["sample_id"],
        image["sample_id"],
        [label, guess, len(image["concepts"])],
        "" if image["concepts"] else "no concept is active",
        f"{label} taken for {guess}" if _is_wrong(image) else "",
        pictures=[own, *pictures],
        bars=bars,
    )
