"""What regions are used for: subclasses of a class, causes of a misclassification, layers and models compared.

The paper names these uses (abstract); the procedures follow the specification and are otherwise ours.

Reference: Chang, Kwon and Choi, AAAI 2024 (arXiv 2312.17285).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from rdxcli.methods.regions.catalogue import MergedRegion, jaccard, merge_regions
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.rdr import RDR
from rdxcli.methods.regions.region import Region
from rdxcli.methods.regions.targets import Labels, Targets, choose_targets
from rdxcli.progress import human_count


@dataclass(frozen=True, eq=False)
class Subclass:
    """A concept inside one class.

    Attributes
    ----------
    concept : MergedRegion
        Its region's rule says what the subclass is.
    rows : (r,) int64
        Members that are of the class, in the order of the region's members.
    share : float
        Of the class.
    purity : float
        Share of the region's members that are of the class.
    finer : dict of str to int
        Finer labels of ``rows``, when given, the most frequent first.
    """

    concept: MergedRegion
    rows: np.ndarray
    share: float
    purity: float
    finer: dict[str, int]

    def document(self, configurations: Configurations | None = None) -> dict[str, Any]:
        """The concept's document with ``subclass``."""
        details = {"rows": self.rows, "share": self.share, "purity": self.purity, "finer": self.finer}
        return self.concept.document(configurations) | {"subclass": details}


def find_subclasses(
    rdr: RDR,
    name: str,
    *,
    overlap: float | None = None,
    min_support: int | None = None,
    finer: ArrayLike | None = None,
) -> list[Subclass]:
    """Groups inside a class, from the regions of its samples.

    Raises `ValueError` (no labels, an unknown class, or no target in it).

    Parameters
    ----------
    rdr : RDR
        Fitted with labels (or predictions) and targets that include samples of the class, best all of them:
        ``targets="class:NAME"``.
    name : str
        The class.
    overlap, min_support : optional
        As `merge_regions`, which counts overlaps inside the class only; default those of ``rdr``.
    finer : (n,) array-like, optional
        Finer labels, to check the groups with; they have no influence.

    Returns
    -------
    list of Subclass
        The one with most regions first. They may overlap, and need not cover the class.
    """
    y = rdr.labels_.reference
    if y is None:
        raise ValueError("Got an RDR fitted without labels, expected labels or predictions to find subclasses in")
    inside = y == rdr.labels_.number(name)
    regions = [region for region in rdr.regions_ if inside[region.target]]
    if not regions:
        raise ValueError(f"Got no target of class {name!r}, expected some: fit with targets='class:{name}'")
    fine = Labels.from_arrays(rdr.n_, finer)
    concepts = merge_regions(
        regions,
        rdr.n_,
        overlap=rdr.merge_overlap if overlap is None else overlap,
        within=np.flatnonzero(inside),
        min_support=rdr.min_support if min_support is None else min_support,
    )
    found = []
    for concept in concepts:
        members = concept.region.members
        rows = members[inside[members]]
        counts = {} if fine.true is None else fine.counts(fine.true[rows])
        found.append(Subclass(concept, rows, len(rows) / int(inside.sum()), len(rows) / len(members), counts))
    return found


@dataclass(frozen=True, eq=False)
class Cause:
    """What a misclassified sample shares with the class it was taken for.

    Attributes
    ----------
    label, prediction : str
        Of the target.
    label_share, prediction_share : float or None
        Share of the other members whose true label is the target's label, or the class it was taken for.
    lift : float or None
        ``prediction_share`` over the share of that class in all samples. Well above 1: the target sits among samples of
        the wrong class because of the region's states.
    evidence : (r,) int64
        Members that really are of the wrong class, nearest first.
    confused : (c,) int64
        Other members with the same error, nearest first.
    """

    region: Region
    label: str
    prediction: str
    label_share: float | None
    prediction_share: float | None
    lift: float | None
    evidence: np.ndarray
    confused: np.ndarray

    def document(self, configurations: Configurations | None = None) -> dict[str, Any]:
        """The region's document with ``cause``."""
        names = ("label", "prediction", "label_share", "prediction_share", "lift", "evidence", "confused")
        return self.region.document(configurations) | {"cause": {name: getattr(self, name) for name in names}}


