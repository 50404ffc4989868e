"""The page of a comparison: what the verdict is, which images each model groups, where they lie."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rdxcli.report.html import render
from rdxcli.report.palette import NULL, concept_colours
from rdxcli.report.properties import clear, said
from rdxcli.report.text import clean

NO_NAME = "no clear name"

UNCERTAIN = 0.05
"""Groups with a larger p are folded away: chance gives as strong ones."""

MAIN_SCORES = ("mutual_knn", "cka", "rsa", "bsr_mean", "probe_agreement")
"""Scores a reader should see; the others are folded."""

PREDICTION_COLUMNS = {
    "churn": "changed",
    "negative_flips": "right to wrong",
    "positive_flips": "wrong to right",
    "accuracy_a": "accuracy of a",
    "accuracy_b": "accuracy of b",
}
"""Names of the columns of the table of predictions."""

YARDSTICK_WORDS = {
    "jitter": "a with noise of 10 %",
    "halves": "two halves of a's dimensions",
    "seeds": "two sets of read-outs of a",
}
"""Pairs made of the first model that give the score a scale."""

DIRECTIONS = {"a": "01", "b": "10"}
"""``closer_in`` of the documents and the direction name of the paper."""

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


def shown_ids(document: Mapping[str, Any]) -> list[str]:
    """Sample ids whose images the page shows, each once, in order of appearance."""
    ids = (sample for concept in document["concepts"] for sample in concept["sample_ids"])
    return list(dict.fromkeys(map(str, ids)))


def page(
    document: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    thumbnails: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    command: str = "",
    scoreboard: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None,
) -> str:
    """HTML of a comparison.

    Parameters
    ----------
    document : mapping
        The JSON document of the artifact.
    arrays : mapping
        ``labels_a``, ``labels_b``, ``sample_ids`` (n,), ``map_a``, ``map_b`` (n, 2), ``matrix_a``, ``matrix_b`` (m, m);
        maps and matrices may be missing.
    thumbnails : mapping
        Sample id to ``data:`` URI; ids without one are shown as text.
    labels : mapping, optional
        Sample id to class name.
    command : str
        What made it.
    scoreboard : (columns, rows), optional
        All methods on the same input.
    """
    return render("comparison.html", view=_view(document, arrays, thumbnails, labels or {}, command), board=scoreboard)


def _view(
    document: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    thumbnails: Mapping[str, str],
    labels: Mapping[str, str],
    command: str,
) -> dict[str, Any]:
    difference = document["difference"]
    directions = []
    base, shared = _base_rates(arrays), clear(document)
    for key, other in (("a", "b"), ("b", "a")):
        chosen = [c for c in document["concepts"] if c["closer_in"] == key]
        colours = _colours(chosen)
        shown = [
            {
                **_concept(c, document[key]["name"], colours, thumbnails, labels, base),
                "elsewhere": _elsewhere(c, document[key]["name"], document[other]["name"]),
                "shared": [said(one) for one in shared.get(f"{key}{c['index']}", [])],
            }
            for c in chosen
        ]
        directions.append(
            {
                "key": key,
                "other_key": other,
                "closer": document[key],
                "other": document[other],
                "concepts": [concept for concept in shown if not concept["uncertain"]],
                "uncertain": [concept for concept in shown if concept["uncertain"]],
                "maps": [
                    {"key": side, "title": f"{document[side]['name']}: two main axes, coloured by the groups above"}
                    for side in ("a", "b")
                    if f"map_{side}" in arrays
                ],
                "matrix": _matrix(arrays[f"matrix_{key}"]) if f"matrix_{key}" in arrays else None,
            }
        )
    parameters = document["parameters"]
    return {
        "a": document["a"],
        "b": document["b"],
        "n": document["n"],
        "method": document["method"],
        "dataset": document["samples"].get("dataset"),
        "outcome": _OUTCOMES.get(difference.get("verdict"), "untested"),
        "question": difference.get("question"),
        "verdict": difference.get("verdict", "no test was made"),
        "verdict_lines": verdict_lines(document),
        "strips": _strips(difference),
        "affinity_limit": float(np.exp(parameters.get("beta", 5.0))),
        "notes": [*document["notes"], *difference.get("notes", []), *document.get("properties", {}).get("notes", [])],
        "predictions": _predictions(document.get("predictions")),
        "directions": directions,
        **_scores(document["scores"]),
        "map_data": _map_data(document, arrays),
        "patches": _patches(document, arrays),
        "provenance": [
            {"name": "command", "value": command},
            {"name": "seed", "value": document["seed"]},
            *({"name": name, "value": json.dumps(value)} for name, value in parameters.items()),
            *(
                {"name": f"samples: {name}", "value": json.dumps(value)[:300]}
                for name, value in document["samples"].items()
            ),
        ],
    }


_OUTCOMES = {"difference found": "found", "no difference found": "none", "undecided": "undecided"}
"""Style of each verdict; every other one means that nothing was tested."""


def _scores(scores: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The main scores in their order, then the others."""
    rows = {
        name: {
            "name": name,
            "value": value,
            "meaning": SCORE_MEANINGS.get(name.removesuffix("_a").removesuffix("_b").removesuffix("_mean"), ""),
        }
        for name, value in scores.items()
        if not isinstance(value, dict | list)
    }
    main = [name for name in MAIN_SCORES if name in rows] or list(rows)[:5]
    return {"scores": [rows[name] for name in main], "more_scores": [rows[name] for name in rows if name not in main]}


