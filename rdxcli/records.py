"""The types that travel between the rooms of the house. Validation, and nothing else.

Two go into a method (`Representation`, `ConceptMatrix`), six come out. Every record knows its sample ids, so two
records can be joined; every result turns into a plain document (`to_document`) that is both the artifact's JSON file
and what ``--json`` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli import SCHEMA_VERSION
from rdxcli.errors import InputError
from rdxcli.progress import human_count

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def _check_rows(what: str, rows: int, ids: Sequence[str] | np.ndarray | None) -> None:
    if ids is not None and len(ids) != rows:
        raise InputError(f"{what}: got {human_count(rows, 'row')} but {human_count(len(ids), 'sample id')}")


@dataclass(frozen=True)
class Representation:
    """What a model makes of n samples.

    Parameters
    ----------
    values : ndarray of shape (n, d) or (n, c, h, w), floating point
        May be memory-mapped.
    sample_ids : ndarray of shape (n,), str, or None
        None when the rows are known by position only (plain arrays without ids).
    name : str
        Short name of the model or file, for people.
    layer : str, optional
        Module path that was read.
    labels : ndarray of shape (n,), str, optional
        Class name of each sample.
    source : mapping
        Where it came from, for manifests: artifact or file, fingerprints, model and data set descriptions.
    dataset : str, optional
        Data set specification that opens the images again, for example ``digits`` or ``folder:PATH``.
    """

    values: np.ndarray
    sample_ids: np.ndarray | None
    name: str
    layer: str | None = None
    labels: np.ndarray | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 4):
            raise InputError(f"{self.name}: got an array of shape {self.values.shape}, expected (n, d) or (n, c, h, w)")
        _check_rows(self.name, len(self.values), self.sample_ids)
        if self.labels is not None and len(self.labels) != len(self.values):
            raise InputError(
                f"{self.name}: got {human_count(len(self.values), 'row')} but {human_count(len(self.labels), 'label')}"
            )

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.values.shape[0])

    @property
    def d(self) -> int:
        """Number of dimensions, channels or units."""
        return int(self.values.shape[1])

    def ids(self) -> list[str]:
        """Ids of all samples; empty when they have none."""
        return [] if self.sample_ids is None else [str(sample) for sample in self.sample_ids]

    def names_of(self, rows: Iterable[int]) -> list[str]:
        """Ids of some samples, or their row numbers."""
        ids = self.sample_ids
        return [str(row) if ids is None else str(ids[row]) for row in rows]

    def labels_of(self, rows: Iterable[int]) -> list[str] | None:
        """Labels of some samples, if there are any."""
        return None if self.labels is None else [str(self.labels[row]) for row in rows]

    def describe(self) -> dict[str, Any]:
        """``{name, layer, n, d}`` for a result document."""
        return {"name": self.name, "layer": self.layer, "n": self.n, "d": self.d}


@dataclass(frozen=True)
class ConceptMatrix:
    """How strongly each of c named concepts is present in each of n samples.

    Parameters
    ----------
    values : ndarray or CSR array of shape (n, c), floating point
    names : sequence of str, length c
    sample_ids : ndarray of shape (n,), str, optional
    source : mapping
        Where it came from, for manifests.
    """

    values: np.ndarray | csr_array
    names: Sequence[str]
    sample_ids: np.ndarray | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise InputError(f"concepts: got an array of shape {self.values.shape}, expected (n, c)")
        if self.values.shape[1] != len(self.names):
            raise InputError(
                f"concepts: got {human_count(self.values.shape[1], 'column')} but "
                f"{human_count(len(self.names), 'name')}"
            )
        _check_rows("concepts", self.values.shape[0], self.sample_ids)


@dataclass(frozen=True)
class Result:
    """Base of the results.

    Parameters
    ----------
    method : str
        Name on the command line.
    parameters : mapping
        Complete hyper-parameters.
    arrays : mapping of str to ndarray
        Everything that is too large for JSON; stored beside it.
    notes : sequence of str
        Remarks a reader must see (degenerate inputs, approximations).
    """

    method: str
    parameters: Mapping[str, Any]
    seed: int
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    notes: Sequence[str] = ()

    kind = "result"

    def content(self) -> dict[str, Any]:
        """The part of the document that belongs to this kind."""
        raise TypeError(f"{type(self).__name__} is an abstract record")

    def to_document(self, artifact: str | None = None) -> dict[str, Any]:
        """Plain JSON document: ``schema_version, kind, artifact, method, parameters, seed, notes`` and the content."""
        return plain(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": self.kind,
                "artifact": artifact,
                "method": self.method,
                "parameters": dict(self.parameters),
                "seed": self.seed,
                "notes": list(self.notes),
                **self.content(),
            }
        )


class Verdict(StrEnum):
    """What the test of a comparison says."""

    FOUND = "difference found"
    NONE = "no difference found"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"

    @classmethod
    def of(cls, words: str | None) -> Verdict:
        """The verdict of a document; every word that is none of them means that nothing was tested."""
        return cls(words) if words in list(cls) else cls.NOT_TESTED


@dataclass(frozen=True)
class DifferenceConcept:
    """A group of samples that one model holds together and the other keeps apart.

    Parameters
    ----------
    closer_in : {"a", "b"}
        The model in which the samples sit close together.
    index : int
        Rank within its direction, 1 = explains most.
    size : int
        Number of members.
    affinity : float or None
        Mean affinity inside the group; 1 means no difference. None for methods without affinities.
    samples : sequence of int
        Rows shown in the grid, best first.
    sample_ids : sequence of str
        Their ids.
    stability : float or None
        Mean best Jaccard overlap of the members over bootstrap runs, in [0, 1].
    p_value : float or None
        Probability of a group this strong when the models do not differ.
    effect : float or None
        Standard deviations by which it is stronger than the strongest groups when the models do not differ.
    labels : mapping of str to float
        Share of each class among the members, largest first, when labels are known.
    strength : float or None
        What the group explains: (mean affinity - 1) x share of the samples.
    interval : (float, float) or None
        95 % for the strength, over samples.
    elsewhere : mapping
        Where its members lie in both models, see `rdxcli.methods.difference.whereabouts.whereabouts`.
    words : sequence of mapping
        Names of the concept with their margins, when asked for.
    parts : int
        Parts of one group that were joined into it; 1 for a concept as it was found.
    descriptions : sequence of mapping
        Sentences that hold for held-out images of the group, see `rdxcli.methods.difference.describing`.
    """

    closer_in: str
    index: int
    size: int
    affinity: float | None
    samples: Sequence[int]
    sample_ids: Sequence[str]
    stability: float | None = None
    p_value: float | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    words: Sequence[Mapping[str, Any]] = ()
    descriptions: Sequence[Mapping[str, Any]] = ()
    strength: float | None = None
    interval: tuple[float, float] | None = None
    elsewhere: Mapping[str, Any] = field(default_factory=dict)
    effect: float | None = None
    parts: int = 1


def relied_on(reliability: Mapping[str, Any] | None, side: str, index: int) -> bool:
    """Whether a concept of an approximate comparison can be relied on; of an exact one (nothing is kept) always."""
    found = (reliability or {}).get(side, {"reliable": True})
    return bool(found.get("concepts", {}).get(str(index), found)["reliable"])


@dataclass(frozen=True)
class Comparison(Result):
    """What two representations of the same samples see differently.

    Parameters
    ----------
    a, b : mapping
        ``{name, layer, n, d}`` of each side.
    n, k : int
        Samples compared, concepts asked for per direction.
    difference : mapping
        ``{score, null_mean, null_p, verdict, ...}``.
    scores : mapping
        Every metric of the method.
    samples : mapping
        How the two sides were joined: ``{joined, missing_in_a, missing_in_b}`` and the data set, if known.
    predictions : mapping
        Churn, flips and accuracy, in all, by class and by concept; empty without predictions and labels.
    heads : mapping
        What two classifiers with different outputs say, see `rdxcli.concepts.heads`; empty where there are none.
    properties : mapping
        What the images of each concept share; empty where nothing is known of the images.
    patches : mapping
        Where in the images of each concept both models see something alike, when asked for.
    reliability : mapping
        By side, whether the concepts of an approximate fit can be relied on; empty for an exact one.
    scoreboard : mapping
        Of several methods: ``{method, lead, methods}``.
    """

    a: Mapping[str, Any] = field(default_factory=dict)
    b: Mapping[str, Any] = field(default_factory=dict)
    n: int = 0
    k: int = 0
    difference: Mapping[str, Any] = field(default_factory=dict)
    concepts: Sequence[DifferenceConcept] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)
    heads: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    patches: Mapping[str, Any] = field(default_factory=dict)
    reliability: Mapping[str, Any] = field(default_factory=dict)
    scoreboard: Mapping[str, Any] = field(default_factory=dict)

    kind = "comparison"

    @classmethod
    def of_document(cls, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Comparison:
        """The record that gave a document; of a scoreboard without its table."""
        names = {part.name for part in fields(cls)} & set(document)
        concepts = [DifferenceConcept(**concept) for concept in document["concepts"]]
        return cls(**{**{name: document[name] for name in names}, "concepts": concepts, "arrays": arrays})

    def content(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "n": self.n,
            "k": self.k,
            "difference": self.difference,
            "concepts": [vars(concept) for concept in self.concepts],
            "scores": self.scores,
            "samples": self.samples,
            "predictions": self.predictions,
            "properties": self.properties,
            **({"heads": self.heads} if self.heads else {}),
            **({"patches": self.patches} if self.patches else {}),
            "reliability": self.reliability,
            **self.scoreboard,
        }


@dataclass(frozen=True)
class ComparedPair:
    """Two of many layers or models that were compared in full.

    Parameters
    ----------
    row, column : int
        Places in ``rows`` and ``columns``.
    why : str
        Why this pair: ``neighbours``, ``equal depth``, ``most different``.
    difference : mapping
        As in a comparison.
    reliability : mapping
        As in a comparison.
    """

    row: int
    column: int
    why: str
    difference: Mapping[str, Any] = field(default_factory=dict)
    concepts: Sequence[DifferenceConcept] = ()
    notes: Sequence[str] = ()
    reliability: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Similarities(Result):
    """How alike many representations of the same samples are: layers of one or two models, or many models.

    Parameters
    ----------
    of : {"layers", "models"}
    rows, columns : sequence of mapping
        ``{name, layer, n, d}`` of what each row and column of the matrices stands for.
    symmetric : bool
        Rows and columns are the same.
    n : int
        Samples compared.
    pool : str
        How positions became one vector, in words.
    measures : mapping
        By name (``cka``, ``mutual_knn``, ``rsa``, ``score``): ``values`` (rows x columns), ``chance`` (``mean``,
        ``high``, ``how``); of the score ``read_outs`` (``mean`` and ``max`` between two versions of each).
    pairs : sequence of ComparedPair
        With their concepts; neighbours of a series in its order.
    followed : sequence of mapping
        Concepts along a series: ``{step, side, index, togetherness, chance, appears, comes_apart, meetings, ...}``.
    tree : mapping
        Of models: ``order`` and ``merges``.
    reference : mapping
        Of runs that set the scale: their names, and the scores of their pairs.
    samples : mapping
        The data set, if known, and the number of samples.
    """

    of: str = "layers"
    rows: Sequence[Mapping[str, Any]] = ()
    columns: Sequence[Mapping[str, Any]] = ()
    symmetric: bool = False
    n: int = 0
    pool: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)
    pairs: Sequence[ComparedPair] = ()
    followed: Sequence[Mapping[str, Any]] = ()
    tree: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)

    kind = "similarities"

    def content(self) -> dict[str, Any]:
        names = ("of", "rows", "columns", "symmetric", "n", "pool", "measures", "followed", "tree", "reference")
        pairs = [{**vars(pair), "concepts": [vars(concept) for concept in pair.concepts]} for pair in self.pairs]
        return {**{name: getattr(self, name) for name in names}, "pairs": pairs, "samples": self.samples}


@dataclass(frozen=True)
class Regions(Result):
    """Regions of feature space that carry concepts.

    Parameters
    ----------
    model : mapping
        ``{name, layer, n, d}`` of the representation.
    regions : sequence of mapping
        ``{target, neighbours, neurons, states, scores, members, ...}``.
    samples : mapping
        The data set, if known, and the number of samples.
    comparison : mapping, optional
        The same targets in other layers or models.
    applied : mapping, optional
        Where the rules were found, when they were applied to other samples.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    regions: Sequence[Mapping[str, Any]] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)
    comparison: Mapping[str, Any] | None = None
    applied: Mapping[str, Any] | None = None

    kind = "regions"

    def content(self) -> dict[str, Any]:
        extra = {"comparison": self.comparison, "applied": self.applied}
        return {
            "model": self.model,
            "regions": list(self.regions),
            "samples": self.samples,
            **{name: value for name, value in extra.items() if value is not None},
        }


