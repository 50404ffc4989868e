"""A comparison in a summary: the verdict, the groups of each model, the maps, the scores."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from rdxcli.progress import human_count, human_p
from rdxcli.records import Verdict, relied_on
from rdxcli.report.html import script_json
from rdxcli.report.properties import clear, property_lines, said
from rdxcli.report.summary import (
    Against,
    Bar,
    Column,
    Drawing,
    Item,
    Maps,
    Picture,
    Section,
    Summary,
    Table,
    images_of,
)
from rdxcli.report.text import clean

NO_NAME = "no clear name"

SEEN = 0.005
"""Smaller shares would be written as 0 %."""

CLEAR = 0.05
"""Groups with a larger p are in doubt: chance gives as strong ones."""

AS_CHANCE = "chance gives groups as strong"
UNRELIABLE = "not reliable at this size"

MAIN_SCORES = ("mutual_knn", "cka", "rsa", "bsr_mean", "probe_agreement")
"""Scores a reader should see; the others are folded."""

SCORE_MEANINGS = {
    "bsr": "share of shown pairs that are closer in the model the group belongs to (rank distance)",
    "bsr_euclidean": "the same by Euclidean distance over its maximum",
    "bsr_local": "the same by locally scaled distance",
    "ties": "share of shown pairs at equal rank distance",
    "ties_euclidean": "share of shown pairs at equal Euclidean distance",
    "ties_local": "share of shown pairs at equal locally scaled distance",
    "tsd": "mean rank distance in the other model minus that in this one, over shown pairs",
    "tsd_euclidean": "the same by Euclidean distance over its maximum",
    "tsd_local": "the same by locally scaled distance",
    "hit": "share of shown images that belong to the classes of the known difference",
    "good_grids": "groups that show the known difference",
    "grids": "groups in all",
    "probe_accuracy": "accuracy of a linear classifier on the representation, 5-fold",
    "probe_agreement": "share of images that both linear classifiers put in the same class",
    "cka": "debiased linear CKA of the two representations; 1 = alike up to rotation and scale",
    "mutual_knn": "mean overlap of the 10 nearest neighbours",
    "rsa": "rank correlation of the two distance matrices",
    "approximation_rand": "approximate and exact groups of a subsample: adjusted Rand index",
    "approximation_angle": "the same: largest angle between the subspaces of the two embeddings, degrees",
    "approximation_overlap": "the same: mean squared cosine of these angles",
    "approximation_shown": "images shown by the exact method that lie in the matching approximate group",
}

YARDSTICKS = {
    "jitter": "a with noise of 10 %",
    "halves": "two halves of a's dimensions",
    "seeds": "two sets of read-outs of a",
}
"""Pairs made of the first model that give the score a scale."""

CONCEPT = (
    Column("closer in", "The model that holds the group together", on_card=False),
    Column("size", "Images in the group"),
    Column("affinity", "Mean affinity inside the group; 1 means no difference", better="higher"),
    Column("strength", "What the group explains: (affinity - 1) x share of the images", better="higher"),
    Column("95 %", "Interval of the strength over images"),
    Column("stability", "Mean overlap with its best match when the images are drawn again", better="higher"),
    Column("p", "How often a group this strong appears when the models do not differ", better="lower"),
    Column("sd", "Standard deviations above the mean of the strongest groups when the models do not differ"),
    Column("labels", "Make-up by label", on_card=False),
    Column("name", "Words that fit the group more than the rest", on_card=False),
)

PARTS = Column("parts", "Parts of one group that were joined into it; see the notes")
"""Stands after the size where concepts were joined."""

WORD = (
    Column("word"),
    Column("kind"),
    Column("margin", "Mean cosine with the group minus the mean with all other images", better="higher"),
    Column("effect", "The margin in standard deviations; a name is clear from 0.8 on", better="higher"),
    Column("p", "How often the best word of a random group fits as well, for all groups together", better="lower"),
    Column("clear"),
)

BOARD = (
    Column("method"),
    Column("hit a", SCORE_MEANINGS["hit"], better="higher"),
    Column("hit b", SCORE_MEANINGS["hit"], better="higher"),
    Column("good a", "Groups of a that show the known difference"),
    Column("good b", "Groups of b that show the known difference"),
    Column("bsr a", SCORE_MEANINGS["bsr"], better="higher"),
    Column("bsr b", SCORE_MEANINGS["bsr"], better="higher"),
    Column("mned", SCORE_MEANINGS["bsr_euclidean"], better="higher"),
    Column("zpls", SCORE_MEANINGS["bsr_local"], better="higher"),
    Column("ties", SCORE_MEANINGS["ties"], better="lower"),
    Column("tsd", SCORE_MEANINGS["tsd"], better="higher"),
    Column("s", "Seconds", "s", "lower"),
    Column("remark"),
)

RATES = {
    "churn": Column("changed", "Images whose prediction is another one", "share"),
    "negative_flips": Column("right to wrong", "Images that were predicted right and are wrong now", "share", "lower"),
    "positive_flips": Column("wrong to right", "Images that were predicted wrong and are right now", "share", "higher"),
    "accuracy_a": Column("accuracy of a", "", "share", "higher"),
    "accuracy_b": Column("accuracy of b", "", "share", "higher"),
}

HEAD_RATES = {
    "accuracy_a": RATES["accuracy_a"],
    "accuracy_b": RATES["accuracy_b"],
    "negative_flips": Column("a alone right"),
    "positive_flips": Column("b alone right"),
}
"""Of two heads with different outputs: neither is the other's next version, and wrong classes cannot be compared."""

