"""``rdx compare``: join two representations, explain and test their difference, store the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, fingerprint_array, write_json
from rdxcli.artifacts.layout import array_dataset, comparisons_folder
from rdxcli.errors import GateError, InputError, UsageError, near_matches
from rdxcli.progress import log, track
from rdxcli.services.inputs import ArrayOptions, Joined, SelectionOptions, join, resolve_representation

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.difference.rdx import RDX
    from rdxcli.records import Comparison, DifferenceConcept, Representation

CODE = "1"
"""Raised whenever the numbers of a comparison change."""

CLOSER_IN = {"01": "a", "10": "b"}
"""The paper's direction names and the side whose model holds the samples together."""

GUIDANCES = ("none", "labels")

NOT_TESTED = "not tested"

MATRIX_ROWS = 240
"""Rows of the difference matrix that are kept for drawing."""


@dataclass(frozen=True)
class CompareOptions:
    """What to compare and how.

    Parameters
    ----------
    a, b : str
        Model, array file or artifact.
    method : str
        Name in the registry of methods.
    parameters : mapping
        Hyper-parameters of the method; those not given keep the method's defaults.
    reference : tuple of two str, optional
        A second pair: is (a, b) more different than that?
    test : bool
        Make the significance test.
    bootstraps : int
        Resamplings for the stability of concepts; 0 leaves it out.
    guidance : {"none", "labels"}
    fail_above : float, optional
        Gate on the difference score.
    """

    a: str
    b: str
    layer_a: str | None = None
    layer_b: str | None = None
    pool: str = "auto"
    method: str = "rdx"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    arrays: ArrayOptions = field(default_factory=ArrayOptions)
    reference: tuple[str, str] | None = None
    test: bool = True
    bootstraps: int = 20
    guidance: str = "none"
    fail_above: float | None = None
    outputs: Path = Path("outputs")
    run: str | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished comparison: where it is, what it says, and whether it had been made before."""

    artifact: Artifact
    document: dict[str, Any]
    reused: bool


def compare(options: CompareOptions) -> Outcome:
    """Compare two representations and store the result.

    Raises
    ------
    RdxError
        Unusable input or options, or an artifact made with other parameters; see the message.
    """
    if options.guidance not in GUIDANCES:
        raise UsageError(f"unknown guidance `{options.guidance}`", f"choose one of {', '.join(GUIDANCES)}")
    estimator = make_estimator(options.method, options.parameters, options.seed, options.device)
    a, b = (
        _resolve(options, text, layer) for text, layer in ((options.a, options.layer_a), (options.b, options.layer_b))
    )
    joined = join(a, b)
    for note in joined.notes:
        log.warning("%s", note)
    reference = None
    if options.reference:
        c, d = (_resolve(options, text, None) for text in options.reference)
        reference = _like(join(c, d), joined)
    request = _request(options, estimator, joined, reference)
    folder = folder_of(options, joined.a, joined.b)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            record = _compute(options, estimator, joined, reference)
            _write(record, draft.path, folder)
            draft.manifest.rows = record.n
            draft.manifest.device = options.device
    document = draft.result.document()
    return Outcome(draft.result, document, draft.reused)


def check_gate(document: Mapping[str, Any], limit: float | None) -> None:
    """Raise `GateError` (exit code 3) when the difference score exceeds ``limit``."""
    if limit is None:
        return
    score = document["difference"].get("score")
    if score is None:
        raise UsageError("--fail-above needs the difference score, which --no-test leaves out")
    if score > limit:
        raise GateError(f"the difference score {score:.4f} is above {limit:g}")


def folder_of(options: CompareOptions, a: Representation, b: Representation) -> Path:
    """Where the comparison of ``a`` and ``b`` goes."""
    dataset = a.source.get("dataset") or b.source.get("dataset") or array_dataset(a.name)
    first, second = (
        side.name if layer is None else f"{side.name}.{layer}"
        for side, layer in ((a, options.layer_a), (b, options.layer_b))
    )
    return comparisons_folder(options.outputs, dataset, first, second, options.run or options.method)


def make_estimator(method: str, parameters: Mapping[str, Any], seed: int, device: str) -> RDX:
    """The estimator of a comparison method with the given hyper-parameters.

    Raises
    ------
    UnknownNameError
        No such method.
    UsageError
        A hyper-parameter that the method does not have.
    """
    from rdxcli.methods.registry import get

    kind = get("compare", method).load()
    known = kind().get_params()
    for name in parameters:
        if name not in known:
            near = near_matches(name, known)
            hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"the method `{method}` has no parameter `{name}`", hint)
    own = {"random_state": seed, "device": device}
    return kind(**{**{name: value for name, value in own.items() if name in known}, **parameters})


def _like(reference: Joined, joined: Joined) -> Joined:
    """The reference pair restricted to the images that are compared, in their order."""
    if reference.a.sample_ids is None or joined.a.sample_ids is None:
        if reference.a.n != joined.a.n:
            raise InputError(
                f"the reference pair has {reference.a.n} rows, the comparison {joined.a.n}, and no ids to match",
                "give the ids with --sample-ids, or a reference on the same rows",
            )
        return reference
    first, second = join(joined.a, reference.a), join(joined.a, reference.b)
    if first.a.n < joined.a.n:
        raise InputError(
            f"the reference pair lacks {joined.a.n - first.a.n} of the {joined.a.n} images that are compared",
            "read it on the same data set",
        )
    return replace(reference, a=first.b, b=second.b)


def _resolve(options: CompareOptions, text: str, layer: str | None) -> Representation:
    return resolve_representation(
        text,
        layer=layer,
        pool=options.pool,
        selection=options.selection,
        arrays=options.arrays,
        outputs=options.outputs,
        device=options.device,
        force=options.force,
    )


def _request(options: CompareOptions, estimator: RDX, joined: Joined, reference: Joined | None) -> Request:
    ignored = {"device"}
    parameters = {
        "method": options.method,
        **{name: value for name, value in estimator.get_params().items() if name not in ignored},
        "guidance": options.guidance,
        "test": options.test,
        "bootstraps": options.bootstraps,
    }
    inputs: dict[str, Any] = {"a": dict(joined.a.source), "b": dict(joined.b.source)}
    inputs["images"] = joined.describe()["dataset"]
    if joined.a.labels is not None:
        inputs["labels"] = fingerprint_array(joined.a.labels)
    if reference is not None:
        inputs["reference"] = {"a": dict(reference.a.source), "b": dict(reference.b.source)}
    return Request(kind="comparison", parameters=parameters, inputs=inputs, seed=options.seed, code=CODE)


def _compute(options: CompareOptions, estimator: RDX, joined: Joined, reference: Joined | None) -> Comparison:
    from rdxcli.records import Comparison

    a, b = joined.a, joined.b
    log.info("comparing %s and %s: n = %d, d = %d and %d, method %s", a.name, b.name, a.n, a.d, b.d, options.method)
    guidance: dict[str, Any] = {}
    if options.guidance == "labels":
        if a.labels is None:
            raise UsageError(
                "--guidance labels needs labels", "give them with --labels FILE, or use a data set that has them"
            )
        guidance = {"labels0": a.labels, "labels1": a.labels}
    with track(f"explain with {options.method}", None, "steps"):
        estimator.fit(a.values, b.values, **guidance)
    difference, stability = _test(options, estimator, joined, reference, guidance)
    concepts, labels = _concepts(estimator, joined, stability)
    return Comparison(
        method=options.method,
        parameters={**estimator.get_params(), "guidance": options.guidance, "bootstraps": options.bootstraps},
        seed=options.seed,
        arrays=_arrays(estimator, joined, labels),
        notes=[*joined.notes, *estimator.notes_],
        a=a.describe(),
        b=b.describe(),
        n=a.n,
        k=estimator.n_clusters,
        difference=difference,
        concepts=concepts,
        scores=_scores(joined, concepts),
        samples=joined.describe(),
    )


def _test(
    options: CompareOptions, estimator: RDX, joined: Joined, reference: Joined | None, guidance: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``difference`` entry of the document, and per direction and label ``{stability, p_value}``."""
    from rdxcli.methods.difference.significance import concept_stability, difference_test

    a, b = joined.a.values, joined.b.values
    own = {"random_state": options.seed}
    test = None
    difference: dict[str, Any] = {"score": None, "verdict": NOT_TESTED}
    if options.test:
        pair = (reference.a.values, reference.b.values) if reference else None
        test = difference_test(a, b, reference=pair, estimator=estimator, device=options.device, **own)
        difference = test.to_dict()
        if reference:
            difference["reference"] |= {"a": reference.a.describe(), "b": reference.b.describe()}
    stability = concept_stability(
        estimator, a, b, test=test, bootstraps=options.bootstraps, fit_options=guidance, **own
    )
    return difference, stability


