"""What ``rdx simulate --scoring ablation`` needs besides the tables: the model's loss when one unit is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdxcli.artifacts import fingerprint_array, write_json
from rdxcli.concepts.labels import class_indices
from rdxcli.datasets.arrayfiles import read_array
from rdxcli.engines.activations import default_batch_size
from rdxcli.errors import InputError, UsageError
from rdxcli.methods.neurons.ablation import AblationScores, LinearHead, Losses, ablation_scores, controls
from rdxcli.methods.neurons.inspection import CUTOFFS, importance
from rdxcli.methods.neurons.scores import summarise
from rdxcli.methods.neurons.simulation import simulate, unit_columns
from rdxcli.methods.neurons.tables import ExplanationTable
from rdxcli.models import load
from rdxcli.models.judges import TOWERS, same_layer, with_own_head, with_texts
from rdxcli.models.replacing import HookedLosses, linear_head, preprocessed
from rdxcli.models.taps import first_tensor
from rdxcli.parameters import Count, Parameter, Positive, by_name
from rdxcli.progress import log, track
from rdxcli.records import Representation, plain
from rdxcli.services.simulate.options import SimulateOptions

if TYPE_CHECKING:
    from torch import Tensor

    from rdxcli.models.loaded import LoadedModel

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
MOST_BYTES = 4 * 2**30  # images that are kept in memory


@dataclass(frozen=True)
class Judge:
    """The model as ablation sees it.

    Attributes
    ----------
    losses : Losses
    logits : callable
        ``logits(unit, values, rows)``: logits over the temperature when the unit has these values.
    labels : (n,) int64
    how : str
        In words: through the linear classifier, or through a hook.
    source : dict
        Fingerprints.
    cheap : bool
        Whether a replaced unit costs no pass of a network.
    """

    losses: Losses
    logits: Callable[[int, np.ndarray, np.ndarray], np.ndarray]
    labels: np.ndarray
    how: str
    source: dict[str, Any]
    cheap: bool = False


def open_judge(
    options: SimulateOptions, source: Representation, rows: np.ndarray, temperature: float, zero_shot: str | None = None
) -> Judge:
    """The model's loss on ``rows``.

    The classifier's weights come from ``--file head=FILE`` (``weight``, ``bias`` in .npz or .safetensors); else the
    model is loaded. Where its classifier is linear and reads just these activations, that is used; any other layer is
    changed by a forward hook. Models that are read without a classifier (of the transformers library, CLIP models) get
    their repository's, or with ``zero_shot`` the texts of the class names.

    Raises
    ------
    RdxError, ValueError
        No labels, no model, labels that are no outputs of the network, too many images.
    """
    if source.labels is None:
        raise UsageError("ablation needs labels: it compares losses", "use a data set that has them, or --labels FILE")
    if "head" in options.files:
        weight, bias = _head_file(options.files["head"])
        labels = class_indices(options, source, len(weight), None)
        return _linear(source, weight, bias, labels, temperature, "a linear classifier from a file")
    name = options.model or source.source.get("model")
    if name is None:
        raise UsageError(
            "ablation needs the model: it measures what its loss does",
            "give --model NAME, or --file head=FILE with `weight` and `bias` of a linear classifier",
        )

    return _from_model(options, source, load(str(name), device=options.device), rows, temperature, zero_shot)


def _from_model(
    options: SimulateOptions,
    source: Representation,
    model: LoadedModel,
    rows: np.ndarray,
    temperature: float,
    zero_shot: str | None,
) -> Judge:
    import torch

    dataset = options.selection.open(source.dataset)
    places = np.arange(source.n)
    if source.sample_ids is not None:
        places = dataset.locate([str(sample) for sample in source.sample_ids])
    if (places[rows] < 0).any() or places.max() >= len(dataset):
        raise InputError(f"some samples of {source.name} have no image in {dataset.name}")
    layer = model.layer(source.layer)
    first = preprocessed(model, [dataset.image(int(places[rows[0]]))])
    model, layer, names = _classifier(model, layer, first, dataset.class_names, zero_shot)
    with torch.inference_mode():
        output = first_tensor(model.module(first.to(model.device, model.dtype)))
    if output is None or output.ndim != 2:
        raise InputError(f"`{model.name}` gives no logits, so it has no loss", "ablation needs a classifier")
    labels = class_indices(options, source, output.shape[1], names)
    head = linear_head(model, layer, first)
    if head is not None and head[0].shape[1] == source.d:
        judge = _linear(source, *head, labels, temperature, "the linear classifier behind the layer")
        return replace(judge, source={**judge.source, "weights": model.weights_sha256})
    needed = 4 * int(np.prod(first.shape)) * len(rows)
    if needed > MOST_BYTES:
        raise UsageError(
            f"{len(rows)} images take {needed / 2**30:.1f} GiB of memory", "take fewer with --sample N or --limit N"
        )
    pictures = torch.empty((len(rows), *first.shape[1:]))
    with track("read images", len(rows), "images") as advance:
        for i, row in enumerate(rows):
            pictures[i] = model.transform(dataset.image(int(places[row])))
            advance(1)
    pool = str(source.source.get("pool", "auto"))
    pool = "avg" if pool == "none" else pool
    batch = default_batch_size(model.input_size, model.device.type)
    losses = HookedLosses(
        model,
        layer,
        pool,
        pictures,
        rows,
        labels,
        source.values,
        temperature=temperature,
        batch_size=batch,
        front_bytes=MOST_BYTES,
    )
    what = "the network" if losses.front is None else f"what follows {layer}"
    log.info("replacing units of %s by a hook: each step is a pass of %s over %d images", layer, what, len(rows))

    def logits(unit: int, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for start in range(0, len(wanted), losses.batch_size):
                part = slice(start, start + losses.batch_size)
                parts.append(losses.logits(unit, torch.as_tensor(values[part]), wanted[part]).double().cpu().numpy())
        return np.concatenate(parts) / temperature

    return Judge(losses, logits, labels, "a forward hook in the network", {"weights": model.weights_sha256})


def _classifier(
    model: LoadedModel, layer: str, image: Tensor, class_names: Sequence[str] | None, zero_shot: str | None
) -> tuple[LoadedModel, str, Sequence[str] | None]:
    """The model with its classifier where it is read without, the layer's path in that, and what the outputs are."""
    if zero_shot is not None:
        if class_names is None:
            raise UsageError("which classes? the data set has no class names", "zero_shot needs labels")
        judge = with_texts(model, class_names, zero_shot)
        return judge, same_layer(model, layer, judge, image), class_names
    if model.spec.kind not in TOWERS:
        if not model.has_head:
            raise InputError(f"`{model.name}` gives no logits, so it has no loss", "ablation needs a classifier")
        return model, layer, class_names
    judge, own = with_own_head(model)
    known = class_names is not None and set(class_names) <= set(own)
    return judge, same_layer(model, layer, judge, image), own if known else class_names