SIDES = {"a": "b", "b": "a"}


def build(document: Mapping[str, Any], folder: Path | None = None) -> Summary:
    """The summary of a ``comparison`` document."""
    arrays = stored_arrays(folder)
    a, b, difference = document["a"], document["b"], document["difference"]
    verdict = Verdict.of(difference.get("verdict"))
    dataset = document["samples"].get("dataset")
    base = base_rates(arrays.get("labels"))
    maps = _maps(document, arrays)
    sections: list[Section | None] = [_side(document, side, verdict, base, arrays, maps is not None) for side in SIDES]
    sections += [
        _predictions(document.get("predictions")),
        _heads(document.get("heads")),
        _patches(document, arrays),
        *_scoreboard(document, base),
        _scores(document["scores"]),
    ]
    size = (
        f"{a['layer'] or 'array'} ({human_count(a['d'], 'dimension')}) against {b['layer'] or 'array'} "
        f"({human_count(b['d'], 'dimension')})"
    )
    return Summary(
        kind="comparison",
        method=document["method"],
        kicker="Comparison of two representations",
        title=f"what {a['name']} (a) and {b['name']} (b) see differently",
        facts=f"{images_of(document['n'], dataset)}, {size}, method {document['method']}",
        sections=[section for section in sections if section is not None],
        verdict=verdict,
        question=difference.get("question") or "",
        said=[
            *(f"{doubt}." for doubt in doubts(document).values()),
            *_sentences(difference),
            *prediction_lines(document),
            *head_lines(document),
            *property_lines(document),
            *described_lines(document),
        ],
        against=_against(difference),
        notes=[*document["notes"], *difference.get("notes", []), *document.get("properties", {}).get("notes", [])],
        provenance=[(f"samples: {name}", str(value)[:300]) for name, value in document["samples"].items()],
        dataset=dataset,
        maps=maps,
    )


def doubts(compared: Mapping[str, Any]) -> dict[str, str]:
    """Why the groups of a side are not reliable, by side: those of an approximate fit that the exact one denies."""
    found = compared.get("reliability") or {}
    return {side: one["reason"] for side, one in found.items() if not one["reliable"]}


