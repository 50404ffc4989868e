"""``rdx explain --method rdr``: relaxed decision regions of a layer, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, fingerprint_array, write_json
from rdxcli.errors import InputError, UsageError
from rdxcli.progress import log, track
from rdxcli.records import plain
from rdxcli.services.explain import ExplainOptions, Outcome, check_parameters, folder_of, representation
from rdxcli.services.heads import head_of

if TYPE_CHECKING:
    import numpy as np

    from rdxcli.methods.regions.rdr import RDR
    from rdxcli.records import Representation

CODE = "1"
USES = ("regions", "concepts", "subclasses", "causes")
SHOWN = 16  # members of a region that are listed by id, nearest first


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {
        "method": options.method,
        "representation": options.model or options.activations,
        "layer": options.layer or "the penultimate one",
        "pool": _pool(options),
        "target": options.target or "one row, drawn",
        "parameters": dict(options.parameters),
        "memory": "n m / 8 bytes for n samples of m neurons, besides the activations",
    }


def explain(options: ExplainOptions) -> Outcome:
    """Find the regions of the targets and store them.

    Raises
    ------
    RdxError, ValueError
        Unusable input or options.
    """
    from rdxcli.methods.regions.rdr import RDR

    if options.method == "representative":
        return _representative(options)
    use, parameters = _use(options)
    ablation = str(parameters.pop("ablate", "none"))
    known = [name for name in RDR().get_params() if name not in ("random_state", "device")]
    check_parameters(options.method, parameters, [*known, "use", "ablate", "against"])
    source = representation(options, spatial=True, pool=_pool(options))
    predictions = _predictions(options, source, needed=_needs_predictions(options.target, use))
    rdr = RDR(**parameters, random_state=options.seed, device="cpu" if options.device == "auto" else options.device)
    targets = _targets(options.target, source, use)
    against = _against(options, source)
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
            document = _document(options, rdr, source, use, request, folder.as_posix())
            if ablation != "none":
                _add_ablations(options, rdr, source, document, ablation)
            if against:
                document["comparison"] = _compare(rdr, source, against, predictions)
            document = plain(document)
            np.savez_compressed(draft.path / "configurations.npz", **rdr.configurations_.arrays())  # type: ignore[arg-type]
            write_json(draft.path / "regions.json", document)
            draft.manifest.rows = source.n
    document = draft.result.document()
    columns, rows = _table(document)
    lines = [f"note: {note}" for note in document["notes"]]
    for pair in document.get("comparison", {}).get("pairs", []):
        said = "no target has two bounded regions"
        if pair["targets"]:
            said = f"regions overlap by {pair['overlap']:.2f} (by chance {pair['expected']:.2f})"
        lines.append(f"{pair['a']} and {pair['b']}: {said}")
    title = f"regions of {source.name} ({source.layer or 'array'})"
    return Outcome(draft.result, document, title, columns, rows, lines)


def _pool(options: ExplainOptions) -> str:
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


def _needs_predictions(target: str | None, use: str) -> bool:
    return use == "causes" or (target or "").startswith(("misclassified", "predicted"))


def _targets(target: str | None, source: Representation, use: str) -> Any:
    """What `RDR.fit` takes: a sample id or row becomes a row, words stay words."""
    if target is None:
        return "misclassified" if use == "causes" else None
    word = target.partition(":")[0]
    if word in ("all", "class", "predicted", "misclassified"):
        return target
    ids = _ids(source)
    rows = []
    for part in target.split(","):
        text = part.strip()
        if text in ids:
            rows.append(ids.index(text))
        elif text.isdigit() and int(text) < source.n:
            rows.append(int(text))
        else:
            from rdxcli.errors import near_matches

            near = near_matches(text, ids)
            hint = (
                f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "give a sample id, a row, or a word"
            )
            raise InputError(f"--target: no sample `{text}` among {source.n}", hint)
    return rows


def _predictions(options: ExplainOptions, source: Representation, needed: bool) -> np.ndarray | None:
    """Predicted class names: from ``--file predictions=FILE``, else, when needed, from the model's own output."""
    import numpy as np

    if "predictions" in options.files:
        from rdxcli.datasets.tables import read_values

        values = read_values(options.files["predictions"], ("prediction", "predicted"), "predictions")
        if len(values) != source.n:
            raise InputError(f"got {len(values)} predictions for {source.n} samples")
        return np.array([str(value) for value in values])
    if not needed:
        return None
    if options.model is None:
        raise UsageError("this needs the model's predictions", "give them with --file predictions=FILE")
    logits = representation(replace(options, layer="output", pool="auto"))
    if _ids(logits) != _ids(source):
        raise InputError("the model's output and its layer were read on different samples")
    classes = class_names(source, logits.d)
    log.info("predictions: arg-max of %s over %d classes", options.model, logits.d)
    return np.array(classes)[np.asarray(logits.values).argmax(axis=1)]