@dataclass(frozen=True)
class DirectionExplanations(Result):
    """Directions of feature space that carry concepts.

    Parameters
    ----------
    model : mapping
        ``{name, layer, n, d}`` of the representation.
    directions : sequence of mapping
        ``{index, share, images, labels, samples, sample_ids, concept_maps, clarity, influence, mask_label}``.
    scores : mapping
        Health of the detectors; agreement with the truth for synthetic data.
    samples : mapping
        The data set, if known, and the number of samples.
    steering : mapping, optional
        Counterfactuals along directions.
    images : sequence of mapping, optional
        Single images with what each concept does to their prediction.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    directions: Sequence[Mapping[str, Any]] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    steering: Mapping[str, Any] | None = None
    images: Sequence[Mapping[str, Any]] | None = None

    kind = "directions"

    def content(self) -> dict[str, Any]:
        extra = {"steering": self.steering, "images": self.images}
        return {
            "model": self.model,
            "directions": list(self.directions),
            "scores": self.scores,
            "samples": self.samples,
            **{name: value for name, value in extra.items() if value is not None},
        }


@dataclass(frozen=True)
class NeuronExplanations(Result):
    """What single units respond to.

    Parameters
    ----------
    model : mapping
        ``{name, layer, n, d}`` of the representation.
    units : sequence of mapping
        ``{unit, status, concepts: [{concept, weight}], bias, scores, text, strongest}``.
    summary : mapping
        Mean, standard error and extremes of each score, lengths of the explanations.
    samples : mapping
        The data set, if known, and the number of samples.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    units: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)

    kind = "explanations"

    def content(self) -> dict[str, Any]:
        return {"model": self.model, "units": list(self.units), "summary": self.summary, "samples": self.samples}


