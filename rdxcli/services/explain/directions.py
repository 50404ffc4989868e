"""``rdx explain --method eddp | uibe | pca | nmf | ica | kmeans | natural``: directions of a layer, as an artifact."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, write_json
from rdxcli.errors import ArtifactError, InputError, RdxError, UsageError
from rdxcli.progress import log, track
from rdxcli.records import plain
from rdxcli.services.base import Outcome, check_parameters
from rdxcli.services.explain import direction_record as record
from rdxcli.services.explain import steering
from rdxcli.services.explain.base import ExplainOptions, folder_of, representation
from rdxcli.services.explain.heads import head_of
from rdxcli.services.explain.samples import target_rows
from rdxcli.services.explain.stored import check_layer, same_place, stored_artifact

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.directions.base import Directions

CODE = "2"
SYNTHETIC = "synthetic:"
LEARNING = ("eddp", "uibe")  # methods that use the network above the layer to find directions


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {
        "method": options.method,
        "features": options.selection.dataset if _is_synthetic(options) else options.model or options.activations,
        "layer": options.layer or "the penultimate one",
        "parameters": dict(options.parameters),
        **({"apply": options.apply} if options.apply else {}),
        **({"steer": list(options.steer)} if options.steer else {}),
    }


def explain(options: ExplainOptions) -> Outcome:
    """Find directions, or apply stored ones, and store what they say.

    Raises
    ------
    RdxError, ValueError
        Unusable input or options.
    """
    from rdxcli.methods.registry import get

    steps = steering.parse(options.steer)
    given, steer_parameters = steering.split(options.parameters)
    options = replace(options, parameters=given)
    kind = get("explain", options.method).load()
    applied = None if options.apply is None else stored_artifact(options, "directions")
    if applied is not None:
        if given:
            raise UsageError("--param and --num-directions are about finding directions, --apply takes stored ones")
        steering.check(steps, len(applied.document()["directions"]))
        options = _on_stored_features(options, applied)
    parameters, use_head = _parameters(options, kind)
    if isinstance(parameters.get("n_directions"), int):
        steering.check(steps, parameters["n_directions"])  # before minutes of learning
    case = _case(options, use_head, strict=bool(steps))
    source = case.source
    notes = [] if applied is None else check_layer(applied, source)
    request = Request(
        kind="directions",
        parameters={
            "method": options.method,
            **parameters,
            "head": case.head is not None,
            "steer": list(options.steer),
            **steer_parameters,
            "target": options.target,
        },
        inputs={
            "features": dict(source.source),
            "directions": None if applied is None else applied.manifest.fingerprint,
            "images": source.dataset,
            "labels": {**options.files, "concepts": options.concepts, "vlm": options.vlm, "set": options.concept_set},
        },
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    if applied is not None and folder.resolve() == applied.path.resolve():
        raise UsageError(
            f"this would replace the directions in {folder}", "give the result another name with --run NAME"
        )
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            import numpy as np
            from safetensors.numpy import save_file

            # what may be wrong with targets, masks and words is said before minutes of learning
            rows = None if options.target is None else target_rows(options, source)
            names = record.open_names(options, source)
            features = np.array(source.values, dtype=np.float32)
            if applied is None:
                log.info("%s on %d samples of %s: shape %s", options.method, source.n, source.name, features.shape[1:])
                directions = kind(**parameters, random_state=options.seed)
                with track(f"directions with {options.method}", None, "steps"):
                    directions.fit(features, case.head if options.method in LEARNING else None)
            else:
                directions = _stored(applied, features)
            steering.check(steps, len(directions.bias_))
            arrays = {
                "encoding": directions.encoding_,
                "decoding": directions.decoding_,
                "bias": directions.bias_,
                "margin": directions.margin_,
                "mean": directions.mean_,
            }
            save_file(
                {name: np.ascontiguousarray(a) for name, a in arrays.items()}, draft.path / "directions.safetensors"
            )
            document = record.document(options, request, directions, case, names, features, folder.as_posix())
            document["notes"] = [*notes, *document["notes"]]
            steering.add(draft.path, document, options, directions, case, features, steps, steer_parameters, rows)
            write_json(draft.path / "directions.json", plain(document))
            draft.manifest.rows = len(directions.bias_)
    return record.outcome(draft.result, f"directions of {source.name} ({source.layer or 'array'})")


def _on_stored_features(options: ExplainOptions, applied: Artifact) -> ExplainOptions:
    """The options with the data set, model and layer of stored directions where none is given."""
    synthetic = (applied.manifest.request.inputs.get("features") or {}).get("synthetic")
    if synthetic and options.model is None and options.activations is None and options.selection.dataset is None:
        return replace(options, selection=replace(options.selection, dataset=f"{SYNTHETIC}{synthetic}"))
    return options if _is_synthetic(options) else same_place(options, applied, "features")


def _stored(applied: Artifact, features: np.ndarray) -> Directions:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from rdxcli.methods.directions.base import Directions

    path = applied.path / "directions.safetensors"
    try:
        arrays = load_file(path)
        found = Directions.of(*(arrays[name] for name in ("encoding", "decoding", "bias", "margin", "mean")))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"cannot read {path}: {error}", "find the directions again with --force") from None
    if found.n_features_in_ != features.shape[1]:
        raise InputError(
            f"{applied.path} has directions of {found.n_features_in_} channels, got features of {features.shape[1]}",
            "use the layer that the directions were found in",
        )
    return found


def _constructor(kind: Any) -> list[str]:
    import inspect

    return [name for name in inspect.signature(kind).parameters if name not in ("random_state", "device")]


def _is_synthetic(options: ExplainOptions) -> bool:
    return (options.selection.dataset or "").startswith(SYNTHETIC)


def _parameters(options: ExplainOptions, kind: Any) -> tuple[dict[str, Any], bool]:
    """Keywords of the method, and whether the network above the layer may be used."""
    parameters = dict(options.parameters)
    use_head = parameters.pop("head", True)
    if not isinstance(use_head, bool):
        raise UsageError(f"--param head={use_head}: expected true or false")
    check_parameters(options.method, parameters, [*_constructor(kind), "num_directions", "head", *steering.PARAMETERS])
    if "num_directions" in parameters:
        parameters["n_directions"] = parameters.pop("num_directions")
    return parameters, use_head


def _case(options: ExplainOptions, use_head: bool, strict: bool) -> record.Case:
    """Features and the network above them; ``strict`` refuses to go on without that network."""
    if _is_synthetic(options):
        return _synthetic(options, use_head)
    source = representation(options, spatial=True, pool="none" if options.pool == "auto" else options.pool)
    if strict and not (use_head and options.model is not None):
        raise UsageError("--steer needs the network above the layer", "give --model, and not --param head=false")
    head = None
    if use_head and options.model is not None:
        try:
            head = head_of(options, source)
        except RdxError as error:
            if strict:
                raise
            log.warning("without the network above the layer: %s", error.message)
    return record.Case(source, head)


def _synthetic(options: ExplainOptions, use_head: bool) -> record.Case:
    """A made-up case with known directions."""
    import numpy as np

    from rdxcli.methods.directions.synthetic import generate, named
    from rdxcli.records import Representation

    if options.model is not None or options.activations is not None:
        raise UsageError("a synthetic data set brings its own features", "leave out --model and --activations")
    name = str(options.selection.dataset).removeprefix(SYNTHETIC)
    case = generate(named(name))
    source = Representation(
        case.X,
        np.arange(len(case.X)).astype(str),
        f"synthetic-{name}",
        labels=np.array([f"class {k}" for k in case.y]),
        source={"synthetic": name, "dataset": f"synthetic-{name}"},
    )
    return record.Case(source, case.head if use_head else None, case)
