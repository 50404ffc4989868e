"""Sentences for groups of images: proposed from one half of the images, verified on the other.

Symbols: I (n, d) image embeddings and T (s, d) embeddings of s sentences by one image-text model, S = cosines (n, s);
G a group of images. Every group and all other images are halved at random. On the first half the sentences that set the
group apart best are chosen; on the second half each chosen one is tested:

- AUC = share of pairs (image of G, other image) whose first cosine is larger, ties half;
- p = one-sided Mann-Whitney test, times the number of sentences tested over all groups (Bonferroni).

Nothing that was looked at for choosing is looked at for testing, so that p holds whatever the sentences came from.

Source: Dunlap et al., "Describing Differences in Image Sets with Natural Language" (VisDiff), CVPR 2024: a proposer and
a ranker by AUC of CLIP scores. The halves and the correction are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdxcli.lazy import scipy
from rdxcli.methods.neurons.concepts import unit_rows
from rdxcli.numerics.seeding import generator
from rdxcli.progress import human_count

LEVEL = 0.05
MOST_TESTED = 5  # sentences of a group; each makes the correction larger
FEWEST = 4  # images of a group in a half


@dataclass(frozen=True)
class Halves:
    """Rows of a group and of all others, halved.

    Attributes
    ----------
    proposing, others : int64
        Rows of the group and others that sentences may come from.
    held_out, held_out_others : int64
        Rows they are tested on.
    """

    proposing: np.ndarray
    others: np.ndarray
    held_out: np.ndarray
    held_out_others: np.ndarray


@dataclass(frozen=True)
class Description:
    """A sentence that holds for the held-out images of a group.

    Attributes
    ----------
    auc : float
        On the held-out images.
    p_value : float
        Corrected for every sentence that was tested.
    images, others : int
        Held-out images of the group, and other ones.
    """

    sentence: str
    auc: float
    p_value: float
    images: int
    others: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def halve(rows: ArrayLike, n: int, name: str, random_state: int = 0) -> Halves | None:
    """Halve a group and the rest; None when the group, or the rest, is too small to be tested."""
    inside = np.unique(np.asarray(rows, dtype=np.int64))
    outside = np.setdiff1d(np.arange(n), inside)
    if min(len(inside), len(outside)) < 2 * FEWEST:
        return None
    rng = generator(random_state, "describe", name)
    inside, outside = rng.permutation(inside), rng.permutation(outside)
    cut, other = len(inside) // 2, len(outside) // 2
    return Halves(inside[:cut], outside[:other], inside[cut:], outside[other:])


def auc(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Share of pairs in which the first is larger, ties half, by column: (s,)."""
    order = np.sort(outside, axis=0)
    out = np.empty(inside.shape[1])
    for j in range(inside.shape[1]):
        below = np.searchsorted(order[:, j], inside[:, j], "left")
        up_to = np.searchsorted(order[:, j], inside[:, j], "right")
        out[j] = (below + up_to).mean() / (2 * len(order))
    return out


def describe_groups(
    images: ArrayLike,
    halves: Mapping[str, Halves],
    sentences: Mapping[str, Sequence[str]],
    texts: Mapping[str, ArrayLike],
    *,
    most: int = MOST_TESTED,
    level: float = LEVEL,
) -> tuple[dict[str, list[Description]], int]:
    """The sentences of each group that hold on its held-out images.

    Raises `ValueError` (embeddings of different widths, or NaN).

    Parameters
    ----------
    images : (n, d) array
    sentences : mapping of group to sequence of s str
        Proposed for the group.
    texts : mapping of group to (s, d) array
        Their embeddings by the same model.
    most : int
        Sentences that are tested for a group.

    Returns
    -------
    dict of group to list of Description
        Largest AUC first; empty when none holds.
    int
        Sentences tested, which p-values are multiplied by.
    """
    unit_images = unit_rows(images, "image embeddings")
    chosen: dict[str, tuple[list[int], np.ndarray]] = {}
    for key, parts in halves.items():
        if not len(sentences[key]):
            continue
        unit_texts = unit_rows(texts[key], "text embeddings")
        if unit_texts.shape[1] != unit_images.shape[1]:
            raise ValueError(
                f"Got images of {unit_images.shape[1]} and texts of "
                f"{human_count(unit_texts.shape[1], 'column')}, expected one model"
            )
        said = auc(unit_images[parts.proposing] @ unit_texts.T, unit_images[parts.others] @ unit_texts.T)
        best = [int(j) for j in np.argsort(-said, kind="stable")[:most] if said[j] > 0.5]
        chosen[key] = (best, unit_texts[best])
    tested = sum(len(best) for best, _ in chosen.values())
    found: dict[str, list[Description]] = {key: [] for key in halves}
    for key, (best, vectors) in chosen.items():
        parts = halves[key]
        inside, outside = unit_images[parts.held_out] @ vectors.T, unit_images[parts.held_out_others] @ vectors.T
        reached = auc(inside, outside)
        for place, j in enumerate(best):
            p = scipy.stats.mannwhitneyu(inside[:, place], outside[:, place], alternative="greater").pvalue
            corrected = min(1.0, float(p) * tested)
            if corrected <= level:
                sizes = len(parts.held_out), len(parts.held_out_others)
                found[key].append(Description(str(sentences[key][j]), float(reached[place]), corrected, *sizes))
        found[key].sort(key=lambda one: -one.auc)
    return found, tested