@dataclass(frozen=True)
class Simulation(Result):
    """How well explanations predict the units they explain.

    Parameters
    ----------
    model : mapping
        ``{name, layer, n, d}`` of the representation.
    methods : sequence of mapping
        Per table ``{method, summary: {mean, standard_error, count, undefined}, units, length_curve}``.
    pairs : sequence of mapping
        Paired comparison of every two tables on the same units.
    ablation : mapping, optional
        How the model was judged, and the scores of a perfect and of a shuffled prediction.
    importance : mapping, optional
        Share of a unit's effect that its most activating images carry.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    methods: Sequence[Mapping[str, Any]] = ()
    pairs: Sequence[Mapping[str, Any]] = ()
    ablation: Mapping[str, Any] | None = None
    importance: Mapping[str, Any] | None = None

    kind = "simulation"

    def content(self) -> dict[str, Any]:
        summary = self.methods[0]["summary"] if len(self.methods) == 1 else None
        extra = {"ablation": self.ablation, "importance": self.importance}
        return {
            "model": self.model,
            "summary": summary,
            "methods": list(self.methods),
            "pairs": list(self.pairs),
            **{name: value for name, value in extra.items() if value is not None},
        }


@dataclass(frozen=True)
class SampleAttributions(Result):
    """Which words explain embeddings, image by image.

    Parameters
    ----------
    images : sequence of mapping
        ``{sample_id, concepts: [{concept, score}], ...}``.
    samples : mapping
        The data set, if known, and the number of samples.
    summary : mapping
        Mean scores of the data set, of classes, of a contrast.
    more : mapping
        Scoreboard, curves, ranks, the effect of an edit.
    """

    images: Sequence[Mapping[str, Any]] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    kind = "attributions"

    def content(self) -> dict[str, Any]:
        return {
            "n": len(self.images),
            "samples": self.samples,
            "classes": None if self.classes is None else list(self.classes),
            "summary": self.summary,
            **self.more,
            "images": list(self.images),
        }


@dataclass(frozen=True)
class TrainedSurrogate(Result):
    """A trained concept surrogate.

    Parameters
    ----------
    n, concepts, dimensions : int
        Images, columns of the encodings, size of the embedding.
    scores : mapping
        ``train``, ``validation`` and ``test``.
    """

    n: int = 0
    concepts: int = 0
    dimensions: int = 0
    best_epoch: int = 0
    epochs: int = 0
    scores: Mapping[str, Any] = field(default_factory=dict)

    kind = "surrogate"

    def content(self) -> dict[str, Any]:
        names = ("n", "concepts", "dimensions", "best_epoch", "epochs", "scores")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ConceptEncodings(Result):
    """Concepts found in captions, and images encoded over them.

    Parameters
    ----------
    most_frequent, cut : sequence of mapping
        Rows of the vocabulary: kept ones, and the most frequent of those left out with the reason.
    """

    n: int = 0
    concepts: int = 0
    concepts_per_image: float = 0.0
    images_without_concepts: int = 0
    most_frequent: Sequence[Mapping[str, Any]] = ()
    cut: Sequence[Mapping[str, Any]] = ()

    kind = "encodings"

    def content(self) -> dict[str, Any]:
        names = ("n", "concepts", "concepts_per_image", "images_without_concepts", "most_frequent", "cut")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Captions(Result):
    """Captions of images, by a model, by people, or from a file.

    Parameters
    ----------
    dataset : str, optional
        Name of the data set; None for the images that a file names.
    images, captions : int
        With captions, and how many they have together.
    failed : sequence of mapping
        ``sample_id`` and ``error`` of images that could not be read.
    examples : sequence of mapping
        ``sample_id`` and ``captions`` of the first images.
    """

    dataset: str | None = None
    captioner: str = ""
    images: int = 0
    captions: int = 0
    failed: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Any]] = ()

    kind = "captions"

    def content(self) -> dict[str, Any]:
        names = ("dataset", "captioner", "images", "captions", "failed", "examples")
        return {name: getattr(self, name) for name in names}


def plain(value: Any) -> Any:
    """Reduce ``value`` to what JSON holds: NumPy scalars and arrays unwrapped, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
