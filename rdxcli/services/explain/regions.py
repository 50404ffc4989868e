"""``rdx explain --method rdr``: relaxed decision regions of a layer, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, fingerprint_array, write_json
from rdxcli.errors import InputError, UsageError
from rdxcli.progress import track
from rdxcli.records import plain
from rdxcli.services.base import Outcome, check_parameters
from rdxcli.services.explain import region_record as record
from rdxcli.services.explain.base import ExplainOptions, folder_of, representation
from rdxcli.services.explain.heads import head_of
from rdxcli.services.explain.samples import model_predictions, needs_predictions, predictions_of, targets_of

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.regions.rdr import RDR
    from rdxcli.records import Representation

CODE = "2"
USES = ("regions", "concepts", "subclasses", "causes")


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {
        "method": options.method,
        "representation": options.model or options.activations,
        "layer": options.layer or "the penultimate one",
        "pool": pool_of(options),
        "target": options.target or "one row, drawn",
        **({"apply": options.apply} if options.apply else {}),
        "parameters": dict(options.parameters),
        "memory": "n m / 8 bytes for n samples of m neurons, besides the activations",
    }


def explain(options: ExplainOptions) -> Outcome:
    """Find the regions of the targets and store them, or apply stored ones.

    Raises
    ------
    RdxError, ValueError
        Unusable input or options.
    """
    from rdxcli.methods.regions.rdr import RDR

    if options.method == "representative":
        from rdxcli.services.explain import representative

        return representative.explain(options)
    if options.apply is not None:
        from rdxcli.services.explain import membership

        return membership.explain(options)
    use, parameters = _use(options)
    ablation = str(parameters.pop("ablate", "none"))
    known = [name for name in RDR().get_params() if name not in ("random_state", "device")]
    check_parameters(options.method, parameters, [*known, "use", "ablate", "against"])
    source = representation(options, spatial=True, pool=pool_of(options))
    targets: Any = "misclassified" if use == "causes" else None
    if options.target is not None:
        targets = targets_of(options.target, source)
    predictions = predictions_of(options, source)
    if predictions is None and (use == "causes" or needs_predictions(options.target)):
        predictions = model_predictions(options, source)
    rdr = RDR(**parameters, random_state=options.seed, device="cpu" if options.device == "auto" else options.device)
    against = _against(options, source)
    finer = _finer(options, source, use)
    request = Request(
        kind="regions",
        parameters={
            "method": options.method,
            **{name: value for name, value in rdr.get_params().items() if name != "device"},
            "target": options.target,
            "use": use,
            "ablate": ablation,
        },
        inputs={
            "activations": dict(source.source),
            "labels": None if source.labels is None else fingerprint_array(source.labels),
            "finer": None if finer is None else fingerprint_array(finer),
            "predictions": None if predictions is None else fingerprint_array(predictions),
            "images": source.dataset,
            "against": {name: dict(other.source) for name, other in against.items()},
        },
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            import numpy as np

            rdr.fit(source.values, targets=targets, labels=source.labels, predictions=predictions)
            view = record.View(source, predictions, rdr.configurations_.shape[1:])
            document = record.document(
                options, request, view, _entries(options, rdr, use, finer), rdr.notes_, folder.as_posix()
            )
            if ablation != "none":
                _add_ablations(options, rdr, source, document, ablation)
            if against:
                document["comparison"] = _compare(rdr, view, against)
            document = plain(document)
            np.savez_compressed(draft.path / "configurations.npz", **rdr.configurations_.arrays())  # type: ignore[arg-type]
            write_json(draft.path / "regions.json", document)
            draft.manifest.rows = source.n
    return record.outcome(draft.result, f"regions of {source.name} ({source.layer or 'array'})")


def pool_of(options: ExplainOptions) -> str:
    """The published method reads every position: without a choice nothing is pooled."""
    return "none" if options.pool == "auto" else options.pool


def _use(options: ExplainOptions) -> tuple[str, dict[str, Any]]:
    parameters = dict(options.parameters)
    parameters.pop("against", None)
    default = "concepts" if options.target == "all" else "regions"
    use = str(parameters.pop("use", default))
    if use not in USES:
        raise UsageError(f"--param use={use}: unknown", f"choose one of {', '.join(USES)}")
    if use == "subclasses" and not (options.target or "").startswith("class:"):
        raise UsageError("--param use=subclasses looks inside one class", "give --target class:NAME")
    return use, parameters


def _finer(options: ExplainOptions, source: Representation, use: str) -> np.ndarray | None:
    """Labels inside the classes (``--file finer=FILE``), which check subclasses and have no influence on them."""
    if "finer" not in options.files:
        return None
    import numpy as np

    from rdxcli.datasets.tables import read_values

    if use != "subclasses":
        raise UsageError("--file finer=FILE checks subclasses", "give --param use=subclasses")
    values = read_values(options.files["finer"], ("finer", "label", "class", "name"), "finer labels")
    if len(values) != source.n:
        raise InputError(f"got {len(values)} finer labels for {source.n} samples")
    return np.array([str(value) for value in values])


def _entries(options: ExplainOptions, rdr: RDR, use: str, finer: np.ndarray | None) -> list[dict[str, Any]]:
    from rdxcli.methods.regions.uses import find_causes, find_subclasses

    if use == "subclasses":
        name = str(options.target).partition(":")[2]
        return [found.document(rdr.configurations_) for found in find_subclasses(rdr, name, finer=finer)]
    if use == "causes":
        return [cause.document(rdr.configurations_) for cause in find_causes(rdr)]
    return rdr.documents(merged=use == "concepts")


def _against(options: ExplainOptions, source: Representation) -> dict[str, Representation]:
    """Other layers (``--param against=LAYER,LAYER`` of the same model) or representations (``--file against=NAME``)."""
    others: dict[str, Representation] = {}
    layers = options.parameters.get("against")
    if layers is not None:
        if options.model is None:
            raise UsageError("--param against=LAYER needs --model", "compare arrays with --file against=FILE")
        for layer in str(layers).split(","):
            found = representation(replace(options, layer=layer.strip()), spatial=True, pool=pool_of(options))
            others[str(found.layer)] = found
    if "against" in options.files:
        found = representation(
            replace(options, model=None, activations=options.files["against"], layer=None),
            spatial=True,
            pool=pool_of(options),
        )
        others[found.name if found.name != source.name else f"{found.name} (against)"] = found
    return {name: _same_rows(source, other) for name, other in others.items()}


def _same_rows(source: Representation, other: Representation) -> Representation:
    from rdxcli.representations.joining import join

    joined = join(source, other)
    if joined.a.n < source.n:
        raise InputError(f"{other.name} lacks {source.n - joined.a.n} of the {source.n} samples of {source.name}")
    return joined.b


def _compare(rdr: RDR, view: record.View, against: Mapping[str, Representation]) -> dict[str, Any]:
    """The same targets in other layers or models."""
    from rdxcli.methods.regions.uses import compare_regions

    source = view.source
    # layers of one model go by the layer, models by their names
    by_layer = source.layer and source.layer not in against and any(name == o.layer for name, o in against.items())
    first = source.layer if by_layer else source.name
    sources = {str(first): source.values, **{name: other.values for name, other in against.items()}}
    found = compare_regions(sources, rdr=rdr, targets=rdr.targets_, labels=source.labels, predictions=view.predictions)
    document = found.document()
    return {
        **{name: document[name] for name in ("targets", "pairs", "sizes", "overlap", "expected", "neighbour_overlap")},
        "sides": record.sides(found, view),
        "notes": found.notes,
    }


def _add_ablations(
    options: ExplainOptions, rdr: RDR, source: Representation, document: dict[str, Any], value: str
) -> None:
    """The effect of taking a region's neurons away, for the regions of the document that have members."""
    import numpy as np

    from rdxcli.methods.regions.ablation import VALUES, ablate

    if value not in VALUES:
        raise UsageError(f"--param ablate={value}: unknown", f"choose one of {', '.join(VALUES)}")
    head = head_of(options, source)
    regions = {region.target: region for region in rdr.regions_}
    with track("ablate", len(document["regions"]), "regions") as advance:
        for entry in document["regions"]:
            region = regions[entry["target"]]
            if region.bounded:
                effect = ablate(
                    region,
                    rdr.configurations_,
                    source.values,
                    lambda batch: head(np.ascontiguousarray(batch)),
                    value=value,
                    random_state=options.seed,
                )
                entry["scores"]["ablation"] = effect.document()
            advance(1)