def stored_arrays(folder: Path | None) -> dict[str, np.ndarray]:
    """The arrays of an artifact, by name; nothing without a folder."""
    if folder is None or not (folder / "arrays.npz").is_file():
        return {}
    with np.load(folder / "arrays.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def base_rates(labels: np.ndarray | None) -> dict[str, float]:
    """Share of each label among all rows; nothing without labels."""
    if labels is None:
        return {}
    names, counts = np.unique(labels, return_counts=True)
    return {str(name): float(count / counts.sum()) for name, count in zip(names, counts, strict=True)}


def _sentences(difference: Mapping[str, Any]) -> list[str]:
    """What the test says, in its own sentences."""
    lines = list(difference.get("sentences", []))
    reference = difference.get("reference")
    if reference:
        relation = "more" if reference["exceeded"] else "not more"
        names = " and ".join(reference[side]["name"] for side in SIDES)
        p_value = reference["p_value"]
        lines.append(
            f"The reference pair ({names}) has a score of {reference['score']:.3f} and a strength of "
            f"{reference['strength']:.3f}: these two are {relation} different than that pair "
            f"(p {'= -' if p_value is None else human_p(p_value, 3)})."
        )
    return lines


def _against(difference: Mapping[str, Any]) -> list[Against]:
    """Both numbers beside their nulls; those that found the difference first."""
    found = []
    for name, key in (("score", "disagreement"), ("strength", "strength")):
        null = difference.get(key)
        if null is None:
            continue
        reference = (difference.get("reference") or {}).get(name)
        low, high = max(0.0, null["null_mean"] - 2 * null["null_sd"]), null["null_max"]
        most = 1.0 if name == "score" else max(1e-12, 1.15 * max(null["value"], high, reference or 0.0))
        ends = (
            ("0 the same neighbours", "1 no neighbour in common") if name == "score" else ("0 no group", f"{most:.2g}")
        )
        found.append(
            Against(
                name,
                null["value"],
                low,
                null["null_mean"],
                high,
                # twice, as in the sentences: two numbers are asked
                None if null.get("p_value") is None else min(1.0, 2.0 * null["p_value"]),
                reference,
                name in difference.get("found_by", []),
                most,
                ends,
                {YARDSTICKS[mark]: value for mark, value in (difference.get("scale") or {}).items()}
                if name == "score"
                else {},
            )
        )
    return sorted(found, key=lambda one: not one.decisive)


def _predictions(found: Mapping[str, Any] | None) -> Section | None:
    """All images, the concepts, the classes."""
    if not found:
        return None
    names = [name for name in RATES if name in found]
    columns = [Column("images of"), Column("images")]
    for name in names:
        columns += [RATES[name], Column(f"{RATES[name].name}, 95 %", "", "share", brief=False)]
    tested = " and ".join(RATES[name].name for name in found["tested"])
    columns.append(
        Column("p", f"{tested}: the group against all other images, corrected for the number of groups", better="lower")
    )

    def cells(name: str, row: Mapping[str, Any]) -> list[Any]:
        rates = [(row[key]["value"], (row[key]["low"], row[key]["high"])) for key in names]
        p_value = min((test["p_corrected"] for test in row.get("tests", {}).values()), default=None)
        return [name, row["n"], *(cell for rate in rates for cell in rate), p_value]

    groups = [cells("all images", found), *(cells(name, row) for name, row in found["groups"].items())]
    tables = [Table(f"Predictions ({found['source']})", columns, groups)]
    if classes := [cells(f"class {name}", row) for name, row in found["classes"].items()]:
        tables.append(Table("Predictions by class", columns, classes, folded=True))
    return Section("Predictions", "predictions", tables=tables)


def prediction_lines(document: Mapping[str, Any]) -> list[str]:
    """What the predictions say, in sentences."""
    found = document.get("predictions")
    if not found:
        return []
    churn = found["churn"]
    lines = [
        f"Predictions ({found['source']}): {_share(churn)} of the {human_count(found['n'], 'image', 'change')}"
        + (
            f", {_share(found['negative_flips'])} from right to wrong and {_share(found['positive_flips'])} from wrong "
            f"to right (p {human_p(found['flips_p'])}); accuracy {found['accuracy_a']['value']:.1%} (a) and "
            f"{found['accuracy_b']['value']:.1%} (b)"
            if "negative_flips" in found
            else ""
        )
        + "."
    ]
    shift = found.get("confidence_shift")
    if shift:
        how = "less" if shift["value"] < 0.0 else "more"
        told = f"b is {how} sure of its predictions than a"
        if shift["p_value"] > 0.05:
            told = "b is as sure of its predictions as a, as far as can be told"
        lines.append(
            f"{told}: {found['confidence_b']:.1%} against "
            f"{found['confidence_a']:.1%} (difference {shift['low']:+.1%} to {shift['high']:+.1%}, "
            f"p {human_p(shift['p_value'])})."
        )
    if found.get("note"):
        lines.append(f"note: {found['note']}")
    words = {
        "negative_flips": "went from right to wrong",
        "positive_flips": "went from wrong to right",
        "churn": "changed",
    }
    for name, group in found["groups"].items():
        if not relied_on(document.get("reliability"), name[0], int(name[1:])):
            continue
        for what, test in group["tests"].items():
            if test["p_corrected"] <= CLEAR:
                lines.append(
                    f"Of the {human_count(group['n'], 'image')} in {name}, {group[what]['count']} {words[what]} "
                    f"({group[what]['value']:.1%}; of all others {test['rest']:.1%}; difference {test['low']:.1%} to "
                    f"{test['high']:.1%}, p {human_p(test['p_corrected'])})."
                )
    return lines


def _heads(found: Mapping[str, Any] | None) -> Section | None:
    """Two classifiers with different outputs: what each says, by group too, and which classes are the same words."""
    if not found:
        return None
    measures = [
        Column("confidence", "Mean probability of the predicted class"),
        Column(
            "entropy",
            "Mean entropy of the outputs in nats; 0 = all on one class, at most log(outputs)",
            better="lower",
        ),
        Column("named", "Images whose label is one of the head's classes"),
        Column("accuracy", "Right among those", "share", "higher"),
        Column("accuracy, 95 %", "", "share", brief=False),
    ]

    def cells(row: Mapping[str, Any], end: str = "") -> list[Any]:
        rate = row[f"accuracy{end}"]
        interval = (rate["low"], rate["high"]) if rate else None
        values = [row[f"{name}{end}"] for name in ("confidence", "entropy", "named")]
        return [*values, rate["value"] if rate else None, interval]

    columns = [
        Column("model"),
        Column("outputs"),
        Column("names of outputs"),
        *measures,
        Column("one class", "Accuracy of always saying the most frequent of these labels", "share"),
    ]
    sides = [
        [f"{one['model']} ({side})", one["outputs"], one["names"], *cells(one), one["one_class"]]
        for side, one in ((side, found[side]) for side in SIDES)
    ]
    tables = [Table("Two heads with different outputs", columns, sides)]
    groups = [
        [name, row["n"], side, *cells(row, f"_{side}")] for name, row in found["groups"].items() for side in SIDES
    ]
    if groups:
        tables.append(Table("By group", [Column("images of"), Column("images"), Column("in"), *measures], groups))
    if both := found["both"]:
        rows = [
            [
                *(column.name, both[name]["count"], both[name]["value"], (both[name]["low"], both[name]["high"])),
                both["flips_p"] if name.endswith("flips") else None,
            ]
            for name, column in HEAD_RATES.items()
        ]
        named = [
            *(Column("what"), Column("images"), Column("share", "", "share"), Column("95 %", "", "share")),
            Column("p", "How often one would be right alone so much more often than the other by chance"),
        ]
        tables.append(Table(f"On the {human_count(both['n'], 'image')} whose label both can name", named, rows))
    if (classes := found["classes"]) and classes["matched"]:
        title = "Classes that are the same words"
        tables.append(Table(title, [Column("class of a"), Column("class of b")], classes["matched"], folded=True))
    return Section("Predictions of different classes", "heads", tables=tables)


def head_lines(document: Mapping[str, Any]) -> list[str]:
    """What two heads with different outputs say, in sentences."""
    found = document.get("heads")
    if not found:
        return []
    a, b, classes = found["a"], found["b"], found["classes"]
    said = f"The heads have different outputs ({a['outputs']:,} and {b['outputs']:,}), so predictions are not compared"
    if classes is None:
        who = " and ".join(side for side in SIDES if found[side]["names"] == "not known")
        said += f": the names of the classes of {who} are not known (--classes-{who[0]} FILE)"
    else:
        said += (
            f" image by image: {human_count(len(classes['matched']), 'class')} of both are the same words, "
            f"{classes['not_matched_a']:,} of a and {classes['not_matched_b']:,} of b are not"
            f"{_such_as(classes['only_a'], classes['only_b'])}"
        )
    lines = [f"{said}."]
    for side in SIDES:
        one = found[side]
        line = (
            f"{one['model']} ({side}) gives its class a probability of {one['confidence']:.2f}, entropy "
            f"{one['entropy']:.2f} of at most {one['entropy_most']:.2f}"
        )
        if rate := one["accuracy"]:
            line += (
                f"; it is right on {_share(rate)} of the {human_count(one['named'], 'image')} whose label is one of "
                f"its classes (one class for all: {one['one_class']:.1%})"
            )
        elif one["labels_not_named"]:
            line += "; no label is one of its classes"
        if one["labels_not_named"] and one["labels"]:
            count = human_count(one["labels_not_named"], "label")
            line += f"; {count} {'is' if one['labels_not_named'] == 1 else 'are'} not{_such_as(one['not_named'])}"
        lines.append(f"{line}.")
    if both := found["both"]:
        lines.append(
            f"On the {human_count(both['n'], 'image')} whose label both can name: accuracy "
            f"{_share(both['accuracy_a'])} (a) and {_share(both['accuracy_b'])} (b), "
            f"{both['negative_flips']['count']} right in a alone and {both['positive_flips']['count']} in b alone "
            f"(p {human_p(both['flips_p'])})."
        )
    return lines


def _such_as(*lists: Sequence[str]) -> str:
    first = [clean(names[0].replace("\t", " "), 40) for names in lists if names]
    return f" (such as {' and '.join(first)})" if first else ""


def _share(rate: Mapping[str, float]) -> str:
    return f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"


_CAUTION = {
    Verdict.FOUND: "",
    Verdict.NONE: "No difference was found, so these groups describe noise.",
    Verdict.UNDECIDED: "These rows do not seem to be the same images, so these groups describe noise.",
    Verdict.NOT_TESTED: "Nothing was tested: groups like these are also found where two models do not differ.",
}


def _side(
    document: Mapping[str, Any],
    side: str,
    verdict: Verdict,
    base: Mapping[str, float],
    arrays: Mapping[str, np.ndarray],
    mapped: bool,
) -> Section:
    """The groups that one model holds together."""
    closer, other = document[side]["name"], document[SIDES[side]]["name"]
    chosen = [concept for concept in document["concepts"] if concept["closer_in"] == side]
    shared, doubt = clear(document), doubts(document).get(side, "")
    items, joined = [], any(_parts(concept) > 1 for concept in document["concepts"])
    for concept in chosen:
        one = _concept(concept, closer, base, arrays, joined=joined)
        if not relied_on(document.get("reliability"), side, concept["index"]):
            one = replace(one, status=UNRELIABLE, doubtful=True)
        found = [f"{one.key}: {said(each)}" for each in shared.get(str(one.key), [])]
        items.append(
            replace(
                one, beside=[line for line in (described(concept), *found, _elsewhere(concept, closer, other)) if line]
            )
        )
    text = _CAUTION[verdict] if items else "No group was found in this direction."
    text = f"{doubt}. {text}".strip() if doubt else text
    return Section(
        f"Alike for {closer} ({side}), kept apart by {other} ({SIDES[side]})",
        f"closer-in-{side}",
        sorted(items, key=lambda item: item.doubtful),
        "concept",
        _columns(joined),
        text,
        printed=True,
        scale=1.0,
        maps=side if mapped else "",
        matrix=arrays.get(f"matrix_{side}"),
        doubt=f"{UNRELIABLE}, the exact method finds others" if doubt else AS_CHANCE,
    )


def _concept(
    concept: Mapping[str, Any],
    holder: str,
    base: Mapping[str, float],
    arrays: Mapping[str, np.ndarray],
    prefix: str = "",
    joined: bool = False,
) -> Item:
    side, index, p_value = concept["closer_in"], concept["index"], concept["p_value"]
    labels = arrays.get("labels")
    name = shown_name(concept["words"])
    doubtful = p_value is not None and p_value > CLEAR
    interval = concept.get("interval")
    return Item(
        f"{prefix}{side}{index}",
        f"{side}{index}: {name}" if name else f"{side}{index}",
        [
            holder,
            concept["size"],
            *([_parts(concept)] if joined else []),
            concept["affinity"],
            concept.get("strength"),
            tuple(interval) if interval else None,
            concept["stability"],
            p_value,
            concept.get("effect"),
            ", ".join(f"{label} {share:.0%}" for label, share in list(concept["labels"].items())[:4]),
            name,
        ],
        _sentence(concept, holder, base),
        f"uncertain: {AS_CHANCE} (p {human_p(p_value)})" if doubtful else "",
        doubtful,
        [
            Picture(sample, "" if labels is None else str(labels[row]))
            for sample, row in zip(map(str, concept["sample_ids"]), concept["samples"], strict=True)
        ],
        []
        if _all_different(concept)
        else [Bar(label, share, f"{share:.0%}", base.get(label)) for label, share in concept["labels"].items()],
        tables=[_words(concept["words"])] if concept["words"] else [],
        group=None if prefix else (side, index),
    )


def _columns(joined: bool) -> tuple[Column, ...]:
    """What a concept has; with the number of its parts where some were joined."""
    return (*CONCEPT[:2], PARTS, *CONCEPT[2:]) if joined else CONCEPT


def _parts(concept: Mapping[str, Any]) -> int:
    return int(concept.get("parts", 1))


def _words(words: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [word["word"], *(word[name] for name in ("kind", "margin", "effect", "p_value", "clear"))] for word in words
    ]
    return Table("Words that fit the group more than the rest", WORD, rows, folded=True)


def _all_different(concept: Mapping[str, Any]) -> bool:
    """Whether no two members are known to have the same label: a make-up would say nothing."""
    first = next(iter(concept["labels"].values()), 0.0)
    return concept["size"] > 1 and 0.0 < first * concept["size"] < 1.5


def _sentence(concept: Mapping[str, Any], holder: str, base: Mapping[str, float], most: int = 3) -> str:
    """What a concept says, beside what is true of all images."""
    said = f"{holder} holds {human_count(concept['size'], 'image')} together"
    if _parts(concept) > 1:
        said += f" (joined from {human_count(_parts(concept), 'part')}; `--param twins=null` leaves them apart)"
    if _all_different(concept):
        return f"{said}, each of a label of its own."
    parts = [
        f"{share:.0%} of them {clean(name, 40)}" + (f" (of all images {base[name]:.0%})" if name in base else "")
        for name, share in list(concept["labels"].items())[:most]
    ]
    return f"{said}, {', '.join(parts)}." if parts else f"{said}."


def _elsewhere(concept: Mapping[str, Any], holder: str, other: str) -> str:
    """Where the members lie in the other model."""
    found = concept.get("elsewhere")
    if not found:
        return ""
    parts = [
        f"of the ten nearest neighbours of its images, {found['own']:.0%} belong to the group in {holder}, "
        f"{found['other']:.0%} in {other} (by chance {found['chance']:.0%})"
    ]
    for one in found["labels"] if len(found["labels"]) > 1 else ():
        among = []
        for side, model in (("own", holder), ("other", other)):
            shares = [f"{share:.0%} {clean(name, 40)}" for name, share in one[side].items() if share >= SEEN]
            among.append(f"in {model} among {', '.join(shares)}")
        parts.append(f"the {one['n']} of {clean(one['label'], 40)} lie {', '.join(among)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def described(concept: Mapping[str, Any], most: int = 3) -> str:
    """The sentences that hold on held-out images, with what was measured; empty where none was looked for or holds."""
    said = [
        f"“{clean(one['sentence'], 120)}” (AUC {one['auc']:.2f}, p {human_p(one['p_value'])})"
        for one in concept.get("descriptions") or ()
    ]
    if not said:
        return ""
    first = concept["descriptions"][0]
    return (
        f"{'; '.join(said[:most])}: on {human_count(first['images'], 'held-out image')} against "
        f"{human_count(first['others'], 'other')}"
    )


def described_lines(document: Mapping[str, Any]) -> list[str]:
    """A sentence per group that has one."""
    trust = document.get("reliability")
    trusted = (one for one in document["concepts"] if relied_on(trust, one["closer_in"], one["index"]))
    said = ((f"{one['closer_in']}{one['index']}", described(one)) for one in trusted)
    return [f"{group} shows more than the rest: {text}." for group, text in said if text]


def shown_name(words: Sequence[Mapping[str, Any]], most: int = 3) -> str:
    """The clear words of a concept, or `NO_NAME`; empty when no names were asked for."""
    clear = [str(word["word"]) for word in words if word["clear"]]
    return ", ".join(clear[:most]) if clear else NO_NAME if words else ""


def _scoreboard(document: Mapping[str, Any], base: Mapping[str, float]) -> list[Section]:
    """All methods on the same input: the table, and the groups of each."""
    methods = document.get("methods")
    if not methods:
        return []
    shared = [set(one["notes"]) for one in methods if not one["error"]]
    common = set.intersection(*shared) if len(shared) > 1 else set()
    rows = []
    for one in methods:
        scores = one["scores"]
        ties = [scores[key] for key in ("ties_a", "ties_b") if scores.get(key) is not None]
        remark = (
            f"cannot run: {one['error']}"
            if one["error"]
            else "; ".join([*doubts(one).values(), *(n for n in one["notes"] if n not in common)])
        )
        rows.append(
            [
                one["method"],
                *(scores.get(f"hit_{side}") for side in SIDES),
                *(
                    f"{scores[f'good_grids_{side}']}/{scores[f'grids_{side}']}" if f"grids_{side}" in scores else None
                    for side in SIDES
                ),
                *(scores.get(key) for key in ("bsr_a", "bsr_b", "bsr_euclidean_mean", "bsr_local_mean")),
                sum(ties) / len(ties) if ties else None,
                scores.get("tsd_mean"),
                one["seconds"],
                remark,
            ]
        )
    board = Table("Scoreboard", BOARD, rows, "The same input for every method; scores are explained under Scores.")
    names = {side: document[side]["name"] for side in SIDES}
    grids = [
        Section(
            f"Groups of {one['method']}",
            f"groups-of-{one['method']}",
            [_concept(c, names[c["closer_in"]], base, {}, f"{one['method']}-") for c in one["concepts"]],
            "concept",
            CONCEPT,
            folded=True,
            scale=1.0,
        )
        for one in methods
        if one["method"] != document["lead"] and one["concepts"]
    ]
    return [Section("All methods on the same input", "scoreboard", tables=[board], printed=True), *grids]


def _scores(scores: Mapping[str, Any]) -> Section | None:
    """The main scores in their order, then the others, each with a sentence."""
    values = {name: value for name, value in scores.items() if not isinstance(value, dict | list)}
    if not values:
        return None
    main = [name for name in MAIN_SCORES if name in values] or list(values)[:5]
    columns = [Column("score"), Column("value"), Column("meaning")]

    def rows(names: Sequence[str]) -> list[list[Any]]:
        base = {name: name.removesuffix("_a").removesuffix("_b").removesuffix("_mean") for name in names}
        return [[name, values[name], SCORE_MEANINGS.get(base[name], "")] for name in names]

    more = [name for name in values if name not in main]
    tables = [Table("", columns, rows(main))]
    if more:
        tables.append(Table(f"{human_count(len(more), 'more score')}", columns, rows(more), folded=True))
    return Section("Scores", "scores", tables=tables)


def _patches(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Section | None:
    """Which places each model finds alike: packed (p, p) bytes by concept and model for the script, and the numbers."""
    found = document.get("patches")
    if not found:
        return None
    names = {side: document[side]["name"] for side in found["sides"]}
    data = {
        "sides": {side: {**told, "name": names[side]} for side, told in found["sides"].items()},
        "others": found["others"],
        "concepts": {
            name: {
                "images": told["images"],
                **{side: {**told[side], "values": _packed(arrays[f"patches_{side}.{name}"])} for side in names},
            }
            for name, told in found["concepts"].items()
        },
    }
    rows = [[name, *(told[side]["above"] for side in names)] for name, told in found["concepts"].items()]
    columns = [Column("concept")]
    columns += [
        Column(f"alike in {names[side]} ({side})", "Pairs of places in different images", "share") for side in names
    ]
    markup = Markup(f'<script type="application/json" id="patch-data">{script_json(data)}</script>')
    text = (
        "Places in different images that each model finds alike (chance 5 %). On the card of a concept: choose a place "
        "in an image to see which places each model finds like it."
    )
    drawing = Drawing("Places", markup, Table("Places", columns, rows))
    return Section("Where in the images", "places", text=text, drawings=[drawing])


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(gzip.compress(np.ascontiguousarray(values).tobytes(), 6, mtime=0)).decode()


def _maps(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Maps | None:
    sides = [side for side in SIDES if f"map_{side}" in arrays]
    if not sides:
        return None
    n = len(arrays["map_a"])
    return Maps(
        ids=arrays["sample_ids"] if "sample_ids" in arrays else np.arange(n).astype(str),
        points={side: arrays[f"map_{side}"] for side in sides},
        groups={side: arrays[f"labels_{side}"] for side in SIDES},
        labels=arrays.get("labels"),
        shown=arrays.get("shown"),
        neighbours={side: arrays[f"neighbours_{side}"] for side in SIDES if f"neighbours_{side}" in arrays},
        names={side: document[side]["name"] for side in SIDES},
    )
