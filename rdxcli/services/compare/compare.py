"""``rdx compare``: join two representations, explain and test their difference, store the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, fingerprint_array, write_json
from rdxcli.artifacts.layout import array_dataset, comparisons_folder
from rdxcli.errors import GateError, InputError, UsageError
from rdxcli.progress import log
from rdxcli.records import Representation
from rdxcli.representations.joining import Joined, join
from rdxcli.representations.resolve import resolve_representation
from rdxcli.services.compare.fitting import difference_of, fit, is_scoreboard, log_pair, make_estimators, takes_guidance
from rdxcli.services.compare.guidance import GUIDANCES, supervise
from rdxcli.services.compare.naming import Namer, open_naming
from rdxcli.services.compare.options import CompareOptions
from rdxcli.services.compare.record import make_record

if TYPE_CHECKING:
    from rdxcli.records import Comparison

CODE = "3"
"""Raised whenever the numbers of a comparison change."""

LIBRARIES = 700 * 2**20
"""Memory of the process before it reads anything, PyTorch and scikit-learn included."""

COPIES = 4
"""Copies of the representations in float64 that scoring and testing hold at one time."""


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
    estimators = make_estimators(options)
    if options.align or options.guidance != "none":
        _check_takes_guidance(estimators)
    namer = open_naming(options)
    joined, reference = _read(options)
    request = _request(options, estimators, joined, reference, namer)
    folder = folder_of(options, joined.a, joined.b)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            embedded = namer.embed(joined) if namer else None
            if is_scoreboard(options.method):
                from rdxcli.services.compare.scoreboard import run_all

                record, extra = run_all(options, estimators, joined, reference)
            else:
                [(_, estimator)] = estimators.items()
                record, extra = _compute(options, estimator, joined, reference), {}
            if embedded:
                record = embedded.name(record, options.seed)
            _write(record, draft.path, folder, extra)
            draft.manifest.rows = record.n
            draft.manifest.device = options.device
    document = draft.result.document()
    return Outcome(draft.result, document, draft.reused)


def _check_takes_guidance(estimators: Mapping[str, Any]) -> None:
    if not any(map(takes_guidance, estimators.values())):
        raise UsageError(
            f"--align and --guidance mean nothing to {', '.join(f'`{name}`' for name in estimators)}",
            "it describes each model on its own; use `rdx`",
        )


def _read(options: CompareOptions) -> tuple[Joined, Joined | None]:
    """Both sides on the samples they share, and the reference pair on the same samples."""
    a, b = (
        without(_resolve(options, text, layer), drop, option)
        for text, layer, drop, option in (
            (options.a, options.layer_a, options.drop_a, "--drop-a"),
            (options.b, options.layer_b, options.drop_b, "--drop-b"),
        )
    )
    joined = join(a, b)
    for note in joined.notes:
        log.warning("%s", note)
    if not options.reference:
        return joined, None
    c, d = (_resolve(options, text, None) for text in options.reference)
    return joined, _like(join(c, d), joined)


def without(record: Representation, columns: str | None, option: str) -> Representation:
    """A representation without some of its columns; its name and its ``source`` say which.

    Raises
    ------
    UsageError
        Malformed or unknown columns, or nothing left.
    """
    if columns is None:
        return record
    import numpy as np

    from rdxcli.services.base import parse_units

    dropped = sorted(parse_units(columns, record.d, option))
    if len(dropped) == record.d:
        raise UsageError(f"{option} {columns}: no column of {record.name} is left")
    return replace(
        record,
        values=np.delete(record.values, dropped, axis=1),
        name=f"{record.name}-without-{columns.replace(' ', '')}",
        source={**record.source, "dropped": dropped},
    )


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
    run = options.run or options.method.replace(" ", "").replace(",", "+")
    return comparisons_folder(options.outputs, dataset, first, second, run)


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


def _resolve(options: CompareOptions, text: str | Representation, layer: str | None) -> Representation:
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


def _request(
    options: CompareOptions,
    estimators: Mapping[str, Any],
    joined: Joined,
    reference: Joined | None,
    namer: Namer | None,
) -> Request:
    settings = {
        name: {key: value for key, value in estimator.get_params().items() if key != "device"}
        for name, estimator in estimators.items()
    }
    parameters = {
        "method": options.method,
        **({"methods": settings} if is_scoreboard(options.method) else settings[options.method]),
        "guidance": options.guidance,
        "align": options.align,
        "planted": options.planted,
        "test": options.test,
        "bootstraps": options.bootstraps,
    }
    inputs: dict[str, Any] = {"a": dict(joined.a.source), "b": dict(joined.b.source)}
    inputs["images"] = joined.describe()["dataset"]
    if joined.a.labels is not None:
        inputs["labels"] = fingerprint_array(joined.a.labels)
    if reference is not None:
        inputs["reference"] = {"a": dict(reference.a.source), "b": dict(reference.b.source)}
    if namer is not None:
        inputs["naming"] = namer.request()
    return Request(kind="comparison", parameters=parameters, inputs=inputs, seed=options.seed, code=CODE)


def _compute(options: CompareOptions, estimator: Any, joined: Joined, reference: Joined | None) -> Comparison:
    from rdxcli.services.compare.scores import Evaluation, planted_difference

    evaluation = Evaluation(joined, planted_difference(options.planted, joined), options.seed)
    supervision = supervise(joined, options.guidance, options.align, options.seed)
    log_pair(joined, options.method)
    fit(estimator, options.method, joined, supervision)
    test, difference = difference_of(options, estimator, joined, reference)
    return make_record(
        options, options.method, estimator, joined, evaluation, supervision, test, difference, options.bootstraps
    )


def _write(record: Comparison, path: Path, folder: Path, extra: Mapping[str, Any]) -> None:
    import numpy as np

    np.savez_compressed(path / "arrays.npz", **dict(record.arrays))  # type: ignore[arg-type]
    document = {**record.to_document(folder.as_posix()), **extra}
    write_json(path / "concepts.json", document)
    write_json(path / "scores.json", {"scores": document["scores"], "difference": document["difference"]})


def plan(options: CompareOptions) -> dict[str, Any]:
    """What `compare` would do, without doing it (``--dry-run``)."""
    from rdxcli.datasets.arrays import is_array, load_representation
    from rdxcli.representations.resolve import array_file, find_activations, open_activations

    if options.guidance not in GUIDANCES:
        raise UsageError(f"unknown guidance `{options.guidance}`", f"choose one of {', '.join(GUIDANCES)}")
    estimators = make_estimators(options)
    named = options.naming.wanted
    document: dict[str, Any] = {}
    sizes, widths = [], []
    for side, text, layer in (("a", options.a, options.layer_a), ("b", options.b, options.layer_b)):
        record = text if isinstance(text, Representation) else None
        if not isinstance(text, Representation):
            artifact = find_activations(text, options.outputs)
            file = array_file(text, options.selection.root)
            if artifact is not None or is_array(file):
                record = open_activations(artifact) if artifact else load_representation(file)
        if record is not None:
            record = without(record, getattr(options, f"drop_{side}"), f"--drop-{side}")
            sizes.append(record.n)
            widths.append(record.d)
            document[side] = f"{record.name}, {record.n} rows of {record.d}"
            continue
        from rdxcli.models import resolve

        spec = resolve(str(text))
        dataset = options.selection.open(spec.default_dataset)
        sizes.append(len(dataset))
        document[side] = (
            f"{text}, layer {layer or spec.default_layer or 'penultimate'}, {len(dataset)} images of {dataset.name}"
        )
    n = min(sizes)
    document["method"] = options.method
    settings = {
        name: {key: value for key, value in estimator.get_params().items() if key != "device"}
        for name, estimator in estimators.items()
    }
    document["parameters"] = settings if is_scoreboard(options.method) else settings[options.method]
    document["images"] = n
    if named:
        document["names"] = f"by {options.naming.model or ' and '.join(options.naming.files.values())}"
    if any(getattr(estimator, "approximate_on", lambda _: False)(n) for estimator in estimators.values()):
        document["approximate"] = "yes: landmarks are grouped exactly, the other images join them"
    document["peak memory"] = _memory(estimators, n, sum(widths) if len(widths) == len(sizes) else None)
    return document


def _memory(estimators: Mapping[str, Any], n: int, width: int | None) -> str:
    """Peak memory of the process in words; ``width`` is that of both representations together, if it is known."""
    from rdxcli.services.listing import human_bytes

    matrices = max(getattr(estimator, "matrix_bytes", lambda _: 0)(n) for estimator in estimators.values())
    if width is None:
        return f"about {human_bytes(matrices)} for matrices over pairs of images, besides models and activations"
    given, copies = 4 * n * width, 8 * n * width * COPIES
    total = LIBRARIES + given + max(matrices + given, copies)
    return f"about {human_bytes(total)} in all, of which {human_bytes(matrices)} are matrices over pairs of images"
