"""What ``rdx simulate --scoring ablation`` needs besides the tables: the model's loss when one unit is replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rdxcli.artifacts import fingerprint_array, write_json
from rdxcli.concepts.labels import class_indices
from rdxcli.methods.neurons.ablation import AblationScores, ablation_scores, controls
from rdxcli.methods.neurons.inspection import CUTOFFS, importance
from rdxcli.methods.neurons.scores import summarise
from rdxcli.methods.neurons.simulation import simulate, unit_columns
from rdxcli.methods.neurons.tables import ExplanationTable
from rdxcli.parameters import Count, Parameter, Positive, by_name
from rdxcli.progress import human_count, track
from rdxcli.records import Representation, plain
from rdxcli.representations.judge import open_judge
from rdxcli.services.simulate.options import SimulateOptions

VARIANTS = ("optim", "norm")
PARAMETERS: Mapping[str, Parameter] = by_name(
    Parameter("temperature", Positive, 1.1, "Of the logits."),
    Parameter("steps", Count, 100, "Of the fit of scale and shift."),
    Parameter("learning_rate", Positive, 0.01, "Of that fit."),
    Parameter(
        "zero_shot", str | None, None, "Sentence around class names, `a photo of a {}`, by which CLIP models classify."
    ),
    Parameter("controls", bool | None, None, "Score the units themselves too; by default where it costs little."),
)
"""Of ``--param``, with the published values."""

BLOCK = 8  # units that are scored, and kept, together

SHOWN_UNITS = 64  # units whose activation importance is measured


def request_inputs(options: SimulateOptions, source: Representation) -> dict[str, Any]:
    """What the judge reads besides the activations, whose artifact already stands for the weights, and the files."""
    return {"labels": None if source.labels is None else fingerprint_array(source.labels)}


def score_tables(
    options: SimulateOptions,
    settings: Mapping[str, Any],
    source: Representation,
    tables: Mapping[str, ExplanationTable],
    concepts: Any,
    val: np.ndarray,
    test: np.ndarray,
    *,
    store: Path,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ablation scores of several tables.

    `settings`: ``variant``, ``bootstraps`` and the hyper-parameters; `store`: folder of finished blocks of units, which
    are not scored again.

    Returns
    -------
    methods : list of dict
        As in the document of a simulation; units with ``scale`` and ``shift`` of their simulated activation.
    extra : dict
        ``ablation``: how the model was judged, which part of the effect the images that it gets wrong carry, and the
        scores of a perfect and of a shuffled prediction; ``importance``: share of a unit's effect by cut-off.
    """
    rows = np.unique(np.concatenate([val, test]))
    judge = open_judge(
        options,
        source,
        rows,
        settings["temperature"],
        settings["zero_shot"],
        head=options.files.get("head"),
        class_indices=partial(class_indices, options, source),
    )
    methods: list[dict[str, Any]] = []
    total = sum(len(table.rows) for table in tables.values())
    right = np.zeros(source.n, dtype=bool)
    own = np.asarray(source.values[test, 0], dtype=np.float64)
    right[test] = judge.logits(0, own, test).argmax(axis=1) == judge.labels[test]
    fit: dict[str, Any] = {name: settings[name] for name in ("variant", "steps", "learning_rate")}
    fit |= {"val": val, "test": test}
    with track(f"ablation ({settings['variant']})", total, "units") as advance:
        for number, (name, table) in enumerate(tables.items()):
            predictions, notes = simulate(table, concepts.values, concepts.names)
            columns = unit_columns(table, source.d, None)
            units: list[dict[str, Any]] = []
            for start in range(0, len(columns), BLOCK):
                part = slice(start, start + BLOCK)
                kept = store / f"{number}-{start}.json"
                if kept.is_file():
                    block = json.loads(kept.read_text("utf-8"))
                else:
                    found = ablation_scores(
                        predictions[:, part],
                        source.values,
                        judge.losses,
                        units=columns[part],
                        right=right,
                        intervals=settings["bootstraps"] > 0,
                        **fit,
                    )
                    block = _entries(found, table, start)
                    write_json(kept, plain(block))
                units += block
                advance(len(block))
            scores = np.array([np.nan if unit["score"] is None else unit["score"] for unit in units])
            undefined = [unit["unit"] for unit in units if unit["score"] is None or not np.isfinite(unit["score"])]
            if undefined:
                notes.append(
                    f"no ablation score for {human_count(len(undefined), 'unit', 'that have')} no effect "
                    "or a constant prediction: "
                    f"{', '.join(map(str, undefined[:10]))}"
                )
            methods.append(
                {
                    "method": name,
                    "summary": vars(summarise(scores, ddof=0)),
                    "units": units,
                    "length_curve": [],
                    "notes": [*notes, *_about_wrong(units, right[test])],
                }
            )
    chosen = sorted({unit["unit"] for entry in methods for unit in entry["units"]})[:SHOWN_UNITS]
    shares = importance(judge.logits, judge.labels, source.values, chosen, test)
    about: dict[str, Any] = {"wrong_images": float(1.0 - right[test].mean())}
    if settings["controls"] or (settings["controls"] is None and judge.cheap):
        ends = controls(source.values, judge.losses, units=chosen, random_state=options.seed, **fit)
        about["controls"] = {"truth": vars(ends.truth.summary), "shuffled": vars(ends.shuffled.summary)}
    told = {name: settings[name] for name in ("variant", *PARAMETERS)}
    extra = {
        "ablation": {"judge": judge.how, **told, **about},
        "importance": {"cutoffs": list(CUTOFFS), "units": [{"unit": u, "share": shares[u]} for u in chosen]},
    }
    return methods, extra


def _entries(found: AblationScores, table: ExplanationTable, start: int) -> list[dict[str, Any]]:
    """Scored units of a document; ``start`` is the place of the first in the table."""
    interval = found.interval
    assert found.right_scores is not None
    assert found.wrong_share is not None
    return [
        {
            "unit": int(unit),
            "score": float(found.scores[i]),
            "low": None if interval is None else float(interval.low[i]),
            "high": None if interval is None else float(interval.high[i]),
            "length": len(table.rows[start + i].concepts),
            "scale": float(found.scale[i]),
            "shift": float(found.shift[i]),
            "score_right": float(found.right_scores[i]),
            "wrong_share": float(found.wrong_share[i]),
        }
        for i, unit in enumerate(found.units)
    ]


def _about_wrong(units: Sequence[Mapping[str, Any]], right: np.ndarray) -> list[str]:
    """What the images that the model gets wrong do to the scores."""
    share, rest = (
        np.array([unit[name] for unit in units if unit[name] is not None and np.isfinite(unit[name])])
        for name in ("wrong_share", "score_right")
    )
    if right.all() or not len(share) or not len(rest):
        return []
    return [
        f"the model gets {1 - right.mean():.0%} of the images wrong; they carry {share.mean():.0%} of the effect on "
        f"the loss. Over the others alone the mean score is {rest.mean():.2f}"
    ]