def _ids(source: Representation) -> list[str]:
    return [] if source.sample_ids is None else [str(sample) for sample in source.sample_ids]


def class_names(source: Representation, count: int) -> list[str]:
    """Names of a classifier's outputs: the data set's classes when there are as many, else ``0``, ``1`` ..."""
    from rdxcli.datasets.registry import open_dataset

    names = list(open_dataset(source.dataset).class_names or []) if source.dataset else []
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def _document(
    options: ExplainOptions, rdr: RDR, source: Representation, use: str, request: Request, artifact: str
) -> dict[str, Any]:
    from rdxcli.methods.regions.uses import find_causes, find_subclasses
    from rdxcli.records import Regions

    if use == "subclasses":
        entries = [
            found.document(rdr.configurations_) for found in find_subclasses(rdr, str(options.target).partition(":")[2])
        ]
    elif use == "causes":
        entries = [cause.document(rdr.configurations_) for cause in find_causes(rdr)]
    else:
        entries = rdr.documents(merged=use == "concepts")
    return Regions(
        method=options.method,
        parameters=request.parameters,
        seed=options.seed,
        notes=rdr.notes_,
        model=source.describe(),
        regions=[_for_people(entry, source, rdr.configurations_.shape[1:]) for entry in entries],
        samples={"dataset": source.dataset, "n": source.n},
    ).to_document(artifact)


def _against(options: ExplainOptions, source: Representation) -> dict[str, Representation]:
    """Other layers (``--param against=LAYER,LAYER`` of the same model) or representations (``--file against=NAME``)."""
    from rdxcli.datasets.joining import join

    others: dict[str, Representation] = {}
    layers = options.parameters.get("against")
    if layers is not None:
        if options.model is None:
            raise UsageError("--param against=LAYER needs --model", "compare arrays with --file against=FILE")
        for layer in str(layers).split(","):
            found = representation(replace(options, layer=layer.strip()), spatial=True, pool=_pool(options))
            others[str(found.layer)] = found
    if "against" in options.files:
        found = representation(
            replace(options, model=None, activations=options.files["against"], layer=None),
            spatial=True,
            pool=_pool(options),
        )
        others[found.name if found.name != source.name else f"{found.name} (against)"] = found
    return {name: join(source, other).b for name, other in others.items() if _same_rows(source, other)}


def _same_rows(source: Representation, other: Representation) -> bool:
    from rdxcli.datasets.joining import join

    joined = join(source, other)
    if joined.a.n < source.n:
        raise InputError(f"{other.name} lacks {source.n - joined.a.n} of the {source.n} samples of {source.name}")
    return True


def _compare(
    rdr: RDR, source: Representation, against: Mapping[str, Representation], predictions: Any
) -> dict[str, Any]:
    """The same targets in other layers or models."""
    from rdxcli.methods.regions.uses import compare_regions

    first = source.layer if source.layer and source.layer not in against else source.name
    sources = {str(first): source.values, **{name: other.values for name, other in against.items()}}
    document = compare_regions(
        sources, rdr=rdr, targets=rdr.targets_, labels=source.labels, predictions=predictions
    ).document()
    return {name: document[name] for name in ("targets", "pairs", "sizes", "overlap", "expected")}


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