def find_causes(rdr: RDR) -> list[Cause]:
    """For each misclassified target, the concept it shares with the class it was taken for.

    Raises `ValueError` (labels or predictions are missing, or no target is misclassified). `rdr`: fitted with labels,
    predictions and, for example, ``targets="misclassified"``.

    Returns
    -------
    list of Cause
        Largest ``prediction_share`` first; targets whose region is unbounded come last, with None for the shares.
    """
    labels = rdr.labels_
    y, z = labels.true, labels.predicted
    if y is None or z is None:
        raise ValueError("Got an RDR fitted without labels or predictions, expected both to look for causes")
    causes = []
    for region in rdr.regions_:
        own, taken = y[region.target], z[region.target]
        if own == taken:
            continue
        rest = region.members[region.members != region.target]
        shares: list[float | None] = [None, None]
        if len(rest):
            shares = [float((y[rest] == own).mean()), float((y[rest] == taken).mean())]
        base = float((y == taken).mean())
        wrong = shares[1]
        causes.append(
            Cause(
                region,
                labels.names[own],
                labels.names[taken],
                shares[0],
                wrong,
                None if wrong is None or base == 0 else wrong / base,
                rest[y[rest] == taken],
                rest[(y[rest] == own) & (z[rest] == taken)],
            )
        )
    if not causes:
        raise ValueError("Got no misclassified target, expected some: fit with targets='misclassified'")
    return sorted(causes, key=lambda cause: -1.0 if cause.prediction_share is None else cause.prediction_share)[::-1]


@dataclass(frozen=True, eq=False)
class RegionComparison:
    """Regions of the same targets at several layers, or in several models.

    Symbols: T targets, L sources (layers or models).

    Attributes
    ----------
    names : tuple of str
        The sources.
    targets : (T,) int64
    fits : tuple of RDR
        One per source.
    sizes : (T, L) int64
        Members; 0 for an unbounded region.
    overlap : (T, L, L) float64
        Jaccard overlap of the members. NaN where one of the two regions is unbounded.
    expected : (T, L, L) float64
        Overlap of two random sets of these sizes that share the target; NaN as above.
    neighbour_overlap : (T, L, L) float64
        Jaccard overlap of the k neighbours.
    """

    names: tuple[str, ...]
    targets: np.ndarray
    fits: tuple[RDR, ...]
    sizes: np.ndarray
    overlap: np.ndarray
    expected: np.ndarray
    neighbour_overlap: np.ndarray
    notes: list[str]

    def only(self, target: int, source: int, other: int) -> np.ndarray:
        """Members in one source's region of a target (by position in ``targets``) that the other's lacks."""
        mine, theirs = (self.fits[i].regions_[target].members for i in (source, other))
        return mine[~np.isin(mine, theirs)]

    def summary(self) -> list[dict[str, Any]]:
        """One entry per pair of sources.

        ``targets``: how many have two bounded regions; ``overlap``, ``expected``, ``neighbour_overlap``: means over
        them; ``agreement``: (overlap - expected) / (1 - expected), 1 for equal regions and about 0 for unrelated ones.
        """
        entries = []
        for i in range(len(self.names)):
            for j in range(i + 1, len(self.names)):
                both = ~np.isnan(self.overlap[:, i, j])
                entry: dict[str, Any] = {"a": self.names[i], "b": self.names[j], "targets": int(both.sum())}
                for name in ("overlap", "expected", "neighbour_overlap"):
                    entry[name] = float(getattr(self, name)[both, i, j].mean()) if both.any() else None
                chance = entry["expected"]
                fair = chance is not None and chance < 1
                entry["agreement"] = (entry["overlap"] - chance) / (1 - chance) if fair else None
                entries.append(entry)
        return entries

    def document(self) -> dict[str, Any]:
        """Everything but the fits; each source's regions in ``sources``."""
        return {
            "targets": self.targets,
            "pairs": self.summary(),
            "sizes": self.sizes,
            "overlap": self.overlap,
            "expected": self.expected,
            "neighbour_overlap": self.neighbour_overlap,
            "sources": [
                {"name": name, "regions": fit.documents(), "notes": fit.notes_}
                for name, fit in zip(self.names, self.fits, strict=True)
            ],
        }


