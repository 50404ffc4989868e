"""Real captions and real CLIP text embeddings as a trial of the surrogate, without images.

No image embeddings of CLIP can be had here, so made-up scenes stand in for images: five human captions that mention the
same object. The teacher's embedding of a scene is the mean of the real CLIP text embeddings of all objects (LVIS names)
its captions mention, that of a caption the mean over its own objects; classes are the objects. The surrogate sees the
words of the captions only. This is easier than images (the teacher knows nothing but the objects named), which is why
two variants go with it: ``context`` takes every word of an object's name out of the vocabulary, so that the surrogate
has to tell the object from the rest of the sentences, and ``shuffled`` gives every scene another's captions.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.methods.surrogate.encoding import Encodings, encode, from_arrays
from rdxcli.methods.surrogate.evaluation import predict
from rdxcli.methods.surrogate.extraction import load_extractor
from rdxcli.methods.surrogate.vocabulary import count_concepts, fit_vocabulary
from rdxcli.numerics.seeding import generator

CAPTIONS_PER_SCENE = 5


@dataclass(frozen=True)
class Trial:
    """Scenes with their captions, the teacher's embeddings, and the classes."""

    captions: dict[str, list[str]]
    images: np.ndarray
    texts: np.ndarray
    classes: np.ndarray
    names: list[str]
    object_embeddings: np.ndarray
    object_words: frozenset[str]

    @property
    def offsets(self) -> np.ndarray:
        return np.arange(0, len(self.texts) + 1, CAPTIONS_PER_SCENE)

    @property
    def majority(self) -> float:
        """Agreement of always naming the commonest class."""
        common = Counter(predict(self.images, self.classes).tolist()).most_common(1)[0][1]
        return common / len(self.images)

    def encodings(self, variant: str) -> Encodings:
        """``words``, ``context`` or ``shuffled``."""
        counts = count_concepts(self.captions, load_extractor("packaged"))
        stop = sorted(self.object_words) if variant == "context" else []
        found = encode(counts, fit_vocabulary(counts, min_count=3, max_threshold=0.1, stop=stop))
        if variant == "shuffled":
            turned = found.take(generator(1, "lvis", "shuffle").permutation(len(found.ids)))
            found = from_arrays(turned.arrays(), found.ids, found.concepts)
        return found


def build(shared: Path) -> Trial:
    """Read the captions, names and embeddings of the folder with real data."""
    with (shared / "data/clip/lvis_v1_names.csv").open(encoding="utf-8") as table:
        names = [row["name"].replace("_", " ").split("(")[0].strip() for row in csv.DictReader(table)]
    embeddings = np.load(shared / "data/clip/lvis_v1_clip_vitb32_text.npy", allow_pickle=False).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    lines = (shared / "data/text/conceptual_captions_val.txt").read_text("utf-8").splitlines()
    # Names that stand for two objects, or that are mostly another part of speech ("can"), say nothing certain.
    extractor = load_extractor("packaged")
    once = Counter(names)
    objects = {
        name: row
        for row, name in enumerate(names)
        if once[name] == 1 and extractor.tagger.tag(name.split())[-1].startswith("N")
    }
    spotter = load_extractor("packaged", terms=objects)
    found = [sorted({objects[c.lemma] for c in spotter.concepts(line) if c.pos == "*"}) for line in lines]
    frequency: Counter[int] = Counter(row for rows in found for row in rows)
    by_object: dict[int, list[int]] = {}
    for line, rows in enumerate(found):
        if rows:
            by_object.setdefault(min(rows, key=lambda row: (frequency[row], row)), []).append(line)
    scenes: list[list[int]] = []
    kept = []
    for row in sorted(by_object):
        mine = [by_object[row][i] for i in generator(0, "lvis", row).permutation(len(by_object[row]))]
        groups = [mine[i : i + CAPTIONS_PER_SCENE] for i in range(0, len(mine), CAPTIONS_PER_SCENE)]
        whole = [group for group in groups if len(group) == CAPTIONS_PER_SCENE]
        scenes += whole
        kept += [row] if whole else []
    parts = [[embeddings[found[line]].mean(axis=0) for line in scene] for scene in scenes]
    return Trial(
        {f"scene-{i:05d}": [lines[line] for line in scene] for i, scene in enumerate(scenes)},
        np.array([np.mean(part, axis=0) for part in parts]),
        np.array([vector for part in parts for vector in part]),
        embeddings[kept],
        [names[row] for row in kept],
        embeddings,
        frozenset(word for name in names for word in name.split()),
    )


def fit_arguments(trial: Trial) -> dict[str, Any]:
    """What goes to `SurrogateTrainer.fit` besides the encodings."""
    return {
        "image_embeddings": trial.images,
        "text_embeddings": trial.texts,
        "text_offsets": trial.offsets,
        "class_embeddings": trial.classes,
        "sample_ids": list(trial.captions),
    }
