"""What a document says of regions: targets and members by id and label, and where the units sit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rdxcli.methods.regions.uses import RegionComparison
from rdxcli.records import Representation

SHOWN = 16  # members of a region that are listed by id, nearest first
SIDE = 8  # the same in a comparison
TARGETS = 48  # whose regions a comparison lists


@dataclass(frozen=True)
class RegionView:
    """What turns rows into something to look at.

    Parameters
    ----------
    predictions : (n,) array of str, optional
    places : tuple of int
        Height and width of the map of units; () without places.
    """

    source: Representation
    predictions: np.ndarray | None = None
    places: tuple[int, ...] = ()

    def shown(self, rows: Sequence[int]) -> dict[str, Any]:
        """Ids, labels and predictions of some samples."""
        found: dict[str, Any] = {
            "sample_ids": self.source.names_of(rows),
            "sample_labels": self.source.labels_of(rows),
        }
        if self.predictions is not None:
            found["sample_predictions"] = [str(self.predictions[row]) for row in rows]
        return found

    def regions(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Entries with ids and labels of what a report shows."""
        return [self.region(entry) for entry in entries]

    def region(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of a region with ids and labels of the target and the nearest members, and where the units sit."""
        rows = with_target_first(entry["target"], entry["members"])[:SHOWN]
        return {
            **entry,
            "target_id": self.source.names_of([int(entry["target"])])[0],
            **self.shown(rows),
            "position_map": position_map(entry, self.places),
        }


def with_target_first(target: int, members: Sequence[int] | np.ndarray) -> list[int]:
    """Rows of a region, the target in front whether or not it is a member."""
    return [int(target), *(int(row) for row in members if row != target)]


def position_map(entry: Mapping[str, Any], places: tuple[int, ...]) -> list[list[int]] | None:
    """How many of the chosen units sit at each place of a map of height and width ``places``; None without places."""
    if len(places) != 2:
        return None
    counts = np.zeros(places, dtype=int)
    for _, row, column in np.asarray(entry["positions"], dtype=int).reshape(-1, 3):
        counts[row, column] += 1
    return counts.tolist()


def sides(comparison: RegionComparison, view: RegionView) -> list[dict[str, Any]]:
    """For the first 48 targets, the region in every source: how many members, and the nearest of them."""
    found = []
    for t, target in enumerate(comparison.targets[:TARGETS]):
        regions = []
        every = [fit.regions_[t].members for fit in comparison.fits]
        for i, name in enumerate(comparison.names):
            region = comparison.fits[i].regions_[t]
            rows = with_target_first(target, region.members)[:SIDE]
            others = np.concatenate([members for j, members in enumerate(every) if j != i])
            regions.append(
                {
                    "source": name,
                    "status": region.status,
                    "size": len(region.members),
                    "only_here": int((~np.isin(region.members, others)).sum()),
                    "purity": region.scores.get("purity"),
                    "label": region.scores.get("label"),
                    "labels": region.true_counts,
                    **view.shown(rows),
                }
            )
        found.append({"target": int(target), "target_id": view.source.names_of([int(target)])[0], "regions": regions})
    return found
