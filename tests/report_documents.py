"""A tiny artifact of every kind that has a report: its document, and a folder with the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from helpers import made_up_comparison

IDS = [f"s{i:02}" for i in range(24)]
HEAT = [[0.0, 1.0], [0.5, 0.0]]


def _base(kind: str, method: str, **content: Any) -> dict[str, Any]:
    fixed = {
        "schema_version": 1,
        "kind": kind,
        "artifact": "x",
        "method": method,
        "seed": 3,
        "notes": ["read me first"],
    }
    return {**fixed, "parameters": {"alpha": 0.5}, **content}


def _layer() -> dict[str, Any]:
    return {"model": {"name": "net", "layer": "conv2", "n": 24, "d": 8}, "samples": {"n": 24, "dataset": None}}


def _comparison(folder: Path) -> dict[str, Any]:
    word = {"word": "stripes", "kind": "word", "margin": 0.11, "effect": 1.2, "p_value": 0.02, "clear": True}
    record = made_up_comparison(dataset=None)
    rows = np.arange(18, dtype=np.int32)
    near = {f"neighbours_{side}": (rows[:, None] + 1 + np.arange(3) + (side == "b")) % 60 for side in "ab"}
    labels = np.array(["3", "5", "8"] * 20)
    np.savez(folder / "arrays.npz", **record.arrays, **near, shown=rows, labels=labels)
    document = record.to_document("x")
    document["concepts"][0]["words"] = [word]
    document["concepts"][3]["p_value"] = 0.4
    names = ("churn", "negative_flips", "positive_flips", "accuracy_a", "accuracy_b")
    rate = {"value": 0.25, "low": 0.15, "high": 0.35, "count": 15}
    test = {"rest": 0.1, "low": 0.05, "high": 0.2, "p_value": 0.003, "p_corrected": 0.012}
    own = {"n": 9, **dict.fromkeys(names, rate)}
    document["predictions"] = {
        **{"source": "given", **own, "n": 60, "flips_p": 0.04, "tested": ["negative_flips"]},
        "groups": {"a1": {**own, "tests": {"negative_flips": test}}},
        "classes": {"cat": own},
    }
    one = {key: document[key] for key in ("method", "parameters", "seed", "concepts", "scores", "notes")}
    known = {
        "bsr_a": 0.9,
        "bsr_b": 0.8,
        "bsr_euclidean_mean": 0.7,
        "bsr_local_mean": 0.6,
        "ties_a": 0.1,
        "tsd_mean": 31.0,
    }
    other = {**one, "method": "kmeans", "seconds": 0.5, "error": None, "scores": known, "notes": ["own remark"]}
    broken = {
        **one,
        "method": "nmf",
        "concepts": [],
        "scores": {},
        "notes": [],
        "seconds": None,
        "error": "negative values",
    }
    document |= {"lead": "rdx", "methods": [{**one, "seconds": 1.5, "error": None}, other, broken]}
    return document


def _unit(number: int, **changes: Any) -> dict[str, Any]:
    shown = [{"sample_id": IDS[i], "activation": 2.5 - i / 10, "label": "cat", "map": HEAT} for i in range(4)]
    fields = {
        "unit": number,
        "status": "explained",
        "concepts": [{"concept": "sky", "weight": 1.5}, {"concept": "sea", "weight": -0.5}],
        "text": f"{number}.5 sky",
        "scores": {"test correlation": 0.9 - number / 100, "test low": 0.5, "test high": 0.95, "q value": 0.01},
        "strongest": shown,
        "ranges": [{"from": 5, "to": 24, "samples": shown[:1]}],
        "area": {"concepts": ["sky"], "edges": [0.0, 1.0, 2.0], "counts": [3, 4], "share": [[40.0, None]]},
        "character": {"clarity": 0.4, "clarity_chance": 0.2, "groups": [[]], "twin": 1, "twin_correlation": 0.95},
    }
    return {**fields, **changes}


def _explanations(folder: Path) -> dict[str, Any]:
    units = [_unit(i) for i in range(10)]
    units.append(_unit(10, status="not better than chance", scores={"test correlation": 0.01}))
    units.append(_unit(11, interpretable=False))
    units.append({**_unit(12), "strongest": []})
    entry = {"mean": 0.6, "sem_ddof1": 0.02, "min": 0.1, "max": 0.9, "count": 13}
    return _base("explanations", "le-label", **_layer(), units=units, summary={"test correlation": entry, "rows": 13})


def _scored(name: str, shift: float) -> dict[str, Any]:
    units = [
        {"unit": i, "score": 0.5 + shift + i / 100, "low": 0.4, "high": 0.9, "length": 2, "q_value": 0.03}
        for i in range(5)
    ]
    mean = {"mean": 0.5 + shift, "standard_error": 0.02, "count": 5, "undefined": 1}
    curve = [{"length": k, "mean": 0.2 * k, "standard_error": 0.01, "count": 5, "undefined": 0} for k in (1, 2)]
    return {"method": name, "summary": mean, "common": mean, "units": units, "length_curve": curve, "notes": []}


def _simulation(folder: Path) -> dict[str, Any]:
    pair = {
        "first": "one",
        "second": "two",
        "units": 5,
        "difference": 0.12,
        "low": 0.05,
        "high": 0.2,
        "p_adjusted": 0.004,
    }
    ends = {"truth": {"mean": 1.0, "standard_error": 0.0, "count": 5, "undefined": 0}}
    ends["shuffled"] = {**ends["truth"], "mean": 0.013}
    importance = {"cutoffs": [0.1, 1.0], "units": [{"share": [0.6, 1.0]}]}
    content = {"methods": [_scored("one", 0.1), _scored("two", 0.0)], "pairs": [pair], "importance": importance}
    document = _base("simulation", "ablation", **_layer(), summary=None, **content, ablation={"controls": ends})
    return {**document, "parameters": {"part": "test"}}


def _region(number: int, **changes: Any) -> dict[str, Any]:
    scores = {"size": 6, "coverage": 0.25, "label": "cat", "purity": 0.66, "base_rate": 0.1, "selectivity": 0.8}
    fields = {
        **{"target": number, "target_id": IDS[number], "status": "bounded", "neurons": [4, 7], "states": [1, 0]},
        **{"positions": [[1, 0, 1], [2, 1, 1]], "position_map": [[1, 0], [0, 1]], "members": [number, 1]},
        **{"scores": scores, "labels": {"cat": 4, "dog": 2}, "sample_ids": [IDS[number], "s01"]},
        **{"sample_labels": ["cat", "dog"], "sample_predictions": ["dog", "dog"]},
        "cause": {"label": "cat", "prediction": "dog", "prediction_share": 0.7, "lift": 3.5},
    }
    return {**fields, **changes}


def _regions(folder: Path) -> dict[str, Any]:
    regions = [_region(0), _region(2, scores={**_region(2)["scores"], "ablation": {"drop": 0.2, "p_value": 0.03}})]
    regions.append(_region(3, status="unbounded"))
    pair = {"a": "conv1", "b": "conv2", "targets": 2, "overlap": 0.4, "expected": 0.1, "agreement": 0.35}
    side = {"source": "conv1", "size": 6, "only_here": 2, "purity": 0.5, "labels": {"cat": 4}, "status": "bounded"}
    sides = [{"target_id": "s00", "regions": [{**side, "sample_ids": ["s00"], "sample_labels": ["cat"]}]}]
    comparison = {"pairs": [{**pair, "neighbour_overlap": 0.3}], "sides": sides}
    return _base("regions", "rdr", **_layer(), regions=regions, comparison=comparison)


def _directions(folder: Path) -> dict[str, Any]:
    influence = [
        {"class": "cat", "effect": 1.5, "significant": True},
        {"class": "dog", "effect": -0.7, "significant": False},
    ]
    mask = {"concept": "fur", "iou": 0.3, "interpretable": True, "random_iou": 0.05, "p_value": 0.01}
    entry = {
        **{"index": 0, "share": 0.1, "images": 12, "labels": {"cat": 0.6, "dog": 0.4}, "label_chance": {"cat": 0.3}},
        **{
            "samples": [0, 1],
            "sample_ids": ["s00", "s01"],
            "sample_labels": ["cat", "dog"],
            "concept_maps": [HEAT, HEAT],
        },
        **{"influence": influence, "clarity": 3.4, "clarity_chance": 2.5, "health": "sound", "stability": 0.9},
        "mask_label": {**mask, "precision": 0.5, "recall": 0.45, "f1": 0.47},
        "words": [{"word": "furry", "correlation": 0.4, "p_value": 0.02}],
    }
    second = {**entry, "index": 1, "health": "crowded", "mask_label": None, "words": [], "influence": []}
    step = {"direction": 0, "own_strength": 0.4, "changed": 0.2, "to": {"cat": 3}}
    steps = [
        {**step, "amount": amount, "classes": [{"class": "cat", "change": 0.3 * amount}]} for amount in (1.0, -1.0)
    ]
    image = {"sample_id": "s02", "label": "cat", "prediction": "dog"}
    image["concepts"] = [{"direction": 0, "activation": 0.8, "contribution": -0.4, "map": HEAT}]  # type: ignore[assignment]
    scores = {
        "masks": {"interpretable": 1, "mean_iou": 0.28},
        "recovery": {"cosine": 0.93},
        "variance": {"explained": 0.4, "random": 0.1, "best": 0.5},
        "influence": {"directions": 1, "null": "filters"},
    }
    content = {"directions": [entry, second], "scores": scores, "images": [image]}
    return _base("directions", "eddp", **_layer(), **content, steering={"where": "all", "images": 24, "steps": steps})


def _words(*scores: float) -> list[dict[str, Any]]:
    return [{"concept": f"word{i}", "score": score} for i, score in enumerate(scores)]


def _attributions(folder: Path) -> dict[str, Any]:
    images = [
        {"sample_id": sample, "prediction": "cat", "similarity": 0.31, "bias": 0.02, "concepts": _words(0.5, 0.25),
         "for_prediction": _words(0.4, 0.2), "contrast": _words(0.1)}
        for sample in IDS[:10]
    ]  # fmt: skip
    contrast = {"class": "cat", "rival": "dog", "over": "all images", "concepts": _words(0.3, -0.2)}
    classes = [{"class": "cat", "images": 10, "concepts": _words(0.6)}]
    summary = {"data_set": _words(0.7, 0.1), "contrast": contrast, "classes": classes}
    row = {"method": "surrogate", "agreement": 0.9, "agreement_interval": [0.8, 0.95], "cosine": 0.8, "l0": 5.5}
    curve = {"fractions": [0.0, 1.0], "deletion": [1.0, 0.2], "insertion": [0.1, 0.9]}
    curve |= {"random_deletion": [1.0, 0.3], "random_insertion": [0.1, 0.8]}
    keys = {f"{way}/{name}": 12.5 for way in ("i2t", "t2i") for name in ("R@1", "median")}
    more = {"scoreboard": [row], "curves": {"surrogate": {"embedding": curve}}, "gallery": 24}
    more["retrieval"] = {"surrogate": {"faithfulness": keys, "performance": keys}}
    document = _base(
        "attributions", "surrogate", n=10, samples={"n": 10, "dataset": None}, classes=["cat", "dog"], **more
    )
    return {**document, "summary": summary, "images": images, "parameters": {"bias": "separate"}}


def _surrogate(folder: Path) -> dict[str, Any]:
    (folder / "metrics.csv").write_text(
        "epoch,kl,val_kl,val_agreement,best\n1,0.9,1.0,0.4,\n2,0.5,0.7,0.6,1\n", "utf-8"
    )
    scores = {part: {"kl": 0.5, "agreement": 0.6, "cosine": 0.71} for part in ("train", "validation", "test")}
    content = {"n": 24, "concepts": 40, "dimensions": 16, "best_epoch": 2, "epochs": 2, "scores": scores}
    return _base("surrogate", "surrogate", **content)


def _encodings(folder: Path) -> dict[str, Any]:
    names = ("lemma", "pos", "image_count", "image_share", "status")
    rows = [("cat", "n", 9, 0.375, "kept"), ("run", "v", 4, 0.167, "kept"), ("thing", "n", 23, 0.958, "too frequent")]
    lines = [",".join(map(str, row)) for row in (names, *rows)]
    (folder / "vocabulary.csv").write_text("\n".join(lines) + "\n", "utf-8")
    entries = [dict(zip(names, row, strict=True)) for row in rows]
    content = {"n": 24, "concepts": 2, "concepts_per_image": 1.5, "images_without_concepts": 3}
    return _base("encodings", "average", **content, most_frequent=entries[:2], cut=entries[2:])


def _captions(folder: Path) -> dict[str, Any]:
    rows = [{"sample_id": sample, "captions": [f"a striped animal {i}"]} for i, sample in enumerate(IDS[:12])]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    failed = [{"sample_id": "s23", "error": "truncated file"}]
    content = {
        "dataset": None,
        "captioner": "human",
        "images": 12,
        "captions": 12,
        "failed": failed,
        "examples": rows[:2],
    }
    return _base("captions", "human", **content)


def _activations(folder: Path) -> dict[str, Any]:
    values = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    values[:, 3] = 0.0
    np.save(folder / "activations.npy", values)
    pq.write_table(pa.table({"sample_id": IDS, "label": ["cat", "dog"] * 12}), folder / "samples.parquet")
    details = {"shape": [24, 8], "dtype": "float32", "failed": 2}
    return {
        "kind": "activations",
        "seed": 0,
        "parameters": {"model": "net", "layer": "conv2", "pool": "avg"},
        "details": details,
    }


def _similarities(folder: Path) -> dict[str, Any]:
    values = [[1.0, 0.6, 0.4], [0.6, 1.0, 0.5], [0.4, 0.5, 1.0]]
    scores = [[0.0, 0.35, 0.55], [0.35, 0.0, 0.45], [0.55, 0.45, 0.0]]
    chance = {"mean": 0.01, "high": 0.05}
    read = [{"mean": 0.2, "max": 0.3}] * 3
    measures: dict[str, Any] = {name: {"values": values, "chance": chance} for name in ("cka", "mutual_knn", "rsa")}
    measures["score"] = {"values": scores, "chance": None, "read_outs": {"rows": read, "columns": read}}
    concept = {"closer_in": "a", "index": 1, "size": 7, "strength": 0.4, "stability": 0.6, "p_value": 0.01}
    concept |= {"sample_ids": IDS[:3], "labels": {"cat": 0.8}}
    pair = {"row": 0, "column": 1, "why": "most different", "concepts": [concept]}
    pair["difference"] = {
        "verdict": "difference found",
        "sentences": ["They differ."],
        "question": "more than two read-outs",
    }
    content = {
        **{"rows": [{"name": f"net{i}", "layer": None, "d": 8} for i in range(3)], "of": "models", "symmetric": True},
        **{"measures": measures, "pairs": [pair], "followed": [], "reference": {}, "pool": "avg", "n": 24},
        **{"samples": {"dataset": None}, "tree": {"order": [0, 1, 2], "merges": [[0, 1, 0.35], [3, 2, 0.5]]}},
    }
    document = _base("similarities", "rdx", **content, columns=content["rows"])
    return {**document, "parameters": {"timeline": False, "layers": None}}


MAKERS = {
    "comparison": _comparison,
    "explanations": _explanations,
    "simulation": _simulation,
    "regions": _regions,
    "directions": _directions,
    "attributions": _attributions,
    "surrogate": _surrogate,
    "encodings": _encodings,
    "captions": _captions,
    "activations": _activations,
    "similarities": _similarities,
}
"""Kind to a function that writes the files beside the document into a folder, and returns the document."""