def _concepts(
    estimator: RDX, joined: Joined, stability: Mapping[str, Any]
) -> tuple[list[DifferenceConcept], dict[str, np.ndarray]]:
    """Concepts of both directions, largest affinity first, and the labels renumbered in that order (0 = none)."""
    import numpy as np

    from rdxcli.records import DifferenceConcept

    ids, classes = joined.a.sample_ids, joined.a.labels
    concepts: list[DifferenceConcept] = []
    labels: dict[str, np.ndarray] = {}
    for direction, result in estimator.directions_.items():
        side = CLOSER_IN[direction]
        renumbered = np.zeros(joined.a.n, dtype=np.int32)
        for index, found in enumerate(result.concepts, start=1):
            members = np.flatnonzero(result.labels == found.label)
            renumbered[members] = index
            trust = stability.get(direction, {}).get(found.label, {})
            concepts.append(
                DifferenceConcept(
                    closer_in=side,
                    index=index,
                    size=found.size,
                    affinity=found.affinity,
                    samples=[int(row) for row in found.samples],
                    sample_ids=[str(ids[row]) if ids is not None else str(row) for row in found.samples],
                    stability=trust.get("stability"),
                    p_value=trust.get("p_value"),
                    labels=make_up(classes[members]) if classes is not None else {},
                )
            )
        labels[side] = renumbered
    return sorted(concepts, key=lambda concept: concept.closer_in), labels


