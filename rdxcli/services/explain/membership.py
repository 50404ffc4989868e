"""``rdx explain --method rdr --apply ARTIFACT``: which of these samples are in stored regions."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import Artifact, Draft
from rdxcli.concepts.predictions import predictions_of
from rdxcli.errors import ArtifactError, InputError, UsageError
from rdxcli.methods.regions import record
from rdxcli.methods.regions.applied import apply_rule
from rdxcli.methods.regions.configurations import Configurations
from rdxcli.methods.regions.selection import Rule
from rdxcli.methods.regions.targets import Labels
from rdxcli.progress import human_count
from rdxcli.records import Regions, Representation
from rdxcli.representations.layer import representation
from rdxcli.services.explain.base import ExplainAnalysis
from rdxcli.services.explain.stored import check_layer, same_place, stored_artifact

KEPT = ("target_id", "neurons", "states", "mismatches", "positions", "position_map", "concept", "merged_targets")
"""What an entry takes over from the stored region."""

TABLE = "membership.csv"


class MembershipAnalysis(ExplainAnalysis):
    """Stored rules applied to samples, with the stored thresholds: who is inside."""

    kind = "regions"
    version = "2"

    def check(self) -> Mapping[str, Any]:
        options = self.options
        self.applied = stored_artifact(options, "regions")
        if self.applied.manifest.request.parameters.get("use") == "membership":
            raise UsageError(
                f"--apply: {self.applied.path} is itself the result of --apply", "name the regions it was made from"
            )
        for given, option in ((options.target, "--target"), (options.parameters, "--param")):
            if given:
                raise UsageError(f"{option} is about finding regions, --apply takes stored ones as they are")
        self.options = same_place(options, self.applied, "representation")
        return {"method": options.method, "use": "membership"}

    def gather(self) -> Mapping[str, Any]:
        source = representation(self.options, spatial=True, pool=self.options.pool)
        self.notes = check_layer(self.applied, source)
        self.configurations = _configurations(self.applied)
        self.encoded = _encoded(self.applied, self.configurations, source)
        return {
            "regions": self.applied,
            "representation": source,
            "predictions": predictions_of(self.options, source),
        }

    def folder(self) -> Path:
        folder = super().folder()
        if folder.resolve() == self.applied.path.resolve():
            raise UsageError(
                f"this would replace the regions in {folder}", "give the result another name with --run NAME"
            )
        return folder

    def compute(self, draft: Draft) -> Regions:
        source = self.source
        view = record.RegionView(source, self.records["predictions"], self.configurations.shape[1:])
        found = _found(self, view)
        _write_table(draft.path / TABLE, found.regions, source)
        draft.manifest.rows = source.n
        return found


def _configurations(artifact: Artifact) -> Configurations:
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
            f"{artifact.path} has {human_count(configurations.m, 'unit')} of shape "
            f"{configurations.shape}, {source.name} gives "
            f"{seen}: another layer, model, image size or pooling",
            "use the layer, the pooling and the image size that the regions were found with",
        )
    return configurations.encode(source.values)


def _found(analysis: MembershipAnalysis, view: record.RegionView) -> Regions:
    """Every stored region with its members among these samples."""
    encoded, configurations = analysis.encoded, analysis.configurations
    stored = analysis.applied.document()
    labels = Labels.from_arrays(encoded.n, view.source.labels, view.predictions)
    entries: list[dict[str, Any]] = []
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
        before = {key: region["scores"].get(key) for key in ("size", "coverage", "label", "purity")}
        entries.append(
            {
                **{name: region[name] for name in KEPT if name in region},
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
    notes = list(analysis.notes)
    free = sum(region["stored"]["status"] != "bounded" for region in entries)
    if free:
        notes.append(
            f"{human_count(free, 'stored region', 'were')} not bounded where they were found, and have no members here"
        )
    everybody = sum(region["status"] == "unbounded" and region["stored"]["status"] == "bounded" for region in entries)
    if everybody:
        notes.append(f"{human_count(everybody, 'rule', 'hold')} for every sample here: nothing is said about them")
    path = analysis.applied.path.as_posix()
    applied = {"artifact": path, "n": stored["samples"]["n"], "model": stored["model"]}
    return analysis.answer(Regions, notes, regions=entries, applied=applied)


def _write_table(path: Path, regions: Sequence[Mapping[str, Any]], source: Representation) -> None:
    """One line per region and member, for other programs."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["region", "target", "sample_id", "distance"])
        for region in regions:
            rows = [int(row) for row in region["members"]]
            for sample, distance in zip(source.names_of(rows), region["member_distances"], strict=True):
                writer.writerow([region["region"], region["target_id"], sample, int(distance)])


ANALYSIS = MembershipAnalysis
