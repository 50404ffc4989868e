"""What if a concept were stronger (``--steer``), and what each concept does to single predictions (``--target``).

``--steer DIRECTION=AMOUNT[,AMOUNT ...]``: an amount is a step along the encoding direction (a unit vector) in feature
units; ``1x`` is the concept's own strength, the mean signal value where it is detected minus the mean where it is not.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdxcli.concepts.direction_record import View
from rdxcli.errors import UsageError
from rdxcli.lazy import scipy
from rdxcli.methods.directions.base import Directions
from rdxcli.methods.directions.steering import explain_predictions, own_strength, steer
from rdxcli.parameters import Parameter
from rdxcli.progress import human_count, track
from rdxcli.records import DirectionExplanations, Representation, plain
from rdxcli.representations.placing import placer

PARAMETERS = (
    Parameter("steer_where", Literal["all", "present", "absent"], "all", "Places that are moved."),
    Parameter("steer_clamp", bool | None, None, "Keep features at or above 0; null does where they never are below."),
)
TABLE = "steering.csv"
ARRAYS = "steering.npz"
IMAGES = 2048  # that are steered when no target chooses
EXPLAINED = 24  # single images
CLASSES = 10  # in the document; the table has all
CONCEPTS = 8  # of a single image


@dataclass(frozen=True)
class Step:
    """One counterfactual.

    Parameters
    ----------
    own : bool
        The amount counts the concept's own strength.
    """

    direction: int
    amount: float
    own: bool = False


def parse(given: Sequence[str]) -> list[Step]:
    """The steps that ``--steer`` asks for, in its order. Raises `UsageError` (malformed, zero or infinite)."""
    steps = []
    for text in given:
        index, equals, amounts = text.partition("=")
        if not equals or not index.strip().isdecimal():
            raise UsageError(f"--steer: cannot read `{text}`", "write DIRECTION=AMOUNT, like 3=2.0, 3=-2,2 or 3=1x")
        for part in amounts.split(","):
            number = part.strip()
            own = number.endswith("x")
            try:
                amount = float(number.removesuffix("x"))
            except ValueError:
                amount = math.nan
            if not math.isfinite(amount) or amount == 0:
                raise UsageError(
                    f"--steer: `{number}` in `{text}` is no amount", "write numbers other than 0, like 3=-2,2 or 3=1x"
                )
            steps.append(Step(int(index), amount, own))
    return steps


def check(steps: Sequence[Step], count: int) -> None:
    """Refuse directions that do not exist. Raises `UsageError`."""
    for step in steps:
        if step.direction >= count:
            raise UsageError(f"--steer: there is no direction {step.direction}", f"they are numbered 0 to {count - 1}")


def add(
    folder: Path,
    view: View,
    found: DirectionExplanations,
    directions: Directions,
    features: np.ndarray,
    steps: Sequence[Step],
    rows: np.ndarray | None,
) -> DirectionExplanations:
    """The record with counterfactuals and single images; the table and arrays of steering go into ``folder``.

    Parameters
    ----------
    features : ndarray, shape (n, c, h, w) or (n, d)
    rows : (r,) int64, optional
        Images that are chosen; without them there are no single images, and up to 2,048 are steered.
    """
    given = view.own["steer_clamp"]
    # a layer whose features are never negative ends in a ReLU, so that the network never sees others
    clamp = bool(float(features.min()) >= 0 if given is None else given)
    if steps:
        steered = rows
        if steered is None:
            steered = np.unique(np.linspace(0, len(features) - 1, min(len(features), IMAGES)).astype(int))
        found = replace(found, steering=plain(_steer(folder, view, directions, features, steps, steered, clamp)))
    if rows is not None:
        found = replace(found, images=plain(_images(view, directions, features, rows[:EXPLAINED], clamp)))
        if len(rows) > EXPLAINED:
            more = f"{human_count(len(rows), 'image', 'are')} targets, the first {EXPLAINED} are explained one by one"
            found = replace(found, notes=[*found.notes, more])
    return found


def _steer(
    folder: Path,
    view: View,
    directions: Directions,
    features: np.ndarray,
    steps: Sequence[Step],
    rows: np.ndarray,
    clamp: bool,
) -> dict[str, Any]:
    names, where = view.classes, view.own["steer_where"]
    assert names is not None  # `check` and `gather` refuse steps without the network above the layer
    strengths = own_strength(directions, features)
    amounts = []
    for step in steps:
        if step.own and not strengths[step.direction] > 0:
            raise UsageError(
                f"--steer: direction {step.direction} has no strength of its own: its detector fires nowhere, or "
                "everywhere",
                "give the amount in feature units, without x",
            )
        amounts.append(step.amount * (strengths[step.direction] if step.own else 1.0))
    chosen = np.ascontiguousarray(features[rows])
    order = list(dict.fromkeys(step.direction for step in steps))
    steered = np.empty((len(steps), len(rows), len(names)), dtype=np.float64)
    base = steered[:0]
    with track("steer", len(order), "directions") as advance:
        for index in order:
            places = [place for place, step in enumerate(steps) if step.direction == index]
            moves = [0.0, *(amounts[p] for p in places)]
            logits = steer(directions, view.case.head, chosen, index, moves, where, clamp)
            base, steered[places] = logits[0], logits[1:]
            advance(1)
    summaries = [
        _summary(step, amount, float(strengths[step.direction]), base, after, names)
        for step, amount, after in zip(steps, amounts, steered, strict=True)
    ]
    _write(folder, view.source, rows, summaries, base, steered)
    for summary in summaries:
        summary["classes"] = sorted(summary["classes"], key=lambda one: -abs(one["change"]))[:CLASSES]
    return {"where": where, "clamp": clamp, "images": len(rows), "steps": summaries}


def _summary(
    step: Step, amount: float, strength: float, base: np.ndarray, after: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """What one step does, on average over the images."""
    change = after - base
    before, now = base.argmax(axis=1), after.argmax(axis=1)
    moved = before != now
    gained = np.bincount(now[moved], minlength=len(names))

    p, q = scipy.special.softmax(base, axis=1).mean(axis=0), scipy.special.softmax(after, axis=1).mean(axis=0)
    predicted, said = np.bincount(before, minlength=len(names)), np.bincount(now, minlength=len(names))
    return {
        "direction": step.direction,
        "amount": float(amount),
        "own_strength": strength,
        "changed": float(moved.mean()),
        "to": {names[k]: int(gained[k]) for k in np.argsort(-gained, kind="stable")[:CLASSES] if gained[k]},
        "classes": [
            {
                "class": names[k],
                "before": float(base[:, k].mean()),
                "after": float(after[:, k].mean()),
                "change": float(change[:, k].mean()),
                "rises": float((change[:, k] > 0).mean()),
                "probability_before": float(p[k]),
                "probability_after": float(q[k]),
                "predicted_before": int(predicted[k]),
                "predicted_after": int(said[k]),
            }
            for k in range(len(names))
        ],
    }


def _write(
    folder: Path,
    source: Representation,
    rows: np.ndarray,
    summaries: Sequence[Mapping[str, Any]],
    base: np.ndarray,
    steered: np.ndarray,
) -> None:
    """Means of every class as a table; the logits of every image as arrays."""
    columns = list(summaries[0]["classes"][0])
    with open(folder / TABLE, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["direction", "amount", *columns])
        for summary in summaries:
            for entry in summary["classes"]:
                values = [f"{v:.6g}" if isinstance(v, float) else v for v in entry.values()]
                writer.writerow([summary["direction"], f"{summary['amount']:.6g}", *values])
    np.savez_compressed(
        folder / ARRAYS,
        logits=base.astype(np.float32),
        steered=steered.astype(np.float32),
        direction=np.array([summary["direction"] for summary in summaries]),
        amount=np.array([summary["amount"] for summary in summaries]),
        row=rows,
        sample_ids=np.array(source.names_of(rows) if source.ids() else rows.astype(str)),
    )


def _images(
    view: View, directions: Directions, features: np.ndarray, rows: np.ndarray, clamp: bool
) -> list[dict[str, Any]]:
    """Each image's active concepts: where they are, and what the predicted class would lose without them."""
    source, head, classes = view.source, view.case.head, view.classes
    chosen = np.ascontiguousarray(features[rows])
    maps = directions.concept_maps(chosen)
    strongest = maps.reshape(*maps.shape[:2], -1).max(axis=2)
    active = directions.responses(chosen).reshape(*maps.shape[:2], -1).max(axis=2) > 0
    gained, said = None, None
    if head is not None:
        # taken away as everywhere else: by the strength that a concept has over all samples
        strength = own_strength(directions, features)
        contributions, logits = explain_predictions(directions, head, chosen, strength, clamp)
        said = logits.argmax(axis=1)
        gained = contributions[np.arange(len(rows)), :, said]
    labels = source.labels_of(rows)
    put = placer(view.options, source)
    found = []
    for place, sample in enumerate(source.names_of(rows)):
        weight = strongest[place] if gained is None else np.abs(gained[place])
        order = [int(i) for i in np.argsort(-weight, kind="stable") if active[place, i]][:CONCEPTS]
        found.append(
            {
                "sample_id": sample,
                "label": None if labels is None else labels[place],
                "prediction": None if said is None or classes is None else classes[said[place]],
                "logit": None if said is None else float(logits[place, said[place]]),
                "concepts": [
                    {
                        "direction": i,
                        "activation": float(strongest[place, i]),
                        "contribution": None if gained is None else float(gained[place, i]),
                        "map": put(int(rows[place]), maps[place, i]) if maps.ndim == 4 else None,
                    }
                    for i in order
                ],
            }
        )
    return found