def make_up(labels: np.ndarray, most: int = 8) -> dict[str, float]:
    """Share of each class, largest first; past ``most`` classes the rest is one entry."""
    import numpy as np

    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {str(names[i]): float(counts[i] / len(labels)) for i in order}
    if len(shares) > most:
        kept = dict(list(shares.items())[: most - 1])
        return {**kept, f"{len(shares) - most + 1} others": 1.0 - sum(kept.values())}
    return shares


def _arrays(estimator: RDX, joined: Joined, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    import numpy as np

    n = joined.a.n
    ids = joined.a.sample_ids if joined.a.sample_ids is not None else np.arange(n).astype(str)
    arrays: dict[str, np.ndarray] = {"sample_ids": np.asarray(ids, dtype=np.str_)}
    if joined.a.labels is not None:
        arrays["labels"] = np.asarray(joined.a.labels, dtype=np.str_)
    for side, values in (("a", joined.a.values), ("b", joined.b.values)):
        arrays[f"labels_{side}"] = labels[side]
        arrays[f"map_{side}"] = principal_axes(values)
    for direction, result in estimator.directions_.items():
        side = CLOSER_IN[direction]
        if hasattr(estimator, "difference_rows"):
            ordered = np.argsort(np.where(labels[side] == 0, 0, labels[side].max() + 1 - labels[side]), kind="stable")
            rows = ordered[np.unique(np.linspace(0, n - 1, min(n, MATRIX_ROWS)).astype(int))]
            block = estimator.difference_rows(rows, result.direction)[:, rows]
            arrays[f"matrix_{side}"] = block.astype(np.float32)
            arrays[f"matrix_{side}_rows"] = rows
    return arrays


def principal_axes(values: np.ndarray) -> np.ndarray:
    """The two main axes of the rows: (n, 2) float32; a second axis of zeros when there is only one dimension."""
    import numpy as np
    from sklearn.decomposition import PCA

    count = min(2, *values.shape)
    axes = PCA(count, svd_solver="randomized", random_state=0).fit_transform(np.asarray(values, dtype=np.float32))
    return np.pad(axes, ((0, 0), (0, 2 - count))).astype(np.float32)


def _write(record: Comparison, path: Path, folder: Path) -> None:
    import numpy as np

    np.savez_compressed(path / "arrays.npz", **dict(record.arrays))  # type: ignore[arg-type]
    document = record.to_document(folder.as_posix())
    write_json(path / "concepts.json", document)
    write_json(path / "scores.json", {"scores": document["scores"], "difference": document["difference"]})


def _scores(joined: Joined, concepts: Sequence[DifferenceConcept]) -> dict[str, float | None]:
    """Metrics of the shown grids (specification of RDX, section 5) and similarity of the two representations."""
    from rdxcli.methods.difference.scores import linear_cka, score_grids

    a, b = joined.a.values, joined.b.values
    grids = {side: [concept.samples for concept in concepts if concept.closer_in == side] for side in ("a", "b")}
    scores: dict[str, float | None] = {}
    for name, distance in (("bsr", "silb"), ("bsr_euclidean", "mned")):
        found = score_grids(a, b, grids["a"], grids["b"], distance)
        scores |= {f"{name}_a": found.first.bsr, f"{name}_b": found.second.bsr, f"{name}_mean": found.mean_bsr}
    try:
        scores["cka"] = linear_cka(a, b)
    except ValueError as error:
        log.warning("no CKA: %s", error)
        scores["cka"] = None
    return scores


def plan(options: CompareOptions) -> dict[str, Any]:
    """What `compare` would do, without doing it (``--dry-run``)."""
    from rdxcli.datasets.arrays import is_array, load_representation
    from rdxcli.services.inputs import find_activations, open_activations
    from rdxcli.services.listing import human_bytes

    estimator = make_estimator(options.method, options.parameters, options.seed, options.device)
    document: dict[str, Any] = {}
    sizes = []
    for side, text, layer in (("a", options.a, options.layer_a), ("b", options.b, options.layer_b)):
        artifact = find_activations(text, options.outputs)
        if artifact is not None or is_array(text):
            record = open_activations(artifact) if artifact else load_representation(text)
            sizes.append(record.n)
            document[side] = f"{record.name}, {record.n} rows of {record.d}"
            continue
        from rdxcli.models import resolve

        spec = resolve(text)
        dataset = options.selection.open(spec.default_dataset)
        sizes.append(len(dataset))
        document[side] = (
            f"{text}, layer {layer or spec.default_layer or 'penultimate'}, {len(dataset)} images of {dataset.name}"
        )
    n = min(sizes)
    document["method"] = options.method
    document["parameters"] = {name: value for name, value in estimator.get_params().items() if name != "device"}
    document["images"] = n
    document["peak memory"] = f"about {human_bytes(8 * n * n)} for two n x n matrices, besides the arrays"
    return document
