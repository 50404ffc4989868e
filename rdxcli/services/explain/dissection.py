"""``rdx explain --method network-dissection``: units named by the segmentation concept that their maps overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Request, create, write_json
from rdxcli.concepts.masks import Masks, open_masks
from rdxcli.errors import UsageError
from rdxcli.progress import track
from rdxcli.services.base import Outcome, check_parameters, parse_units
from rdxcli.services.explain.base import ExplainOptions, folder_of, representation
from rdxcli.services.explain.neurons import TABLE, document, outcome
from rdxcli.services.explain.unit_pictures import SHOWN_UNITS, add_masks, strongest

if TYPE_CHECKING:
    from rdxcli.records import Representation

CODE = "2"
BATCH = 32
OWN = ("ignore",)


def plan(options: ExplainOptions) -> dict[str, Any]:
    """What `explain` would do."""
    return {
        "method": options.method,
        "representation": options.model or options.activations,
        "layer": options.layer or "the penultimate one",
        "pool": "none",
        "masks": options.files.get("masks") or options.files.get("broden") or "of the data set",
        "units": options.units or "all",
        "parameters": dict(options.parameters),
        "memory": "the largest 0.5 % of all activations, besides one batch of images",
    }


def explain(options: ExplainOptions) -> Outcome:
    """Name the units of a layer and store the table.

    Raises
    ------
    RdxError, ValueError
        No maps, no masks, or unusable options.
    """
    from rdxcli.methods.neurons.network_dissection import NetworkDissection

    own = {name: value for name, value in options.parameters.items() if name not in OWN}
    known = [name for name in NetworkDissection().get_params() if name != "device"]
    check_parameters(options.method, options.parameters, [*known, *OWN])
    source = representation(options, spatial=True, pool="none" if options.pool == "auto" else options.pool)
    if source.values.ndim != 4:
        raise UsageError(
            f"{source.name} gives vectors, network dissection needs maps (n, c, h, w)",
            "choose a convolutional layer with --layer, or give an array of maps",
        )
    masks = open_masks(options, source)
    units = parse_units(options.units, source.d)
    ignore = options.parameters.get("ignore")
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int)):
        raise UsageError(f"got ignore={ignore}, expected the number of a label")
    device = "cpu" if options.device == "auto" else options.device
    estimator = NetworkDissection(**own, device=device)
    request = Request(
        kind="explanations",
        parameters={
            "method": options.method,
            **{name: value for name, value in estimator.get_params().items() if name != "device"},
            "ignore": ignore,
            "units": options.units,
        },
        inputs={"activations": dict(source.source), "masks": masks.source, "images": source.dataset},
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            from rdxcli.methods.neurons.tables import format_table

            estimator.fit(
                None,
                None,
                concept_names=masks.names,
                categories=masks.categories,
                ignore=ignore,
                batches=_batches(source, masks),
                n_images=source.n,
            )
            table = estimator.table(source.layer or "").select(units)
            pictures = {unit: strongest(source, unit) for unit in units[:SHOWN_UNITS]}
            notes = [*masks.notes, *estimator.notes_]
            record = document(options, request, source, table, notes, folder.as_posix(), strongest=pictures)
            for entry in record["units"]:
                entry["interpretable"] = bool(estimator.interpretable_[entry["unit"]])
                entry["threshold"] = float(estimator.thresholds_[entry["unit"]])
            add_masks(record, options, source, {unit: float(estimator.thresholds_[unit]) for unit in units})
            (draft.path / TABLE).write_text(format_table(table), "utf-8")
            write_json(draft.path / "explanations.json", record)
            draft.manifest.rows = len(units)
    return outcome(draft.result, source)


def _batches(source: Representation, masks: Masks) -> Callable[[], Iterator[tuple[Any, Any]]]:
    """Maps and masks, twice: the first pass is for thresholds and reads no mask."""
    passes = 0

    def batches() -> Iterator[tuple[Any, Any]]:
        nonlocal passes
        passes += 1
        with track("thresholds" if passes == 1 else "overlaps", source.n, "images") as advance:
            step = BATCH if passes == 1 else 1  # masks of several images may differ in size
            for start in range(0, source.n, step):
                maps = source.values[start : start + step]
                yield maps, None if passes == 1 else masks.read(start)[None]
                advance(len(maps))

    return batches