def compare_regions(
    sources: Mapping[str, ArrayLike | Configurations],
    *,
    rdr: RDR | None = None,
    targets: Targets = None,
    labels: ArrayLike | None = None,
    predictions: ArrayLike | Mapping[str, ArrayLike] | None = None,
) -> RegionComparison:
    """The regions of the same targets in several sources.

    Raises `ValueError` (fewer than two sources, different numbers of samples, or as `RDR.fit`).

    Parameters
    ----------
    sources : mapping of name to activations or Configurations
        Layers of one model, or models; the same n samples in the same order.
    rdr : RDR, optional
        Its hyper-parameters are used for every source; default `RDR()`.
    targets, labels
        As in `RDR.fit`. Words that need predictions use those of the first source.
    predictions : (n,) array-like or mapping of name to (n,) array-like, optional
        A mapping for models, one vector for layers of one model.

    Notes
    -----
    Regions depend on the axes: a rotated copy of a representation has other regions although it is the same geometry.
    The specification's use (several layers of one model) and models that share an architecture are what it is for.
    """
    if len(sources) < 2:
        raise ValueError(f"Got {human_count(len(sources), 'source')}, expected at least two layers or models")
    base = RDR() if rdr is None else rdr
    names = tuple(sources)
    rows: np.ndarray | None = None
    fits: list[RDR] = []
    for name, source in sources.items():
        given = predictions.get(name) if isinstance(predictions, Mapping) else predictions
        n = source.n if isinstance(source, Configurations) else len(np.asanyarray(source))
        if rows is None:
            first = n
            rows = choose_targets(targets, Labels.from_arrays(n, labels, given), n, base.random_state)
        elif n != first:
            raise ValueError(
                f"Got {human_count(n, 'sample')} in {name} and {first} in {names[0]}, expected the same samples"
            )
        fits.append(clone(base).fit(source, targets=rows, labels=labels, predictions=given))
    assert rows is not None  # there are sources
    columns = [fit.regions_ for fit in fits]
    shape = (len(rows), len(names), len(names))
    overlap, expected, close = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
    for t in range(len(rows)):
        for i, left in enumerate(columns):
            for j, right in enumerate(columns):
                a, b = left[t], right[t]
                close[t, i, j] = jaccard(a.neighbours, b.neighbours)
                if a.bounded and b.bounded:
                    overlap[t, i, j] = jaccard(a.members, b.members)
                    expected[t, i, j] = expected_overlap(len(a.members), len(b.members), first)
    sizes = np.array([[len(regions[t].members) for regions in columns] for t in range(len(rows))], dtype=np.int64)
    notes = [f"{name}: {note}" for name, fit in zip(names, fits, strict=True) for note in fit.notes_]
    return RegionComparison(names, rows, tuple(fits), sizes, overlap, expected, close, notes)


def expected_overlap(a: int, b: int, n: int) -> float:
    """Jaccard overlap of two random sets of sizes a and b among n samples that share one: ratio of expected sizes."""
    shared = 1.0 + (a - 1) * (b - 1) / max(1, n - 1)
    return shared / (a + b - shared)


def draw_members(members: Sequence[int] | np.ndarray, count: int = 10, random_state: int = 0) -> np.ndarray:
    """Members to show as the published figures do: ``count`` different ones at random, not the nearest.

    All members, in their order, when there are no more than ``count`` (the original fails then). The legacy generator
    of NumPy is used, which keeps its stream for ever.
    """
    given = np.asarray(members)
    if len(given) < count:
        return given
    return given[np.random.RandomState(random_state).choice(len(given), count, replace=False)]