def _base_rates(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Share of each label among all rows; nothing without labels."""
    if "labels" not in arrays:
        return {}
    names, counts = np.unique(arrays["labels"], return_counts=True)
    return {str(name): float(count / counts.sum()) for name, count in zip(names, counts, strict=True)}


def verdict_lines(document: Mapping[str, Any]) -> list[str]:
    """What the test says, in its own sentences; also printed by ``rdx compare``."""
    difference = document["difference"]
    lines = list(difference.get("sentences", []))
    reference = difference.get("reference")
    if reference:
        relation = "more" if reference["exceeded"] else "not more"
        names = " and ".join(reference[side]["name"] for side in ("a", "b"))
        lines.append(
            f"The reference pair ({names}) has a score of {reference['score']:.3f} and a strength of "
            f"{reference['strength']:.3f}: these two are {relation} different than that pair "
            f"(p = {_p(reference['p_value'])})."
        )
    return lines


def _predictions(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Rows of the table of predictions: all images, the concepts, the classes."""
    if not found:
        return None
    rows = [("all images", found), *found["groups"].items(), *((f"class {n}", c) for n, c in found["classes"].items())]
    names = [
        name for name in ("churn", "negative_flips", "positive_flips", "accuracy_a", "accuracy_b") if name in found
    ]
    return {
        "source": found["source"],
        "columns": [PREDICTION_COLUMNS[name] for name in names],
        "tested": " and ".join(PREDICTION_COLUMNS[name] for name in found["tested"]),
        "rows": [
            {
                "name": name,
                "n": row["n"],
                "rates": [row[key] for key in names],
                "p": min((test["p_corrected"] for test in row.get("tests", {}).values()), default=None),
                "anchor": name if name in found["groups"] else None,
            }
            for name, row in rows
        ],
    }


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _colours(concepts: list[Mapping[str, Any]]) -> list[str]:
    """Colour of each cluster label: index 0 is the null cluster."""
    return [NULL, *concept_colours(max((c["index"] for c in concepts), default=0))]


def _concept(
    concept: Mapping[str, Any],
    holder: str,
    colours: list[str],
    thumbnails: Mapping[str, str],
    labels: Mapping[str, str],
    base: Mapping[str, float],
) -> dict[str, Any]:
    p_value = concept["p_value"]
    return {
        **{name: concept[name] for name in ("index", "size", "affinity", "stability", "p_value")},
        "strength": concept.get("strength"),
        "effect": concept.get("effect"),
        "interval": concept.get("interval"),
        "uncertain": p_value is not None and p_value > UNCERTAIN,
        "name": shown_name(concept["words"]),
        "words": concept["words"],
        "side": concept["closer_in"],
        "anchor": f"{concept['closer_in']}{concept['index']}",
        "colour": colours[concept["index"]],
        "sentence": _sentence(concept, holder, base),
        "described": described(concept),
        "shown": [
            {"id": sample, "image": thumbnails.get(sample), "label": labels.get(sample)}
            for sample in map(str, concept["sample_ids"])
        ],
        "labels": [
            {"label": name, "share": share, "base": base.get(name), "strength": max(18, 45 - 9 * rank)}
            for rank, (name, share) in enumerate(concept["labels"].items())
        ],
    }


def _sentence(concept: Mapping[str, Any], holder: str, base: Mapping[str, float], most: int = 3) -> str:
    """What a concept says, beside what is true of all images."""
    said = f"{holder} holds {concept['size']} images together"
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
        among = [
            f"in {model} among {', '.join(f'{clean(name, 40)} {share:.0%}' for name, share in one[side].items())}"
            for side, model in (("own", holder), ("other", other))
        ]
        parts.append(f"the {one['n']} of {clean(one['label'], 40)} lie {', '.join(among)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def described(concept: Mapping[str, Any], most: int = 3) -> str:
    """The sentences that hold on held-out images, with what was measured; empty where none was looked for or holds."""
    said = [
        f"“{clean(one['sentence'], 120)}” (AUC {one['auc']:.2f}, p = {one['p_value']:.2g})"
        for one in concept.get("descriptions") or ()
    ]
    if not said:
        return ""
    first = concept["descriptions"][0]
    return f"{'; '.join(said[:most])}: on {first['images']} held-out images against {first['others']} others"


def described_lines(document: Mapping[str, Any]) -> list[str]:
    """A sentence per group that has one."""
    said = ((f"{one['closer_in']}{one['index']}", described(one)) for one in document["concepts"])
    return [f"{group} shows more than the rest: {text}." for group, text in said if text]


def shown_name(words: Sequence[Mapping[str, Any]], most: int = 3) -> str:
    """The clear words of a concept, or `NO_NAME`; empty when no names were asked for."""
    clear = [str(word["word"]) for word in words if word["clear"]]
    return ", ".join(clear[:most]) if clear else NO_NAME if words else ""


def _strips(difference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both numbers beside their nulls; those that found the difference first."""
    strips = []
    found_by = difference.get("found_by", [])
    for name, key, title in (("score", "disagreement", "score"), ("strength", "strength", "strength")):
        null = difference.get(key)
        if null is None:
            continue
        reference = (difference.get("reference") or {}).get(name)
        value, low, high = null["value"], null["null_mean"] - 2 * null["null_sd"], null["null_max"]
        limit = 1.0 if name == "score" else max(1e-12, 1.15 * max(value, high, reference or 0.0))

        def percent(number: float, limit: float = limit) -> float:
            return round(100 * min(max(number / limit, 0.0), 1.0), 2)

        strips.append(
            {
                "title": title,
                "found": name in found_by,
                "at": percent(value),
                "low": percent(low),
                "width": round(percent(high) - percent(low), 2),
                "reference": None if reference is None else percent(reference),
                "marks": [
                    {"at": percent(value), "name": f"{YARDSTICK_WORDS[mark]}: {value:.2f}"}
                    for mark, value in (difference.get("scale") or {}).items()
                ]
                if name == "score"
                else [],
                "left": "0 the same neighbours" if name == "score" else "0 no group",
                "right": "1 no neighbour in common" if name == "score" else f"{limit:.2g}",
            }
        )
    return sorted(strips, key=lambda strip: not strip["found"])


def _map_data(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Every row of both maps: packed coordinates (16 bits an axis), groups, ids and labels."""
    sides = [side for side in ("a", "b") if f"map_{side}" in arrays]
    if not sides:
        return None
    n = len(arrays["map_a"])
    ids = arrays["sample_ids"] if "sample_ids" in arrays else np.arange(n)
    colours = {key: _colours([c for c in document["concepts"] if c["closer_in"] == key]) for key in DIRECTIONS}
    names, codes = np.unique(arrays["labels"] if "labels" in arrays else np.full(n, ""), return_inverse=True)
    return {
        "n": n,
        "ids": _pack("\n".join(clean(sample) for sample in ids.tolist())),
        "maps": {side: _pack(np.rint(unit_square(arrays[f"map_{side}"]) * 65535)) for side in sides},
        "groups": {key: _pack(np.clip(arrays[f"labels_{key}"], 0, len(colours[key]) - 1)) for key in DIRECTIONS},
        "colours": colours,
        "names": [clean(name) for name in names.tolist()],
        "labels": _pack(codes),
    }


def _patches(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """What the script needs to show which places each model finds alike: packed (p, p) bytes by concept and model."""
    found = document.get("patches")
    if not found:
        return None
    return {
        "sides": {side: {**told, "name": document[side]["name"]} for side, told in found["sides"].items()},
        "others": found["others"],
        "concepts": {
            name: {
                "images": told["images"],
                **{
                    side: {**told[side], "values": _packed_bytes(arrays[f"patches_{side}.{name}"])}
                    for side in found["sides"]
                },
            }
            for name, told in found["concepts"].items()
        },
    }


def _packed_bytes(values: np.ndarray) -> str:
    return base64.b64encode(gzip.compress(np.ascontiguousarray(values).tobytes(), 6, mtime=0)).decode()


def _pack(values: np.ndarray | str) -> str:
    """Text, or numbers as little-endian uint16: gzip, then base64. The page opens it without a library."""
    raw = values.encode() if isinstance(values, str) else np.ascontiguousarray(values).astype("<u2").tobytes()
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def unit_square(points: np.ndarray) -> np.ndarray:
    """Points of shape (n, 2) scaled to [0, 1]; outliers beyond the 0.5 % quantiles are drawn at the edge."""
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    return np.clip((points - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)


def _matrix(matrix: np.ndarray) -> str:
    """Picture of a difference matrix in [-1, 1] as a ``data:`` URI: negative (closer) blue, positive red."""
    from PIL import Image

    scale = max(float(np.abs(matrix).max()), 1e-12)
    value = np.clip(matrix / scale, -1, 1)[..., None]
    white = np.array([247.0, 247.0, 247.0])
    blue, red = np.array([31.0, 95.0, 168.0]), np.array([178.0, 34.0, 34.0])
    pixels = np.where(value < 0, white + (blue - white) * -value, white + (red - white) * value)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