def _representative(options: ExplainOptions) -> Outcome:
    """The baseline of the paper: samples on the target's side of sampled pieces of the decision boundary."""
    from rdxcli.methods.regions.representative import RepresentativeInterpretation
    from rdxcli.records import Regions

    known = [n for n in RepresentativeInterpretation().get_params() if n not in ("random_state", "device")]
    check_parameters(options.method, options.parameters, known)
    if options.target is None:
        raise UsageError("which sample?", "give --target with a sample id or a row")
    source = representation(options, spatial=True, pool=_pool(options))
    targets = _targets(options.target, source, "regions")
    if isinstance(targets, str):
        raise UsageError(f"--target {options.target}: `representative` explains single samples", "give ids or rows")
    request = Request(
        kind="regions",
        parameters={"method": options.method, **dict(options.parameters), "target": options.target},
        inputs={"activations": dict(source.source), "images": source.dataset},
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            import numpy as np

            head = head_of(options, source)
            regions, notes = [], []
            for target in targets:
                found = RepresentativeInterpretation(**options.parameters, random_state=options.seed)
                found.fit(np.array(source.values), head, target=target)
                notes += [note for note in found.notes_ if note not in notes]
                entry = {
                    "target": target,
                    "status": "bounded" if len(found.members_) else "empty",
                    "neighbours": [],
                    "neurons": [],
                    "states": [],
                    "scores": found.scores_,
                    "members": found.members_,
                    "boundaries": found.selected_,
                    "labels": {},
                }
                regions.append(_for_people(plain(entry), source, ()))
            record = Regions(
                method=options.method,
                parameters=request.parameters,
                seed=options.seed,
                notes=notes,
                model=source.describe(),
                regions=regions,
                samples={"dataset": source.dataset, "n": source.n},
            )
            write_json(draft.path / "regions.json", record.to_document(folder.as_posix()))
            draft.manifest.rows = source.n
    document = draft.result.document()
    columns, rows = _table(document)
    lines = [f"note: {note}" for note in document["notes"]]
    return Outcome(draft.result, document, f"regions of {source.name} ({source.layer})", columns, rows, lines)


def _for_people(entry: Mapping[str, Any], source: Representation, places: tuple[int, ...]) -> dict[str, Any]:
    """The region with what a page shows: ids and labels of the target and the nearest members, where the units sit."""

    def named(rows: Sequence[int]) -> list[str]:
        ids = source.sample_ids
        return [str(ids[row]) if ids is not None else str(row) for row in rows]

    members = [int(row) for row in entry["members"]]
    shown = [int(entry["target"]), *(row for row in members if row != entry["target"])][:SHOWN]
    labels = None if source.labels is None else [str(source.labels[row]) for row in shown]
    return {
        **entry,
        "target_id": named([entry["target"]])[0],
        "sample_ids": named(shown),
        "sample_labels": labels,
        "position_map": _position_map(entry, places),
    }


def _position_map(entry: Mapping[str, Any], places: tuple[int, ...]) -> list[list[int]] | None:
    """How many of the chosen units sit at each place of a map of height and width ``places``; None without places."""
    import numpy as np

    if len(places) != 2:
        return None
    counts = np.zeros(places, dtype=int)
    for _, row, column in np.asarray(entry["positions"]).reshape(-1, 3):
        counts[row, column] += 1
    return counts.tolist()


def _table(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    columns = ["target", "status", "neurons", "members", "coverage", "purity", "selectivity", "labels"]
    rows = []
    for region in document["regions"][:30]:
        scores = region["scores"]
        counts = list((region["labels"] or {}).items())[:4]
        rows.append(
            [
                region["target_id"],
                region["status"],
                len(region["neurons"]),
                scores["size"],
                scores["coverage"],
                scores.get("purity"),
                scores.get("selectivity"),
                ", ".join(f"{name} {count}" for name, count in counts) or "-",
            ]
        )
    return columns, rows
