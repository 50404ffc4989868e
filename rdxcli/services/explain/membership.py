"""``rdx explain --method rdr --apply ARTIFACT``: which of these samples are in stored regions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdxcli.artifacts import Artifact, Request, create, fingerprint_array, write_json
from rdxcli.errors import ArtifactError, InputError, UsageError
from rdxcli.records import plain
from rdxcli.services.base import Outcome
from rdxcli.services.explain import region_record as record
from rdxcli.services.explain.base import ExplainOptions, folder_of, representation
from rdxcli.services.explain.samples import names_of, predictions_of
from rdxcli.services.explain.stored import check_layer, same_place, stored_artifact

if TYPE_CHECKING:
    from rdxcli.methods.regions.configurations import Configurations
    from rdxcli.records import Representation

CODE = "1"
TABLE = "membership.csv"


def explain(options: ExplainOptions) -> Outcome:
    """Apply stored rules to samples, with the stored thresholds, and store who is inside.

    Raises
    ------
    RdxError, ValueError
        No such artifact; another layer or number of units; options that have no meaning here.
    """
    artifact = stored_artifact(options, "regions")
    if artifact.manifest.request.parameters.get("use") == "membership":
        raise UsageError(
            f"--apply: {artifact.path} is itself the result of --apply", "name the regions it was made from"
        )
    for given, option in ((options.target, "--target"), (options.parameters, "--param")):
        if given:
            raise UsageError(f"{option} is about finding regions, --apply takes stored ones as they are")
    options = same_place(options, artifact, "activations")
    source = representation(options, spatial=True, pool=options.pool)
    notes = check_layer(artifact, source)
    configurations = _configurations(artifact)
    encoded = _encoded(artifact, configurations, source)
    predictions = predictions_of(options, source)
    request = Request(
        kind="regions",
        parameters={"method": options.method, "use": "membership"},
        inputs={
            "regions": artifact.manifest.fingerprint,
            "activations": dict(source.source),
            "labels": None if source.labels is None else fingerprint_array(source.labels),
            "predictions": None if predictions is None else fingerprint_array(predictions),
            "images": source.dataset,
        },
        seed=options.seed,
        code=CODE,
    )
    folder = folder_of(options, source)
    if folder.resolve() == artifact.path.resolve():
        raise UsageError(f"this would replace the regions in {folder}", "give the result another name with --run NAME")
    with create(folder, request, force=options.force) as draft:
        if not draft.reused:
            view = record.View(source, predictions, configurations.shape[1:])
            document = _document(options, artifact, request, view, configurations, encoded, notes)
            document["artifact"] = folder.as_posix()
            write_json(draft.path / "regions.json", plain(document))
            _write_table(draft.path / TABLE, document, source)
            draft.manifest.rows = source.n
    return record.outcome(draft.result, f"stored regions in {source.name} ({source.layer or 'array'})")


def _configurations(artifact: Artifact) -> Configurations:
    import numpy as np

    from rdxcli.methods.regions.configurations import Configurations

    path = artifact.path / "configurations.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Configurations.from_arrays({name: arrays[name] for name in arrays.files})
    except (OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {error}", "find the regions again with --force") from None


def _encoded(artifact: Artifact, configurations: Configurations, source: Representation) -> Configurations:
    shape = tuple(source.values.shape[1:])
    seen = shape if configurations.pool == "none" else shape[:1]
    if tuple(configurations.shape) != seen:
        raise InputError(
            f"{artifact.path} has {configurations.m} units of shape {configurations.shape}, {source.name} gives "
            f"{seen}: another layer, model, image size or pooling",
            "use the layer, the pooling and the image size that the regions were found with",
        )
    return configurations.encode(source.values)


def _document(
    options: ExplainOptions,
    artifact: Artifact,
    request: Request,
    view: record.View,
    configurations: Configurations,
    encoded: Configurations,
    notes: list[str],
) -> dict[str, Any]:
    import numpy as np

    from rdxcli.methods.regions.applied import apply_rule
    from rdxcli.methods.regions.selection import Rule
    from rdxcli.methods.regions.targets import Labels

    stored = artifact.document()
    labels = Labels.from_arrays(encoded.n, view.source.labels, view.predictions)
    document = record.document(options, request, view, [], notes, "")
    for number, region in enumerate(stored["regions"]):
        rule = Rule(
            np.asarray(region["neurons"], dtype=np.int64),
            np.asarray(region["states"], dtype=bool),
            np.asarray(region["neuron_scores"], dtype=np.float64),
        )
        found = apply_rule(
            rule,
            configurations.words[region["target"]],
            encoded,
            labels,
            mismatches=region["mismatches"],
            bounded=region["status"] == "bounded",
        )
        kept = (
            "target_id",
            "neurons",
            "states",
            "mismatches",
            "positions",
            "position_map",
            "concept",
            "merged_targets",
        )
        before = {key: region["scores"].get(key) for key in ("size", "coverage", "label", "purity")}
        document["regions"].append(
            {
                **{name: region[name] for name in kept if name in region},
                "region": number,
                "status": found.status,
                "scores": found.scores,
                "stored": {"status": region["status"], **before},
                "labels": found.counts,
                "members": found.members,
                "member_distances": found.distances,
                **view.shown([int(row) for row in found.members[: record.SHOWN]]),
            }
        )
    document["applied"] = {"artifact": artifact.path.as_posix(), "n": stored["samples"]["n"], "model": stored["model"]}
    free = sum(region["stored"]["status"] != "bounded" for region in document["regions"])
    if free:
        document["notes"].append(
            f"{free} stored regions were not bounded where they were found, and have no members here"
        )
    everybody = sum(
        region["status"] == "unbounded" and region["stored"]["status"] == "bounded" for region in document["regions"]
    )
    if everybody:
        document["notes"].append(f"{everybody} rules hold for every sample here and say nothing about them")
    return document


def _write_table(path: Path, document: dict[str, Any], source: Representation) -> None:
    """One line per region and member, for other programs."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["region", "target", "sample_id", "distance"])
        for region in document["regions"]:
            rows = [int(row) for row in region["members"]]
            for sample, distance in zip(names_of(source, rows), region["member_distances"], strict=True):
                writer.writerow([region["region"], region["target_id"], sample, int(distance)])
