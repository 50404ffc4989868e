"""The scoreboard of a comparison as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The scoreboard of a document: names of the columns, and a row per method.

    ``hit`` and ``good`` (grids) appear when the true difference is known. ``bsr`` is the share of shown pairs that are
    closer in the right model by neighbour rank, for a and b, then the mean by Euclidean and by locally scaled distance;
    ``ties`` and ``tsd`` belong to the first.
    """
    known = any("hit_a" in one["scores"] for one in document["methods"])
    columns = ["method"]
    if known:
        columns += ["hit a", "hit b", "good a", "good b"]
    columns += ["bsr a", "bsr b", "mned", "zpls", "ties", "tsd", "s", "remark"]
    rows = []
    for one in document["methods"]:
        scores = one["scores"]
        row = [one["method"]]
        if known:
            row += [_two(scores.get(f"hit_{side}")) for side in ("a", "b")]
            row += [
                f"{scores[f'good_grids_{side}']}/{scores[f'grids_{side}']}" if f"grids_{side}" in scores else "-"
                for side in ("a", "b")
            ]
        row += [_two(scores.get(key)) for key in ("bsr_a", "bsr_b", "bsr_euclidean_mean", "bsr_local_mean")]
        ties = [scores[key] for key in ("ties_a", "ties_b") if scores.get(key) is not None]
        row += [_two(sum(ties) / len(ties) if ties else None)]
        tsd = scores.get("tsd_mean")
        row += ["-" if tsd is None else f"{tsd:.0f}", "-" if one["seconds"] is None else f"{one['seconds']:.1f}"]
        row += [f"cannot run: {one['error']}" if one["error"] else "; ".join(_own_notes(one, document))]
        rows.append(row)
    return columns, rows


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _own_notes(one: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """Remarks of the method itself, without those that every method shares."""
    lists = [set(other["notes"]) for other in document["methods"] if not other["error"]]
    shared = set.intersection(*lists) if len(lists) > 1 else set()
    return [note for note in one["notes"] if note not in shared]
