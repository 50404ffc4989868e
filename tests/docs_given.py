"""What a reader has at hand before the code of a page: small made-up inputs under the names that the page uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

N, UNITS, WORDS = 60, 64, 12


def _units() -> dict[str, Any]:
    from rdxcli.methods.neurons.preparation import random_split
    from rdxcli.methods.neurons.tables import format_table

    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, N)
    images, texts = rng.standard_normal((N, 8)), rng.standard_normal((WORDS, 8))
    activations = np.abs(rng.standard_normal((N, UNITS)))
    return {
        "activations": activations,
        "image_features": images,
        "text_features": texts,
        "words": [f"word {i}" for i in range(WORDS)],
        "names": [f"word {i}" for i in range(WORDS)],
        "concepts": (rng.random((N, WORDS)) < 0.4).astype(float),
        "targets": targets,
        "class_names": ["a", "b", "c"],
        "superclasses": {"a or b": [0, 1]},
        "n": N,
        "split": random_split(N, 0),
        "format_table": format_table,
    }


def _dissection() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "maps": rng.random((6, 4, 3, 3)),
        "masks": [rng.integers(-1, 2, (12, 12)) for _ in range(6)],
        "names": ["sky", "road"],
        "categories": ["object", "object"],
    }


def _regions() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N).astype(str)
    return {
        "activations": rng.standard_normal((N, 10)),
        "new_activations": rng.standard_normal((5, 10)),
        "labels": labels,
        "predictions": np.where(np.arange(N) < 4, "0", labels),
    }


def _pair() -> dict[str, Any]:
    from rdxcli.methods.difference.rdx import RDX

    a, b, c, d = (np.random.default_rng(seed).standard_normal((N, 6)) for seed in range(4))
    return {"a": a, "b": b, "c": c, "d": d, "rows": np.arange(5), "rdx": RDX(n_clusters=2).fit(a, b)}


def _boundary() -> dict[str, Any]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2))
    features = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    return {"features": features, "new_features": features[:5], "head": network}


def _simulation() -> dict[str, Any]:
    from rdxcli.methods.neurons.linear import LinearExplanation
    from rdxcli.methods.neurons.tables import format_table

    given = _units()
    P, activations, split = given["concepts"], given["activations"][:, :3], given["split"]
    fitted = LinearExplanation().fit(P, activations, train=split.train, val=split.val, concept_names=given["names"])
    rng = np.random.default_rng(1)
    return {
        **given,
        "activations": activations,
        "P": P,
        "csv_text": format_table(fitted.table("layer4")),
        "fc_weight": rng.standard_normal((3, 3)),
        "fc_bias": np.zeros(3),
        "labels": given["targets"],
        "a": rng.random(5),
        "b": rng.random(5),
    }


def _layers() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((60, 5)) for name in ("x1", "x2", "y1", "y2")}


def _splice() -> dict[str, Any]:
    from rdxcli.methods.surrogate.splice import SpLiCE

    rng = np.random.default_rng(0)
    return {
        "SpLiCE": SpLiCE,
        "word_embeddings": rng.standard_normal((20, 8)),
        "image_mean": rng.standard_normal(8) / 10,
        "image_embeddings": rng.standard_normal((4, 8)),
    }


GIVEN = {
    "clip_dissect.md": _units,
    "formulas.md": _units,
    "layers.md": _layers,
    "linear_explanations.md": _units,
    "network_dissection.md": _dissection,
    "rdr.md": _regions,
    "rdx.md": _pair,
    "representative_interpretation.md": _boundary,
    "significance.md": _pair,
    "simulation.md": _simulation,
    "splice.md": _splice,
}


def given_to(page: str) -> dict[str, Any]:
    """The names of a page, by its file name."""
    return GIVEN.get(page, dict)()