def _linear(
    source: Representation, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray, temperature: float, how: str
) -> Judge:
    head = LinearHead(np.array(source.values, dtype=np.float64), weight, bias, labels, temperature=temperature)
    base, columns = head.logits.cpu().numpy(), head.weight.cpu().numpy()

    def logits(unit: int, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return base[rows] + (values - source.values[rows, unit])[:, None] * columns[:, unit][None, :]

    prints = {"head": fingerprint_array(weight), "bias": fingerprint_array(bias)}
    return Judge(head, logits, labels, how, prints, cheap=True)


def _head_file(path: str) -> tuple[np.ndarray, np.ndarray]:
    weight = np.asarray(read_array(f"{path}:weight").values, dtype=np.float64)
    return weight, np.asarray(read_array(f"{path}:bias").values, dtype=np.float64).reshape(-1)


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

    Parameters
    ----------
    settings : mapping
        ``variant``, ``bootstraps`` and the hyper-parameters.
    store : Path
        Folder of finished blocks of units, which are not scored again.

    Returns
    -------
    methods : list of dict
        As in the document of a simulation; units with ``scale`` and ``shift`` of their simulated activation.
    extra : dict
        ``ablation``: how the model was judged, which part of the effect the images that it gets wrong carry, and the
        scores of a perfect and of a shuffled prediction; ``importance``: share of a unit's effect by cut-off.
    """
    rows = np.unique(np.concatenate([val, test]))
    judge = open_judge(options, source, rows, settings["temperature"], settings["zero_shot"])
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
                    f"no ablation score for {len(undefined)} units that have no effect or a constant prediction: "
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
